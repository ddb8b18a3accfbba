# SPDX-License-Identifier: Apache-2.0
"""A file in the released layout, from `occany convert` to `occany predict` and the node.

Its weights are the recipe's of the golden sets: pseudo-random, so that what comes out means
nothing. They predict a focal length that may be zero, so the cameras are given theirs.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from golden_set import REFERENCE, assert_golden, manifest, needs_reference, recipe, tensors
from golden_set import tiny_parts as golden_parts
from PIL import Image
from released_files import write_released

from occany_core.checkpoints import load_model
from occany_core.checkpoints.released import Parts, published_shapes
from occany_core.cli.main import main
from occany_core.network import NetworkConfig
from occany_core.results import load_grid
from occany_core.voxels import VoxelGrid

PICTURES = REFERENCE.parent / "real"
STREET = PICTURES / "kitti_08_1390"
needs_pictures = pytest.mark.skipif(
    not STREET.is_dir(), reason="the real pictures are development data beside OCCANY_REFERENCE"
)
GIGABYTE = 1e9
FULL_TEXT = (
    "Must3rDecoder(img_size=(512, 512), enc_embed_dim=1024, embed_dim=768, "
    "pointmaps_activation=ActivationType.LINEAR, pred_sam_features=True, "
    "feedback_type='single_mlp', memory_mode='kv', ray_map_encoder_depth=6, "
    "use_multitask_token=True)"
)
TINY_TEXT = "Must3rDecoder(embed_dim=48, num_heads=2, distill_img_size=64)"
SETTINGS = ("images.width=256", "novel_views.steps=1", "runtime.device=cpu")
NODE_SETTINGS = {
    "cameras": ["camera"],
    "transport": "compressed",
    "images.width": 256,
    "novel_views.steps": 0,
    "runtime.device": "cpu",
    "autostart": False,
}


def recipe_parts(config: NetworkConfig, tag: str) -> Parts:
    """All weights of a released file of this size, as the golden sets generate them."""
    golden_weights = recipe()
    parts: Parts = {}
    for name, shape in published_shapes(config).items():
        part, key = name.split("/")
        weight = golden_weights.weight(f"{tag}/{part}", key, shape)
        parts.setdefault(part, {})[key] = torch.from_numpy(weight)
    return parts


@dataclass
class Finished:
    """A process that ended well."""

    out: str
    peak: int
    """Most memory it held, in bytes."""


PROGRAM = """
import sys
from occany_core.cli.main import main
code = main(sys.argv[1:])
status = dict(line.split(":") for line in open("/proc/self/status"))
print("most memory", status["VmHWM"])
sys.exit(code)
"""


def occany(*words: object) -> Finished:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out, _, memory = done.stdout.rpartition("most memory")
    return Finished(done.stderr + out, 1024 * int(memory.split()[0]))


def predicted(folder: Path, weights: Path) -> tuple[Finished, VoxelGrid]:
    """Two pictures of a street and the rendered views of each."""
    pictures = sorted(STREET.iterdir())[:2]
    width, height = Image.open(pictures[0]).size
    K = [[0.58 * width, 0, width / 2], [0, 0.58 * width, height / 2], [0, 0, 1]]
    (folder / "rig.json").write_text(json.dumps({"camera": {"K": K}}))
    words = ["--model", weights, "--calibration", folder / "rig.json"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    done = occany("predict", *pictures, "-o", folder / "out", *words)
    return done, load_grid(folder / "out" / "grid.npz")


@contextmanager
def running_node(weights: Path):
    """Start the node with these weights; give it, a node beside it, and a way to spin both."""
    rclpy = pytest.importorskip("rclpy")
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from occany_ros.node import OccAnyNode

    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context)
    values = NODE_SETTINGS | {"model.checkpoint": str(weights)}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    executor = SingleThreadedExecutor(context=context)
    node = OccAnyNode(context=context, parameter_overrides=overrides)
    tester = rclpy.create_node("tester", context=context)
    executor.add_node(node)
    executor.add_node(tester)
    try:
        yield node, tester, executor
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        tester.destroy_node()
        rclpy.try_shutdown(context=context)


def answer_of_the_node(weights: Path, timeout: float):
    """Send pictures until a grid comes; return it and the status after it."""
    with running_node(weights) as (node, tester, executor):
        from sensor_msgs.msg import CameraInfo, CompressedImage
        from std_msgs.msg import Header
        from street_rig import camera_info, image_message

        from occany_ros import msg

        grids, states = [], []
        tester.create_subscription(msg.VoxelGrid, "/occany/output/voxel_grid", grids.append, 10)
        tester.create_subscription(msg.OccAnyStatus, "/occany/status", states.append, 10)
        topic = "/occany/input/camera"
        images = tester.create_publisher(CompressedImage, f"{topic}/compressed", 10)
        infos = tester.create_publisher(CameraInfo, f"{topic}/camera_info", 10)
        node.start()
        deadline, step = time.monotonic() + timeout, 0
        while not (grids and states and states[-1].state == "running"):
            assert time.monotonic() < deadline, f"no grid within {timeout} s: {states[-1:]}"
            infos.publish(camera_info("camera", Header()))
            images.publish(image_message("camera", 10**12 + step * 10**8, step))
            step += 1
            pause = time.monotonic() + 0.2
            while time.monotonic() < pause:
                executor.spin_once(timeout_sec=0.05)
        return grids[0], states[-1]


# --- the small golden network -------------------------------------------------------------------


@pytest.fixture
def tiny_file(tmp_path) -> Path:
    arguments = {"decoder": TINY_TEXT, "encoder": "Dust3rEncoder(num_heads=2)"}
    return write_released(tmp_path / "occany.pth", golden_parts(), arguments=arguments)


@needs_reference
def test_a_converted_file_gives_the_golden_numbers(tiny_file):
    assert main(["convert", str(tiny_file)]) == 0
    network = load_model(tiny_file.with_suffix(".safetensors"), device="cpu").network
    golden, noise = tensors("tiny_recon"), manifest()["noise"]
    with torch.inference_mode():
        encoded = network.encode(golden["img"])
    assert_golden(encoded.tokens, golden["enc.tokens"], noise["enc.tokens"])


@needs_reference
@needs_pictures
def test_a_small_converted_file_predicts_real_pictures(tiny_file, tmp_path):
    assert main(["convert", str(tiny_file)]) == 0
    done, grid = predicted(tmp_path, tiny_file.with_suffix(".safetensors"))
    assert "model occany (non-commercial" in done.out
    assert grid.occupied.any()


# --- the released size --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Iterator[tuple[Path, Finished]]:
    """The weights of a full released file, and how its conversion went.

    2.6 GB, twice for a while; removed at the end, which pytest would not do.
    """
    folder = tmp_path_factory.mktemp("released")
    source = folder / "occany.pth"
    try:
        parts = recipe_parts(NetworkConfig(), manifest("released_config_manifest")["tag"])
        write_released(source, parts, arguments={"decoder": FULL_TEXT, "encoder": ""})
        del parts
        done = occany("convert", source)
        source.unlink()
        yield source.with_suffix(".safetensors"), done
    finally:
        shutil.rmtree(folder)


@needs_reference
@pytest.mark.slow
def test_a_full_file_is_converted(converted):
    weights, done = converted
    assert weights.stat().st_size > 2.3 * GIGABYTE
    assert "encoder: width 1024, 24 blocks, 16 heads" in done.out
    assert "976 weights used, 132 known and unused" in done.out
    assert "yes             names and shapes are the published ones: 1108 weights" in done.out
    assert done.peak < 4 * GIGABYTE, done.peak


@needs_reference
@needs_pictures
@pytest.mark.slow
def test_a_full_file_predicts_real_pictures(converted, tmp_path):
    weights, _ = converted
    done, grid = predicted(tmp_path, weights)
    assert "model occany (non-commercial" in done.out
    assert (grid.occupied & ~grid.completed).any()
    assert grid.completed.any()
    assert done.peak < 4 * GIGABYTE, done.peak


@needs_reference
@pytest.mark.slow
@pytest.mark.ros
def test_the_node_starts_with_a_full_file(converted):
    weights, _ = converted
    grid, status = answer_of_the_node(weights, timeout=120)
    assert grid.size_x > 0
    assert status.model_name == "occany"
    assert status.model_licence.startswith("non-commercial")
    card = json.loads(weights.with_suffix(".json").read_text())
    assert status.model_sha256 == card["files"][0]["sha256"]
