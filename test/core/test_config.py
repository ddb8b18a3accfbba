# SPDX-License-Identifier: Apache-2.0
"""Settings: YAML in and out without loss; whatever is wrong is named together with its remedy."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from occany_core.config import (
    OccAnyConfig,
    dump_config,
    from_flat,
    load_config,
    settings,
    to_flat,
    with_overrides,
)
from occany_core.errors import ConfigError

metres = st.floats(-100, 100)
positive = st.floats(0.01, 100)
flat_values = st.fixed_dictionaries(
    {},
    optional={
        "images.width": st.integers(0, 40).map(lambda n: 16 * n),
        "window.view_sets": st.integers(1, 20),
        "window.anchor": st.sampled_from(["newest", "oldest"]),
        "calibration.use": st.sampled_from(["off", "auto", "required"]),
        "calibration.camera_pitch_deg": st.floats(-89, 89),
        "novel_views.forward_step": metres,
        "novel_views.yaw_deg": st.floats(0, 180),
        "novel_views.seeds": st.integers(1, 9),
        "novel_views.seed_lateral": metres,
        "voxels.resolution": st.floats(1e-3, 1e3),
        "voxels.origin": st.tuples(metres, metres, metres),
        "voxels.shape": st.tuples(*[st.integers(1, 400)] * 3),
        "voxels.max_range": positive,
        "voxels.carve_free": st.booleans(),
        "runtime.device": st.sampled_from(["cpu", "auto", "cuda", "cuda:1"]),
    },
)


@given(flat_values)
def test_yaml_round_trip(tmp_path_factory, values):
    config = from_flat(values)
    assert to_flat(config) == to_flat(OccAnyConfig()) | values
    path = tmp_path_factory.mktemp("config") / "settings.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


@given(flat_values)
def test_overrides_say_the_same_as_a_file(values):
    texts = [
        f"{path}={yaml.safe_dump(list(v) if isinstance(v, tuple) else v, default_flow_style=True)}"
        for path, v in values.items()
    ]
    texts = [text.removesuffix("\n").removesuffix("\n...") for text in texts]
    assert with_overrides(OccAnyConfig(), texts) == from_flat(values)


def test_defaults_survive_an_empty_file(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    base = from_flat({"window.view_sets": 5})
    assert load_config(path) == OccAnyConfig()
    assert load_config(path, base) == base


def test_a_file_changes_only_what_it_names(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("voxels: {resolution: 1, shape: [4, 5, 6]}\n")
    config = load_config(path, from_flat({"voxels.max_range": 7.0}))
    expected = {"voxels.resolution": 1.0, "voxels.shape": (4, 5, 6), "voxels.max_range": 7.0}
    assert config == from_flat(expected)
    assert isinstance(config.voxels.resolution, float)


@pytest.mark.parametrize("text", ["1e2", "1E+2", "1.0e2", "10.e1", ".1e3", "+1000e-1"])
def test_numbers_with_exponents_need_no_point_and_no_sign(text):
    config = with_overrides(OccAnyConfig(), [f"voxels.max_range={text}"])
    assert config.voxels.max_range == 100.0
    shifted = with_overrides(config, [f"voxels.origin=[-{text.lstrip('+')}, 0, 0]"])
    assert shifted.voxels.origin == (-100.0, 0.0, 0.0)


@pytest.mark.parametrize("text", ["1e", "e2", "1e2.5", "1e2 m", "1e999"])
def test_texts_that_are_no_numbers_stay_refused(text):
    with pytest.raises(ConfigError, match=r"voxels\.max_range"):
        with_overrides(OccAnyConfig(), [f"voxels.max_range={text}"])


def test_overrides_win_in_order():
    config = with_overrides(OccAnyConfig(), ["novel_views.steps=2", "novel_views.steps=3"])
    assert config.novel_views.steps == 3


def test_every_setting_is_listed_with_type_default_and_description():
    listed = {setting.path: setting for setting in settings()}
    assert list(listed) == list(to_flat(OccAnyConfig()))
    for path, value in to_flat(OccAnyConfig()).items():
        setting = listed[path]
        assert setting.default == value
        assert setting.type is type(value)
        assert len(setting.description) > 15
        assert not setting.choices or value in setting.choices
    assert listed["voxels.shape"].item_type is int
    assert listed["voxels.origin"].item_type is float
    assert listed["voxels.method"].choices == ("cell", "trilinear")


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        OccAnyConfig().voxels.resolution = 1.0


WRONG = {
    "typo": ({"voxels.resolutoin": 0.2}, "did you mean voxels.resolution"),
    "group only": ({"voxels": 1}, "voxels"),
    "no relation": ({"qqqq": 1}, "occany config"),
    "text for a number": ({"voxels.resolution": "fine"}, "type float"),
    "number for a text": ({"runtime.device": 3}, "type str"),
    "bool for a number": ({"voxels.max_range": True}, "type float"),
    "bool for a count": ({"window.view_sets": True}, "type int"),
    "number for a switch": ({"voxels.carve_free": 1}, "type bool"),
    "exponent for a count": ({"window.view_sets": "1e1"}, "type int"),
    "fraction for a count": ({"window.view_sets": 1.5}, "type int"),
    "fraction in a shape": ({"voxels.shape": [1, 2, 2.5]}, "type int"),
    "too short": ({"voxels.origin": [1, 2]}, "list of 3"),
    "no list": ({"voxels.origin": 1.0}, "list of 3"),
    "nothing": ({"voxels.origin": None}, "list of 3"),
    "unknown choice": ({"voxels.method": "gaussian"}, "cell or trilinear"),
    "unknown pipeline": (
        {"labels.pipeline": "sam"},
        "labels.pipeline is 'sam'; it must be classes, distilled, pretrained or sam3",
    ),
    "unknown views": ({"labels.rendered": "some"}, "unturned, all or none"),
    "width": ({"images.width": 100}, "multiple of 16"),
    "huge width": ({"images.width": 16 * 10**6}, "at most 8192"),
    "no view sets": ({"window.view_sets": 0}, "between 1 and 256"),
    "endless window": ({"window.view_sets": 2**31}, "between 1 and 256"),
    "pitch": ({"calibration.camera_pitch_deg": 90.0}, "between -90 and 90"),
    "height": ({"calibration.camera_height": -1.0}, "between 0 and 20"),
    "steps": ({"novel_views.steps": -1}, "between 0 and 1000"),
    "many steps": ({"novel_views.steps": 10**6}, "between 0 and 1000"),
    "chunk": ({"novel_views.chunk": 0}, "at least 1"),
    "yaw": ({"novel_views.yaw_deg": 181.0}, "between 0 and 180"),
    "seeds": ({"novel_views.seeds": 0}, "between 1 and 1000"),
    "seed angle": ({"novel_views.seed_step_deg": -15.0}, "between 0 and 180"),
    "resolution": ({"voxels.resolution": 0.0}, "at least 0.001 m"),
    "shape": ({"voxels.shape": [0, 1, 1]}, "positive"),
    "memory": ({"voxels.shape": [2000, 2000, 2000]}, "100 million"),
    "device": ({"runtime.device": "cuda:x"}, "cuda:N"),
    "threads": ({"runtime.threads": -2}, "between 0 and 1024"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_named_with_a_remedy(case):
    values, remedy = WRONG[case]
    with pytest.raises(ConfigError) as error:
        from_flat(values)
    (path,) = values
    assert path in str(error.value)
    assert remedy in str(error.value)


FLOATS = [setting.path for setting in settings() if setting.type is float]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("path", [*FLOATS, "voxels.origin"])
def test_numbers_must_be_finite(path, value):
    with pytest.raises(ConfigError, match=path):
        from_flat({path: [0.0, value, 0.0] if path == "voxels.origin" else value})


FILES = {
    "not a mapping": ("[1, 2]", "mapping"),
    "flat": ("voxels: 3", "group"),
    "bad yaml": ("voxels: [1, 2", "not valid YAML"),
    "typo": ("voxels: {shap: [1, 2, 3]}", "did you mean voxels.shape"),
    "wrong type": ("voxels: {resolution: big}", "type float"),
    "keys that are no text": ("{1: {2: 3}}", "unknown setting"),
    "code": ("voxels: !!python/object/apply:os.system ['true']", "not valid YAML"),
}


@pytest.mark.parametrize("case", FILES)
def test_wrong_files_are_named(tmp_path, case):
    text, remedy = FILES[case]
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert "broken.yaml" in str(error.value)
    assert remedy in str(error.value)


def test_files_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(ConfigError, match=r"picture\.yaml"):
        load_config(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml.*No such file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["voxels.resolution", "voxels.origin=[1, 2", "=3", "a=b=c"])
def test_wrong_overrides_are_named(text):
    with pytest.raises(ConfigError, match="--set"):
        with_overrides(OccAnyConfig(), [text])
