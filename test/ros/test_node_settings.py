# SPDX-License-Identifier: Apache-2.0
"""Values of parameters to settings: types, ranges, choices, and what must fit together."""

from pathlib import Path

import pytest
import yaml

from occany_core.config import OccAnyConfig, settings, to_flat
from occany_core.errors import ConfigError
from occany_ros.declaration import checked
from occany_ros.declarations import NODE_DECLARATIONS, camera_declarations, core_declarations
from occany_ros.node_settings import node_settings

CONFIG = Path(__file__).resolve().parents[2] / "config"
SEVEN = (1.0, 0.0, 1.5, 0.5, -0.5, 0.5, -0.5)


def declarations(cameras):
    per_camera = [d for camera in cameras for d in camera_declarations(camera)]
    return {d.name: d for d in (*NODE_DECLARATIONS, *core_declarations(), *per_camera)}


def made(**changes):
    """Settings from defaults and changes; `__` stands for a dot."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    known = declarations(changes.get("cameras", ("camera",)))
    values = {name: declaration.default for name, declaration in known.items()} | changes
    return node_settings({name: checked(known[name], value) for name, value in values.items()})


def test_defaults_are_valid_and_equal_the_core():
    found = made()
    assert found.core == OccAnyConfig()
    assert found.sync.cameras == ("camera",)
    assert found.cameras[0].image_topic == "~/input/camera/image"


def test_every_core_setting_is_a_parameter_of_the_same_name():
    names = {declaration.name for declaration in core_declarations()}
    assert names == {setting.path for setting in settings()} == set(to_flat(OccAnyConfig()))


def test_every_parameter_is_described():
    for declaration in declarations(("front",)).values():
        assert len(declaration.description) > 15, declaration.name


def test_transport_and_topics_by_camera():
    found = made(
        cameras=("left", "right"),
        transport="compressed",
        camera__right__transport="raw",
        topics__compressed="/rig/{camera}/jpg",
    )
    assert [camera.image_topic for camera in found.cameras] == [
        "/rig/left/jpg",
        "~/input/right/image",
    ]


def test_whole_numbers_pass_for_floats_and_lists_for_tuples():
    found = made(voxels__resolution=1, voxels__origin=[0, -8, -2], sync__max_skew=0)
    assert found.core.voxels.resolution == 1.0
    assert found.core.voxels.origin == (0.0, -8.0, -2.0)


def test_off_may_arrive_as_a_yaml_boolean():
    assert made(calibration__use=False).core.calibration.use == "off"


def test_times_become_nanoseconds():
    assert made(sync__max_skew=0.04).sync.max_skew_ns == 40_000_000


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sync__policy": "best"}, "sync.policy is 'best'; it must be one of 'approximate'"),
        ({"sync__max_skew": -0.1}, "sync.max_skew is -0.1; it must be at least 0"),
        ({"sync__max_skew": float("nan")}, "must be finite"),
        ({"sync__max_skew": "fast"}, "must be of type float"),
        ({"publish__tf": 1}, "publish.tf is 1; it must be of type bool"),
        ({"publish__path_length": 0}, "must be at least 1"),
        ({"cameras": ()}, "must hold 1 to 16 different names"),
        ({"cameras": ("a", "a")}, "different names"),
        ({"cameras": ("a b",)}, "use letters, digits and _"),
        ({"cameras": "front"}, "cameras is 'front'; it must be a list"),
        ({"sync__required_cameras": ("back",)}, "holds ['back']; the cameras are ['camera']"),
        ({"sync__min_cameras": 2}, "there are only 1 cameras"),
        ({"frames__base_frame": "/base_link"}, "must be a name without '/'"),
        ({"cameras": ("a", "b"), "topics__image": "/image"}, "must contain {camera}"),
        ({"camera__camera__rig_from_cam": (1.0, 2.0)}, "must be seven numbers"),
        ({"camera__camera__rig_from_cam": (0.0,) * 7}, "must be seven numbers"),
        ({"voxels__resolution": -1.0}, "voxels.resolution"),
        ({"voxels__shape": [1, 2]}, "voxels.shape"),
        ({"runtime__device": "tpu"}, "runtime.device is 'tpu'"),
    ],
)
def test_wrong_values_are_refused_in_words(changes, sentence):
    with pytest.raises(ConfigError) as error:
        made(**changes)
    assert sentence in str(error.value)


def test_extrinsics_as_a_parameter():
    assert made(camera__camera__rig_from_cam=SEVEN).cameras[0].rig_from_cam == SEVEN


def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


PROFILES = sorted((CONFIG / "profiles").glob("*.yaml"))
OURS = sorted(path for path in CONFIG.glob("*.yaml") if path.stem != "nav2_costmap")


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_shipped_files_hold_only_valid_parameters(path):
    content = yaml.safe_load(path.read_text())
    values = dict(flat(content["/**"]["ros__parameters"]))
    assert set(values) <= set(declarations(values["cameras"]))
    made(**{name.replace(".", "__"): value for name, value in values.items()})


@pytest.mark.parametrize(
    "profile", sorted((CONFIG / "profiles").glob("*.yaml")), ids=lambda path: path.stem
)
@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_every_profile_lies_over_every_shipped_file(path, profile):
    values = {}
    for file in (path, profile):
        values |= flat(yaml.safe_load(file.read_text())["/**"]["ros__parameters"])
    made(**{name.replace(".", "__"): value for name, value in values.items()})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"projection__bands": ("low", "high")}, "projection.z_min is .0.25.*one height for each"),
        ({"projection__bands": ("a b",)}, "projection.bands holds 'a b'"),
        ({"projection__bands": ("a", "a")}, "at most 8 different names"),
        ({"projection__z_min": (float("nan"),)}, "projection.z_min is .nan.*finite"),
        ({"projection__z_max": (0.3,)}, "holds the centre of no layer.*the grid has 16"),
        ({"projection__footprint": (0.0, 1.0, 2.0, 3.0)}, "three corners or more"),
        ({"projection__free_labels": (300,)}, "class ids 0 to 255"),
        ({"projection__min_probability": 40}, "at least 50"),
    ],
)
def test_wrong_height_bands_are_refused_in_words(changes, words):
    with pytest.raises(ConfigError, match=words):
        made(**changes)


def test_height_bands_can_be_several_or_none():
    found = made(
        projection__bands=("low", "high"), projection__z_min=(0, 1.0), projection__z_max=(1.0, 2)
    )
    assert [(band.name, band.z_min, band.z_max) for band in found.bands.bands] == [
        ("low", 0.0, 1.0),
        ("high", 1.0, 2.0),
    ]
    assert made(projection__bands=()).bands.bands == ()
