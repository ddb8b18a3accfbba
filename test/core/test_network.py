# SPDX-License-Identifier: Apache-2.0
"""Laws of the network that hold for any weights; the fixture runs both kinds of it."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import random_network, tiny_config

from occany_core import camera, rigid
from occany_core.errors import ConfigError
from occany_core.network import NetworkConfig, RawMaps, SceneMemory, Tokens, TransformerDims, tiny
from occany_core.network.attention import MemoryAttention, SelfAttention
from occany_core.network.heads import MAX_LOG_LENGTH, Heads
from occany_core.network.point_activation import confidence_from_logit, log_points
from occany_core.network.rope import RotaryTable, grid_positions
from occany_core.projection import project_points, source_features

HEIGHT, WIDTH = 32, 48


def pictures(
    views: int, height: int = HEIGHT, width: int = WIDTH, scenes: int = 1
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(views)
    return torch.rand((scenes, views, 3, height, width), generator=generator) * 2 - 1


def observe(network, images: torch.Tensor) -> tuple[Tokens, SceneMemory, RawMaps]:
    tokens = network.encode(images)
    memory = network.update_memory(tokens)
    return tokens, memory, network.render(tokens, memory)


def render_novel(network, images: torch.Tensor, number: int) -> RawMaps:
    """Novel views a little ahead of the reference view."""
    tokens, memory, raw = observe(network, images)
    scenes, _, _, height, width = images.shape
    poses = torch.stack([rigid.shift(z=0.3 * step) for step in range(number)])
    K = camera.pinhole(torch.full((scenes, number), 40.0), height, width)
    features = source_features(images, raw.confidence, raw.segmentation)
    projected = project_points(raw.points_world, features, K, poses.expand(scenes, -1, 4, 4))
    return network.render_novel(network.tokenize(projected), tokens, memory)


def outputs(raw: RawMaps) -> list[torch.Tensor]:
    maps = [raw.points_world, raw.points_cam, raw.confidence, raw.pose_encoding]
    return [*maps, *raw.segmentation]


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal up to the order of float32 sums, which random weights and expm1 amplify."""
    allowed = 1e-3 * theirs.abs().max().item()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=allowed)


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [1, 2, 4])
@pytest.mark.parametrize("size", [(32, 48), (48, 32), (16, 64)], ids=["wide", "portrait", "strip"])
def test_shapes(network, views, size):
    raw = observe(network, pictures(views, *size))[2]
    novel = render_novel(network, pictures(views, *size), 2)
    for maps, number in ((raw, views), (novel, 2)):
        assert maps.points_world.shape == maps.points_cam.shape == (1, number, *size, 3)
        assert maps.confidence.shape == (1, number, *size)
        assert maps.pose_encoding.shape == (1, number, 7)
        assert all(torch.isfinite(part).all() for part in outputs(maps))
        assert (maps.confidence >= 1).all()
    sides = [level.shape[-3:] for level in raw.segmentation]
    has_features = network.config.segmentation_dims is not None
    assert sides == ([(16, 4, 4), (8, 8, 8), (4, 16, 16)] if has_features else [])


def test_tokens_have_one_per_patch(network):
    tokens = network.encode(pictures(3))
    assert tokens.grid == (2, 3)
    assert tokens.tokens.shape == (1, 3, 6, 32)
    memory = network.update_memory(tokens)
    assert memory.num_tokens == 3 * (6 + 1)


# --- independence -------------------------------------------------------------------------------


def test_views_are_encoded_independently(network):
    images = pictures(3)
    together = network.encode(images)
    alone = Tokens.joined([network.encode(images[:, i : i + 1]) for i in range(3)])
    assert_same(together.tokens, alone.tokens)
    for ours, theirs in zip(together.finer, alone.finer, strict=True):
        assert_same(ours, theirs)


def test_scenes_of_a_batch_are_independent(network):
    images = pictures(3, scenes=2)
    together = observe(network, images)[2]
    for scene in range(2):
        alone = observe(network, images[scene : scene + 1])[2]
        for ours, theirs in zip(outputs(together), outputs(alone), strict=True):
            assert_same(ours[scene], theirs[0])


def test_the_order_of_memory_tokens_changes_nothing(network):
    tokens, memory, raw = observe(network, pictures(3))
    order = torch.randperm(memory.num_tokens, generator=torch.Generator().manual_seed(0))
    shuffled = SceneMemory().extended(
        [keys[:, :, order] for keys in memory.keys],
        [values[:, :, order] for values in memory.values],
    )
    for ours, theirs in zip(outputs(network.render(tokens, shuffled)), outputs(raw), strict=True):
        assert_same(ours, theirs)


def test_rendering_reads_the_memory_and_leaves_it_alone(network):
    tokens, memory, raw = observe(network, pictures(2))
    before = [part.clone() for part in (*memory.keys, *memory.values)]
    again = network.render(tokens, memory)
    for ours, theirs in zip(outputs(raw), outputs(again), strict=True):
        assert torch.equal(ours, theirs)
    for part, old in zip((*memory.keys, *memory.values), before, strict=True):
        assert torch.equal(part, old)
    emptier = network.update_memory(tokens.views(slice(0, 1)))
    other = network.render(tokens, emptier)
    assert not torch.allclose(other.points_world, raw.points_world, atol=1e-3)


