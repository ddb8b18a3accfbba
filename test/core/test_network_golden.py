# SPDX-License-Identifier: Apache-2.0
"""The network equals the released function, stage by stage, on the tiny golden set."""

import golden_set as golden
import pytest
import torch

from occany_core import camera
from occany_core.network import OccAnyNetwork, RawMaps, SceneMemory, Tokens
from occany_core.network.heads import confidence_from_logit
from occany_core.poses import estimate_focal, pose_from_encoding, register
from occany_core.projection import project_points, source_features

pytestmark = golden.needs_reference
LAYERS = range(3)


@pytest.fixture(scope="module")
def network() -> OccAnyNetwork:
    return golden.golden_network(golden.tiny_config(), golden.tiny_parts())


@pytest.fixture(scope="module")
def recon() -> dict[str, torch.Tensor]:
    return golden.tensors("tiny_recon")


@pytest.fixture(scope="module")
def noise() -> dict[str, list[float]]:
    return golden.manifest()["noise"]


@pytest.fixture(scope="module")
def decoded(network, recon) -> tuple[Tokens, SceneMemory, RawMaps]:
    with torch.inference_mode():
        tokens = network.encode(recon["img"])
        memory = network.update_memory(tokens)
        return tokens, memory, network.render(tokens, memory)


def memory_rows(memory: SceneMemory, layer: int) -> torch.Tensor:
    """Keys and values side by side, as the golden set stores them."""
    parts = (memory.keys[layer], memory.values[layer])
    return torch.cat([part.transpose(1, 2).flatten(2) for part in parts], dim=-1)


def test_encoder(decoded, recon, noise):
    golden.assert_golden(decoded[0].tokens, recon["enc.tokens"], noise["enc.tokens"])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("step", range(3))
def test_memory_rows_of_every_group(decoded, recon, noise, layer, step):
    name = f"step{step}.mem_new.{layer}"
    start = sum(recon[f"step{s}.mem_new.{layer}"].shape[-2] for s in range(step))
    rows = memory_rows(decoded[1], layer)[:, start : start + recon[name].shape[-2]]
    golden.assert_golden(rows, recon[name].view_as(rows), noise[name])


def test_memory_grown_group_by_group_is_the_same(network, decoded, recon):
    with torch.inference_mode():
        tokens = network.encode(recon["img"])
        memory = network.update_memory(tokens.views(slice(0, 2)))
        before = memory.num_tokens
        grown = network.update_memory(tokens.views(slice(2, 4)), memory)
    assert memory.num_tokens == before, "update changed the old memory"
    for layer in LAYERS:
        torch.testing.assert_close(grown.keys[layer], decoded[1].keys[layer])


@pytest.mark.parametrize(("name", "channels"), [("points_world", (0, 3)), ("points_cam", (3, 6))])
def test_points_of_the_second_pass(decoded, recon, noise, name, channels):
    ours = getattr(decoded[2], name)
    golden.assert_golden(ours, recon["render.raw"][..., slice(*channels)], noise["render.raw"])


def test_confidence_and_pose_head(decoded, recon, noise):
    raw = recon["render.raw"]
    golden.assert_golden((decoded[2].confidence - 1).log(), raw[..., 6], noise["render.raw"])
    activated = confidence_from_logit(raw[..., 6])
    golden.assert_golden(activated, recon["post.conf"], noise["post.conf"])
    golden.assert_golden(decoded[2].pose_encoding, recon["render.pose"], noise["render.pose"])


def test_segmentation_levels(decoded, recon, noise):
    for ours, name in zip(decoded[2].segmentation, ("sam256", "sam64", "sam32"), strict=True):
        expected = recon[f"render.{name}"].view_as(ours)
        golden.assert_golden(ours, expected, noise[f"render.{name}"])


def test_colour_head(network, decoded, recon, noise):
    tokens, memory, _ = decoded
    with torch.inference_mode():
        features = network.decoder.render(tokens.tokens, tokens.grid, memory).flatten(0, 1)
        rgb = network.heads.rgb(features[:, 1:] + network.heads.rgb_token, tokens.grid)
    expected = recon["render.raw"][0, ..., 7:10].permute(0, 3, 1, 2)
    golden.assert_golden(rgb, expected, noise["render.raw"])


def test_single_view_sees_itself(network, recon, noise):
    with torch.inference_mode():
        tokens = network.encode(recon["img"][:, :1])
        memory, online = network.update_memory_online(tokens)
        raw = network.render(tokens, memory)
        first_pass = network.decode_online(tokens, online)
    for layer in LAYERS:
        expected = recon[f"single.mem.{layer}"]
        rows = memory_rows(memory, layer)
        golden.assert_golden(rows, expected.view_as(rows), noise.get(f"single.mem.{layer}"))
    for ours, name in ((raw, "single.render_raw"), (first_pass, "single.raw")):
        golden.assert_golden(ours.points_world, recon[name][..., :3], noise.get(name))


