# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back as they were saved; whatever is wrong with one is one CheckpointError."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_networks import random_network, tiny_config

from occany_core.checkpoints import load_model, save_model
from occany_core.checkpoints.released import state_dict_from_released
from occany_core.checkpoints.store import WEIGHTS, choose_device, write_metrics
from occany_core.errors import CheckpointError, ConfigError

MEGABYTE = 1_000_000


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "small.safetensors"
    network = random_network(tiny_config("convolutional"))
    save_model(network, {"name": "small", "licence": "Apache-2.0", "seed": 7}, path)
    return path


def change_card(path: Path, **changes) -> None:
    card_path = path.with_suffix(".json")
    card = json.loads(card_path.read_text()) | changes
    card = {key: value for key, value in card.items() if value is not None}
    card_path.write_text(json.dumps(card))


def replace_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Other weights with the right checksum."""
    save_file(weights, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    change_card(path, files=[{"name": path.name, "sha256": sha256}])


# --- what works ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["patch", "convolutional"])
def test_round_trip(tmp_path, stem):
    network, path = random_network(tiny_config(stem)), tmp_path / "a.safetensors"
    save_model(network, {"name": "a", "licence": "Apache-2.0"}, path)
    model = load_model(path, device="cpu")
    assert model.network.config == network.config
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor), name
    assert model.name == "a"
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.card["licence"] == "Apache-2.0"


def test_half_the_size_at_half_precision(tmp_path, saved):
    network, path = random_network(tiny_config("convolutional")), tmp_path / "half.safetensors"
    save_model(network, {"name": "half", "licence": "Apache-2.0"}, path, half=True)
    assert path.stat().st_size < 0.6 * saved.stat().st_size
    found = load_model(path, device="cpu").network.state_dict()
    for name, tensor in network.state_dict().items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-6)


def test_weights_in_several_files(saved):
    weights = load_file(saved)
    names = sorted(weights)
    parts = {"small.safetensors": names[::2], "small-2.safetensors": names[1::2]}
    files = []
    for name, keys in parts.items():
        save_file({key: weights[key] for key in keys}, saved.parent / name)
        content = (saved.parent / name).read_bytes()
        files.append({"name": name, "sha256": hashlib.sha256(content).hexdigest()})
    change_card(saved, files=files)
    found = load_model(saved, device="cpu").network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    (saved.parent / "small-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"small-2.*missing"):
        load_model(saved, device="cpu")


def test_scores_join_the_card(saved):
    write_metrics(saved, "street", {"iou": 1.0})
    write_metrics(saved, "street", {"iou": 2.0})
    write_metrics(saved, "field", {"iou": 3.0})
    card = load_model(saved, device="cpu").card
    assert card["metrics"] == {"street": {"iou": 2.0}, "field": {"iou": 3.0}}


def test_the_shipped_weights_load_and_are_small():
    path = WEIGHTS / "default.safetensors"
    assert path.exists()
    assert path.stat().st_size <= 40 * MEGABYTE
    model = load_model("default", device="cpu")
    assert model.network.renders_novel_views
    assert model.card["licence"] == "Apache-2.0"
    assert all(torch.isfinite(tensor).all() for tensor in model.network.state_dict().values())


def test_devices():
    assert choose_device("cpu").type == choose_device(torch.device("cpu")).type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named(saved):
    with pytest.raises(ConfigError, match="cuda:1"):
        load_model(saved, device="cuda:1")


@pytest.mark.parametrize("device", ["foo", "", "cuda:", "cuda:300", "meta", torch.device("meta")])
def test_other_kinds_of_devices_are_refused(device):
    with pytest.raises(ConfigError, match=f"the device is '{device}'; it must be cpu, cuda"):
        choose_device(device)


@pytest.mark.parametrize(("count", "device"), [(0, "cuda"), (2, "cuda:2")])
def test_a_gpu_must_be_one_of_those_that_are_there(monkeypatch, count, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigError, match=f"{device}, but PyTorch counts {count} GPUs"):
        choose_device(device)


# --- what does not ------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def truncate_with_matching_card(path):
    truncate(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    change_card(path, files=[{"name": path.name, "sha256": sha256}])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rename_both(path):
    path.with_suffix(".json").rename(path.parent / "other.json")
    path.rename(path.parent / "moved.safetensors")
    (path.parent / "other.json").rename(path.with_suffix(".json"))


def lose_a_weight(path):
    weights = load_file(path)
    weights.pop("decoder.norm.weight")
    replace_weights(path, weights)


def add_a_weight(path):
    replace_weights(path, load_file(path) | {"decoder.extra": torch.zeros(1)})


def reshape_a_weight(path):
    replace_weights(path, load_file(path) | {"decoder.norm.weight": torch.zeros(33)})


def other_network(path):
    change_card(path, network=tiny_config("patch").to_dict())


def write_card(text):
    return lambda path: path.with_suffix(".json").write_bytes(text)


DAMAGE = {
    "missing": (lambda path: path.unlink(), "there is no weights file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "there is no weights file"),
    "truncated": (truncate, "damaged"),
    "truncated, matching card": (truncate_with_matching_card, "not a valid safetensors file"),
    "one bit flipped": (flip_a_bit, "sha256"),
    "renamed": (rename_both, "there is no weights file"),
    "weight missing": (lose_a_weight, "do not fit"),
    "weight too many": (add_a_weight, "do not fit"),
    "wrong shape": (reshape_a_weight, "do not fit"),
    "other network": (other_network, "do not fit"),
    "unknown network": (lambda path: change_card(path, network={"stem": 3}), "stem"),
    "network no object": (lambda path: change_card(path, network="tiny"), "do not fit"),
    "no card": (lambda path: path.with_suffix(".json").unlink(), "has no card"),
    "card no JSON": (write_card(b"{"), "not valid JSON"),
    "card no text": (write_card(b"\xff\xfe"), "not valid JSON"),
    "card no object": (write_card(b"[1]"), "JSON object"),
    "card without licence": (lambda path: change_card(path, licence=None), "has no licence"),
    "card without network": (lambda path: change_card(path, network=None), "has no network"),
    "no files": (lambda path: change_card(path, files=[]), "files"),
    "files without sha256": (lambda path: change_card(path, files=[{"name": "a"}]), "sha256"),
    "another file": (
        lambda path: change_card(path, files=[{"name": "b.safetensors", "sha256": "0"}]),
        "missing",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(saved, case):
    damage, named = DAMAGE[case]
    damage(saved)
    with pytest.raises(CheckpointError) as error:
        load_model(saved, device="cpu")
    assert named in str(error.value)
    assert saved.stem in str(error.value) or "b.safetensors" in str(error.value)


def test_a_renamed_pair_names_the_file_its_card_means(saved):
    for suffix in (".json", ".safetensors"):
        saved.with_suffix(suffix).rename(saved.parent / f"renamed{suffix}")
    with pytest.raises(CheckpointError, match=r"small\.safetensors.*named by its card"):
        load_model(saved.parent / "renamed.safetensors", device="cpu")


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.bin", "weights"])
def test_formats_that_can_run_code_are_not_opened(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"not a \.safetensors file"):
        load_model(path)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_in_disguise_is_not_executed(saved):
    saved.write_bytes(pickle.dumps(Trap(saved.parent / "executed")))
    sha256 = hashlib.sha256(saved.read_bytes()).hexdigest()
    change_card(saved, files=[{"name": saved.name, "sha256": sha256}])
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        load_model(saved)
    assert not (saved.parent / "executed").exists()


# --- names of the released files ----------------------------------------------------------------


def test_released_names():
    tensor = torch.arange(4.0)
    found = state_dict_from_released(
        {
            "encoder": {"patch_embed.proj.weight": tensor, "blocks_enc.3.attn.qkv.bias": tensor},
            "decoder": {
                "pose_token": tensor.view(1, 1, 1, 4),
                "blocks_dec.1.cross_attn.projk.weight": tensor,
                "inject_pose_token.0.0.fc1.weight": tensor,
            },
            "gen_decoder": {"blocks_dec.1.cross_attn.projq.weight": tensor},
            "raymap_encoder": {"patch_embed_conf.proj.bias": tensor},
        }
    )
    assert sorted(found) == [
        "decoder.blocks.0.pose_injection.fc1.weight",
        "decoder.pose_token",
        "decoder.writers.1.key.weight",
        "encoder.blocks.3.attn.qkv.bias",
        "encoder.stem.proj.weight",
        "novel_view_decoder.blocks.1.memory_attention.query.weight",
        "novel_view_encoder.tokenizers.confidence.bias",
    ]
    assert found["decoder.pose_token"].shape == (1, 1, 4)


def test_dead_weights_of_released_files_are_left_out():
    dead = {
        "raymap_encoder": ["blocks_enc.0.attn.qkv.weight", "t_embedder.mlp.0.bias", "proj_mem.x"],
        "gen_decoder": ["feedback_layer.fc1.weight", "blocks_dec.2.cross_attn.projv.weight"],
    }
    parts = {part: dict.fromkeys(keys, torch.zeros(1)) for part, keys in dead.items()}
    assert state_dict_from_released(parts) == {}
    with pytest.raises(CheckpointError):  # dead there does not mean dead everywhere
        state_dict_from_released({"decoder": {"proj_mem.x": torch.zeros(1)}})


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("encoder", "blocks_dec.0.norm1.weight"),
        ("decoder", "blocks_dec.0.norm9.weight"),
        ("gen_decoder", "head_depth.weight"),
        ("raymap_encoder", "patch_embed_depth.proj.weight"),
        ("optimizer", "step"),
    ],
)
def test_unknown_released_names_are_refused(part, key):
    with pytest.raises(CheckpointError, match=f"{part}/{key}"):
        state_dict_from_released({part: {key: torch.zeros(1)}})