def test_memory_grown_by_a_stream_of_views_is_the_same(network):
    tokens = network.encode(pictures(4))
    at_once = network.update_memory(tokens)
    grown = network.update_memory(tokens.views(slice(0, 2)))
    for view in (2, 3):
        grown = network.update_memory(tokens.views(slice(view, view + 1)), grown)
    for ours, theirs in zip(at_once.keys, grown.keys, strict=True):
        assert_same(ours, theirs)


def test_novel_views_do_not_see_each_other(network):
    images = pictures(2)
    together, alone = render_novel(network, images, 3), render_novel(network, images, 1)
    for ours, theirs in zip(outputs(together), outputs(alone), strict=True):
        assert_same(ours[:, :1], theirs)


def test_the_reference_view_is_marked(network):
    """Swapped pictures give other points than swapped points: the first view is special."""
    images = pictures(2)
    raw = observe(network, images)[2]
    swapped = observe(network, images.flip(1))[2]
    assert not torch.allclose(raw.points_world.flip(1), swapped.points_world, atol=1e-3)


# --- every weight has a say ---------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["patch", "convolutional"])
def test_every_weight_influences_the_output(stem):
    network = random_network(tiny_config(stem))
    images = pictures(3)
    raw, novel = observe(network, images)[2], render_novel(network, images, 2)
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (part.clamp(-50, 50) * torch.randn(part.shape, generator=generator)).sum()
        for part in (*outputs(raw), *outputs(novel))
    )
    total.backward()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() < 1e-3
    ]
    # A bias of all keys adds the same to each logit of a softmax; the colour head never runs.
    expected = [
        name
        for name, _ in network.named_parameters()
        if ("writers." in name and name.endswith("key.bias")) or "heads.rgb" in name
    ]
    assert silent == expected


# --- parts --------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.floats(-3, 3.4))
def test_norm_exp_and_log_points_undo_each_other(seed, exponent):
    heads = Heads(tiny_config("convolutional"), has_picture=True)
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(20, 3, generator=generator) * 10**exponent
    points[0] = 0
    torch.testing.assert_close(heads.activate(log_points(points)), points, rtol=1e-4, atol=1e-5)


def test_norm_exp_never_overflows():
    heads = Heads(tiny_config("convolutional"), has_picture=True)
    points = heads.activate(torch.tensor([[1e4, 0.0, 0.0], [0.0, -1e30, 0.0]]))
    assert torch.isfinite(points).all()
    assert points.abs().max() == pytest.approx(torch.tensor(MAX_LOG_LENGTH).expm1().item())
    assert torch.isfinite(confidence_from_logit(torch.tensor([1e4, -1e4]))).all()


def test_attention_depends_on_relative_positions_only():
    torch.manual_seed(0)
    attention, x = SelfAttention(32, 2), torch.randn(1, 6, 32)
    positions = grid_positions(2, 3, x.device)
    here = attention(x, RotaryTable(positions, 16))
    moved = attention(x, RotaryTable(positions + torch.tensor([5, 9]), 16))
    assert_same(here, moved)
    turned = attention(x, RotaryTable(positions.flip(1), 16))
    assert not torch.allclose(here, turned, atol=1e-4)


def test_memory_attention_does_not_care_for_the_order_of_keys():
    torch.manual_seed(0)
    attention, x = MemoryAttention(32, 2), torch.randn(2, 5, 32)
    keys, values = torch.randn(2, 2, 7, 16), torch.randn(2, 2, 7, 16)
    order = torch.randperm(7)
    shuffled = attention(x, keys[:, :, order], values[:, :, order])
    torch.testing.assert_close(attention(x, keys, values), shuffled)


# --- description --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(),
        tiny(),
        tiny_config("patch"),
        NetworkConfig(novel_view_encoder=None, segmentation_dims=None),
    ],
    ids=["released", "shipped", "small", "no rendering"],
)
def test_descriptions_survive_json(config):
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_network_without_rendering_has_no_such_weights():
    config = NetworkConfig.from_dict(tiny_config("patch").to_dict() | {"novel_view_encoder": None})
    network = random_network(config)
    assert not network.renders_novel_views
    assert not [name for name in network.state_dict() if "novel" in name]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stem": "mamba"}, "stem is 'mamba'"),
        ({"colour": 3}, "colour"),
        ({"encoder": {"width": 32, "depth": 2}}, "heads"),
        ({"encoder": {"width": 32, "depth": 2, "heads": 3}}, "multiple of 4"),
        ({"decoder": {"width": 32, "depth": 2, "heads": 0}}, "heads"),
        ({"decoder": 7}, "does not fit"),
    ],
)
def test_wrong_descriptions_are_refused(changes, named):
    with pytest.raises(ConfigError, match=named):
        NetworkConfig.from_dict(tiny().to_dict() | changes)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="width 30 over 4 heads"):
        TransformerDims(width=30, depth=1, heads=4)