def test_rendering_views_together_or_one_by_one(network, decoded):
    tokens, memory, together = decoded
    with torch.inference_mode():
        alone = network.render(tokens.views(slice(2, 3)), memory)
    torch.testing.assert_close(
        alone.points_world[:, 0], together.points_world[:, 2], rtol=1e-4, atol=1e-4
    )


def test_cameras(recon):
    raw = recon["render.raw"]
    focal = estimate_focal(raw[:, 0, ..., 3:6])
    torch.testing.assert_close(focal, recon["post.focal"][:, 0], rtol=5e-5, atol=0)
    poses = register(raw[..., :3], raw[..., 3:6], recon["post.conf"])
    torch.testing.assert_close(poses, recon["post.c2w"], rtol=0, atol=5e-5)
    from_head = pose_from_encoding(recon["render.pose"])
    torch.testing.assert_close(from_head, recon["post.c2w_pose"], rtol=0, atol=5e-5)


@pytest.fixture(scope="module")
def projected(recon) -> torch.Tensor:
    render = golden.tensors("tiny_render")
    levels = tuple(recon[f"render.{name}"].view(1, 4, *recon[f"render.{name}"].shape[-3:])
                   for name in ("sam256", "sam64", "sam32"))  # fmt: skip
    features = source_features(recon["img"], recon["post.conf"], levels)
    K = camera.pinhole(recon["post.focal"][:, :1].expand(1, 3), *recon["img"].shape[-2:])
    points = recon["render.raw"][..., :3]
    return project_points(points, features, K, render["poses"])


def test_projected_points(projected):
    render = golden.tensors("tiny_render")
    maps = projected.permute(0, 1, 3, 4, 2)
    empty = render["proj.index"] < 0
    assert (maps[empty] == 0).all()
    differing = (maps[..., 3:6] - render["proj.cond10"][..., 3:6]).abs().amax(-1) > 1e-4
    assert differing.float().mean() <= 0.001
    golden.assert_golden(maps[~differing][:, :10], render["proj.cond10"][~differing], None)
    chosen = render["proj.cond_sam_sel_channels"].long()
    ours = maps[~differing][:, chosen]
    golden.assert_golden(ours, render["proj.cond_sam_sel"][~differing], None)


def test_rendering_encoder_and_decoder(network, recon, projected):
    render, noise = golden.tensors("tiny_render"), golden.manifest()["noise"]
    observed = network.encode(recon["img"])
    memory = network.update_memory(observed)
    with torch.inference_mode():
        tokens = network.novel_view_encoder(
            network.tokenize(projected), observed.grid, observed.tokens
        )
        raw = network.render_novel(network.tokenize(projected), observed, memory)
    golden.assert_golden(tokens, render["gen.x_ray"], noise.get("gen.x_ray"))
    golden.assert_golden(raw.points_world, render["gen.raw"][..., :3], noise.get("gen.raw"))
    golden.assert_golden(raw.points_cam, render["gen.raw"][..., 3:6], noise.get("gen.raw"))
    golden.assert_golden((raw.confidence - 1).log(), render["gen.raw"][..., 6], noise["gen.raw"])
    for ours, name in zip(raw.segmentation, ("sam256", "sam64", "sam32"), strict=True):
        golden.assert_golden(ours, render[f"gen.{name}"], noise.get(f"gen.{name}"))


def test_layer_norm_epsilons():
    """Small residuals make a wrong epsilon visible; elsewhere it hides."""
    fixture, settings = golden.tensors("tiny_eps"), golden.manifest()["eps_fixture"]
    parts = golden.tiny_parts()
    for part, weights in parts.items():
        pattern = settings["patterns"].get("decoder" if part == "gen_decoder" else part)
        for key in weights:
            if golden.matches(pattern, key):
                weights[key] = weights[key] * settings["factor"]
    network = golden.golden_network(golden.tiny_config(), parts)
    with torch.inference_mode():
        tokens = network.encode(golden.tensors("tiny_recon")["img"])
        memory = network.update_memory(tokens)
        features = network.decoder.render(tokens.tokens, tokens.grid, memory)
        raw = network.render(tokens, memory)
        novel = network.novel_view_encoder
        projected = novel.norm(novel.proj(golden.tensors("tiny_render")["gen.tokens_proj"]))
    noise = settings["noise"]
    golden.assert_golden(tokens.tokens, fixture["enc.tokens"], noise["enc.tokens"])
    rows = memory_rows(memory, 2)[:, :32]
    golden.assert_golden(rows, fixture["step0.mem_new.2"], noise["step0.mem_new.2"])
    golden.assert_golden(features[0], fixture["render.norm"], noise["render.norm"])
    golden.assert_golden(
        raw.segmentation[2][:, :1], fixture["render.sam32"], noise["render.sam32"]
    )
    expected, allowed = fixture["x_ray_from_tokens_proj"], noise["x_ray_from_tokens_proj"]
    golden.assert_golden(projected, expected, allowed)
