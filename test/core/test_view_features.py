# SPDX-License-Identifier: Apache-2.0
"""What weights see in pictures: features of all views, things found in them, and the two verbs."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_model import save_small_model, write_pictures
from street_views import probed_model, sequence, small_street_model, street_config, surround
from tiny_detectors import save_sam3

from occany_core.checkpoints import save_model
from occany_core.cli.main import main
from occany_core.cli.view_segmentation import labels_config
from occany_core.config import LabelsConfig
from occany_core.errors import ConfigError
from occany_core.images import fit, seen_part
from occany_core.network.prompt_decoder import Prompts
from occany_core.observation import encode, observe
from occany_core.semantics import PromptableFeatures
from occany_core.semantics.labelling import Labeller
from occany_core.stopwatch import Stopwatch
from occany_core.synthetic.classes import SemanticClass
from occany_core.view_features import class_logits, see_views

CAR, ROAD, BUS = SemanticClass.CAR, SemanticClass.DRIVEABLE_SURFACE, SemanticClass.BUS


# --- features -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [[surround()], sequence(3)])
def test_features_are_those_of_the_reconstruction(sets):
    model, config = probed_model(CAR), street_config()
    seen = see_views(model, sets, config)
    encoded = [encode(model, one, config) for one in sets]
    observed = observe(model, encoded, config, Stopwatch(), with_segmentation=True)
    for ours, theirs in zip(seen.features.levels, observed.raw.segmentation, strict=True):
        torch.testing.assert_close(ours, theirs[0])
    assert seen.size == tuple(observed.raw.confidence.shape[-2:])
    assert len(seen.features) == sum(map(len, sets))


def test_weights_say_what_they_lack():
    with pytest.raises(ConfigError, match="small have no promptable features"):
        see_views(small_street_model(), sequence(1), street_config())
    model = small_street_model()
    features = PromptableFeatures(*(torch.zeros(1, 2, n, n) for n in (2, 4, 8)))
    with pytest.raises(ConfigError, match="no class probe and mask decoder"):
        class_logits(model, features)


@given(st.integers(20, 90), st.integers(20, 90))
def test_the_seen_part_is_what_the_network_gets(height, width):
    y, x = np.mgrid[:height, :width]
    rgb = np.stack((255 * x / width, 255 * y / height, 0 * x), axis=-1).astype(np.uint8)
    part = seen_part(rgb, 32, 48)
    prepared, scale, _, _ = fit(rgb, 32, 48)
    assert part.shape[0] == pytest.approx(32 / scale, abs=1.01)
    assert part.shape[1] == pytest.approx(48 / scale, abs=1.01)
    stretched = np.asarray(Image.fromarray(part).resize((48, 32), Image.Resampling.BILINEAR))
    step = 255 * max(1 / height, 1 / width)  # of neighbouring pixels
    difference = np.abs(stretched.astype(int) - prepared)[2:-2, 2:-2]
    assert difference.max() < 1.5 * step + 4


# --- things -------------------------------------------------------------------------------------


@pytest.fixture
def painted_model():
    """A probe that names the class whose channel of the fine features is largest."""
    model = probed_model(CAR)
    with torch.no_grad():
        model.network.class_probe.fine.bias.zero_()
        for channel, label in enumerate((CAR, ROAD, BUS, SemanticClass.FREE)):
            model.network.class_probe.fine.weight[label, channel] = 1
    return model


def painted_features(model):
    """Two views: two cars, a bus and road; the rest is sky."""
    torch.manual_seed(1)
    width, middle, fine = model.network.config.segmentation_dims
    levels = [torch.randn(2, channels, n, n) for channels, n in ((width, 4), (middle, 8))]
    cells = torch.zeros(2, fine, 16, 16)
    cells[:, 3] = 3
    for view, channel, rows, columns in (
        (0, 0, slice(2, 6), slice(1, 5)),
        (0, 0, slice(8, 12), slice(9, 15)),
        (0, 1, slice(13, 16), slice(0, 16)),
        (1, 2, slice(4, 9), slice(3, 12)),
    ):
        cells[view, channel, rows, columns] = 9
    return PromptableFeatures(*levels, cells)


def test_each_thing_has_the_mask_of_its_own_box(painted_model):
    def find(*classes):
        config = LabelsConfig(pipeline="distilled", classes=classes)
        labeller = Labeller(painted_model, config)
        return labeller.things(features.levels, [None, None], (32, 48), config)

    features = painted_features(painted_model)
    found = find("car", "bus", "road")
    assert [sorted(one.found.labels.tolist()) for one in found] == [[CAR, CAR, ROAD], [BUS]]
    decoder = painted_model.network.prompt_decoder
    with torch.no_grad():
        decoder.mask.fc2.weight.normal_()
    found = find("car", "bus", "road")
    for view, one in enumerate(found):
        here = features.views(slice(view, view + 1))
        for box, label, mask in zip(one.found.boxes, one.found.labels, one.masks, strict=True):
            if label == ROAD:  # the decoder was trained on things only
                expected = torch.full((16, 16), -1.0)
                expected[13:16] = 1
                torch.testing.assert_close(mask, expected)
                continue
            asked = Prompts.of_boxes(box[None, None])
            alone = decoder(here.coarse, (here.fine, here.middle), asked).logits[0, 0]
            torch.testing.assert_close(mask, alone, atol=1e-4, rtol=1e-4)
    assert [len(one.masks) for one in find("bus")] == [0, 1]


def test_words_mean_what_can_be_found():
    asked = labels_config(LabelsConfig(), "Car, traffic-cone,road, adult")
    assert asked.classes == ("Car", "traffic-cone", "road", "adult")
    assert asked.pipeline == "distilled"
    for words in ("sky", "car, other", " , "):
        with pytest.raises(ConfigError, match="such as barrier, bicycle, bus, car") as error:
            labels_config(LabelsConfig(), words)
        assert "free" not in str(error.value)
    names = set(labels_config(LabelsConfig(), None).classes)
    assert {"car", "pedestrian", "traffic_cone"} <= names
    assert not {"driveable_surface", "vegetation", "manmade", "free"} & names
    chosen = LabelsConfig(pipeline="sam3", classes=("red lorry",))
    assert labels_config(chosen, None) == chosen


# --- verbs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def car_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("cars") / "cars.safetensors"
    save_model(probed_model(CAR).network, {"name": "cars", "licence": "none"}, path)
    return path


def view(weights, *arguments):
    words = ["view", *map(str, arguments), "--set", "runtime.device=cpu"]
    return main([*words, "--model", str(weights)])


def test_both_pages_are_drawn_of_the_pictures_at_their_own_size(car_weights, tmp_path, capsys):
    pictures = write_pictures(tmp_path / "street", 2)
    for what in ("features", "instances"):
        output = tmp_path / f"{what}.png"
        assert view(car_weights, what, pictures, "-o", output) == 0
        with Image.open(output) as page:
            assert page.width > 1000 and page.height > 300
    assert "instances.png: 2 found" in capsys.readouterr().out
    assert view(car_weights, "instances", pictures, "-o", output, "--labels", "bus, tree") == 0
    assert "instances.png: 0 found" in capsys.readouterr().out
    settings = ["--set", "labels.min_score=0.99"]
    assert view(car_weights, "instances", pictures, "-o", output, *settings) == 0
    assert "instances.png: 0 found" in capsys.readouterr().out
    rig = [pictures / "0.png", pictures / "1.png"]
    assert view(car_weights, "instances", *rig, "--rig", "surround", "-o", output) == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["instances", "PICTURES", "--labels", "cat"], ["'cat'", "pedestrian", "vegetation"]),
        (["instances"], ["view instances needs pictures"]),
        (["features", "PICTURES", "--rerun"], ["--rerun does nothing for view features"]),
        (["features", "PICTURES", "--labels", "car"], ["--labels does nothing for view features"]),
        (["PICTURES", "PICTURES"], ["2 results", "features or instances"]),
        (["features", "missing"], ["no file or folder missing"]),
        (["features", "PICTURES", "-o", "page.txt"], ["page.txt", ".png"]),
    ],
)
def test_what_cannot_be_is_one_sentence(car_weights, tmp_path, capsys, arguments, parts):
    pictures = write_pictures(tmp_path / "street", 2)
    words = [str(pictures) if word == "PICTURES" else word for word in arguments]
    model = [] if words[0] == str(pictures) else ["--model", str(car_weights)]
    assert main(["view", *words, *model]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(part in line for part in parts), line


def test_options_of_pictures_are_refused_for_results(tmp_path, capsys):
    assert main(["view", str(tmp_path), "--rig", "surround"]) == 1
    assert "--rig does nothing for view" in capsys.readouterr().err


def test_sam3_finds_things_with_any_weights(tmp_path, tmp_path_factory, capsys):
    weights = save_small_model(tmp_path)  # without promptable features
    pictures = write_pictures(tmp_path / "street", 2)
    sam3 = save_sam3(tmp_path_factory.mktemp("sam3"))
    settings = ["--set", "labels.pipeline=sam3", "--set", f"labels.sam3={sam3}"]
    output = tmp_path / "i.png"
    words = ["-o", output, *settings, "--set", "labels.min_score=0", "--labels", "red lorry"]
    assert view(weights, "instances", pictures, *words) == 0
    found = int(re.search(r"i.png: (\d+) found", capsys.readouterr().out)[1])
    assert found > 0


def test_weights_without_features_are_named(tmp_path, capsys):
    weights = save_small_model(tmp_path)
    pictures = write_pictures(tmp_path / "street", 1)
    assert view(weights, "features", pictures, "-o", tmp_path / "f.png") == 1
    assert "no promptable features" in capsys.readouterr().err
    assert view(weights, "instances", pictures, "-o", tmp_path / "i.png") == 1
    assert "no class probe" in capsys.readouterr().err
