# SPDX-License-Identifier: Apache-2.0
"""Released files: what is converted, what is said about it, and that bad ones run nothing."""

import argparse
import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path
from random import Random

import pytest
import torch
from golden_set import REFERENCE, needs_reference
from released_files import OLD_ENUM, TINY_TEXT, tiny_parts, write_released
from safetensors.torch import load_file, save_file
from tiny_networks import tiny_config

from occany_core.checkpoints import conversion, load_model, store
from occany_core.checkpoints.architecture import constructor_keywords
from occany_core.checkpoints.conversion import LICENCE, ConversionOptions, convert
from occany_core.checkpoints.released import (
    compare_keys,
    published_shapes,
    released_key,
    state_dict_from_released,
    used_shapes,
)
from occany_core.checkpoints.torch_file import PickledActivation, read_torch_file
from occany_core.cli.main import main
from occany_core.errors import CheckpointError
from occany_core.network import NetworkConfig, TransformerDims


@pytest.fixture
def released(tmp_path) -> Path:
    return write_released(tmp_path / "occany.pth", tiny_parts())


def converted(source: Path, **options) -> conversion.Conversion:
    return convert(
        source, source.with_suffix(".safetensors"), ConversionOptions(**options), lambda text: None
    )


def refused(source: Path, *named: str, **options) -> str:
    """The one error; nothing is left beside the file."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(CheckpointError) as error:
        converted(source, **options)
    for part in (source.name, *named):
        assert part in str(error.value), str(error.value)
    assert len(str(error.value)) < 900
    assert sorted(source.parent.iterdir()) == before
    return str(error.value)


# --- names and shapes ---------------------------------------------------------------------------


@needs_reference
@pytest.mark.parametrize("renders", [True, False])
def test_the_published_layout_is_the_listed_one(renders):
    listed = {}
    for line in (REFERENCE / "occany_state_dict.tsv").read_text().splitlines():
        name, *rest = line.split("\t")
        if "/" in name and not name.startswith("#"):
            listed[name] = tuple(map(int, rest[0].split("x")))
    if not renders:
        listed = {k: v for k, v in listed.items() if k.startswith(("encoder", "decoder"))}
    config = NetworkConfig() if renders else NetworkConfig(novel_view_encoder=None)
    assert published_shapes(config) == listed


def test_every_name_of_ours_has_one_released_name():
    config = tiny_config("patch")
    shapes = used_shapes(config)
    parts: dict = {}
    for name, shape in shapes.items():
        part, key = name.split("/")
        parts.setdefault(part, {})[key] = torch.zeros(shape)
    for name in state_dict_from_released(parts):
        assert "/".join(released_key(name)) in shapes
    assert len(state_dict_from_released(parts)) == len(shapes)


def test_the_report_counts_each_kind():
    parts = tiny_parts()
    lost = parts["decoder"].pop("norm_dec.weight")
    parts["decoder"]["norm_enc.weight"] = lost
    parts["encoder"]["norm_enc.weight"] = torch.zeros(31)
    report = compare_keys(parts, tiny_config("patch"))
    assert report.missing == ("decoder/norm_dec.weight",)
    assert report.unknown == ("decoder/norm_enc.weight",)
    assert report.misshapen == ("encoder/norm_enc.weight (is 31, must be 32)",)
    dead = [name for name in published_shapes(tiny_config("patch")) if name in report.unused]
    assert len(dead) == len(report.unused) == 6 * 8 + 6 + 2 * 6 + 6  # blocks, time, writers
    assert not report.fits
    assert "1 missing: decoder/norm_dec.weight" in str(report)


# --- conversion ---------------------------------------------------------------------------------


def test_four_parts_become_a_network_that_renders(released):
    done = converted(released)
    model = load_model(released.with_suffix(".safetensors"), device="cpu")
    expected = state_dict_from_released(tiny_parts())
    found = model.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    config = model.network.config
    want = tiny_config("patch")
    for name in ("encoder", "decoder", "modality_width", "segmentation_dims", "stem"):
        assert getattr(config, name) == getattr(want, name), name
    assert (config.segmentation_size, config.picture_width) == (64, 48)
    assert config.novel_view_encoder.width == 32
    assert config.novel_view_encoder.depth == 0
    assert done.card == {key: model.card[key] for key in done.card}
    assert model.card["licence"] == LICENCE
    assert "non-commercial" in LICENCE
    assert model.card["name"] == model.card["variant"] == "occany"
    assert model.card["source"] == {
        "file": "occany.pth",
        "sha256": hashlib.sha256(released.read_bytes()).hexdigest(),
        "epoch": 99,
    }


def test_two_parts_with_the_older_enum_become_a_reconstruction(tmp_path):
    parts = tiny_parts(renders=False)
    source = write_released(tmp_path / "occany_recon.pth", parts, module=OLD_ENUM)
    done = converted(source, half=True)
    model = load_model(source.with_suffix(".safetensors"), device="cpu")
    assert not model.network.renders_novel_views
    assert done.card["variant"] == "occany_recon"
    stored = load_file(source.with_suffix(".safetensors"))
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


@pytest.mark.parametrize("value", ["linear", "norm_exp"])
def test_the_activation_comes_from_the_file(tmp_path, value):
    text = TINY_TEXT.replace("LINEAR", value.upper())
    source = write_released(
        tmp_path / "a.pth",
        tiny_parts(),
        arguments={"pointmaps_activation": value, "decoder": text},
    )
    converted(source)
    card = json.loads(source.with_suffix(".json").read_text())
    assert card["network"]["point_activation"] == value


def test_head_counts_come_from_the_file_or_the_options_or_the_rule(tmp_path):
    silent = {"decoder": "Must3rDecoder(distill_img_size=64)", "encoder": ""}
    source = write_released(tmp_path / "a.pth", tiny_parts(), arguments=silent)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"width of 32.*--encoder-heads"):
        converted(source)
    assert sorted(tmp_path.iterdir()) == before
    heads = conversion.HeadCounts(encoder=4, decoder=2)
    converted(source, heads=heads)
    config = load_model(source.with_suffix(".safetensors"), device="cpu").network.config
    assert (config.encoder.heads, config.decoder.heads) == (4, 2)


def test_arguments_are_optional_and_may_be_a_dictionary(tmp_path):
    heads = conversion.HeadCounts(2, 2)
    parts = tiny_parts()
    torch.save(parts, tmp_path / "bare.pth")
    assert converted(tmp_path / "bare.pth", heads=heads).report.fits
    torch.save({**parts, "args": {"decoder": TINY_TEXT}}, tmp_path / "dict.pth")
    converted(tmp_path / "dict.pth", heads=conversion.HeadCounts(encoder=2))
    card = json.loads((tmp_path / "dict.json").read_text())
    assert card["network"]["decoder"]["heads"] == 2


@needs_reference
@pytest.mark.parametrize("name", ["occany", "recon_legacy"])
def test_the_format_probes_are_read_and_their_gaps_counted(name):
    path = REFERENCE / "golden" / f"format_probe_{name}.pth"
    content = read_torch_file(path)
    assert content["args"].pointmaps_activation == PickledActivation("linear")
    parts = conversion.parts_of(content, path)
    arguments = conversion.arguments_of(content["args"])
    config = conversion.architecture(parts, arguments, conversion.HeadCounts())
    assert config.encoder == TransformerDims(width=1024, depth=24, heads=16)
    assert config.decoder == TransformerDims(width=768, depth=12, heads=12)
    assert (config.novel_view_encoder is None) == (name == "recon_legacy")
    report = compare_keys(parts, config)
    assert report.unknown == report.misshapen == ()
    held = sum(map(len, parts.values()))
    assert len(report.used) + len(report.unused) == held
    assert len(report.missing) == len(used_shapes(config)) - len(report.used) > 500


def test_an_optimizer_is_not_read_into_the_result(tmp_path):
    large = {"state": {0: {"exp_avg": torch.ones(4_000_000)}}}
    source = write_released(tmp_path / "a.pth", tiny_parts(), optimizer=large)
    converted(source)
    assert source.stat().st_size > 16_000_000
    assert source.with_suffix(".safetensors").stat().st_size < 4_000_000


def test_weights_that_share_memory_are_stored_apart(tmp_path):
    parts = tiny_parts()
    parts["gen_decoder"]["head_dec.proj.weight"] = parts["decoder"]["head_dec.proj.weight"]
    source = write_released(tmp_path / "a.pth", parts)
    converted(source)
    state = load_model(source.with_suffix(".safetensors"), device="cpu").network.state_dict()
    pair = (state["heads.points.proj.weight"], state["novel_view_heads.points.proj.weight"])
    assert torch.equal(*pair)


def test_constructor_text_is_parsed_and_never_run():
    text = "Decoder(a=(1, 2), b=Kind.LINEAR, c=__import__('os').system('false'), d='x', **more)"
    assert constructor_keywords(text) == {"a": (1, 2), "b": "LINEAR", "d": "x"}
    for nonsense in ("", "Decoder(", "1", "\0", "(" * 5000, "Decoder(a=" + "-" * 9000 + "1)"):
        assert constructor_keywords(nonsense) == {}
    assert constructor_keywords("Decoder(a=1)" + " " * 20_000) == {}


# --- what is believed about the release ---------------------------------------------------------


def believed_parts():
    """Weights for which all statements hold that can hold at this size."""
    parts = tiny_parts()
    for key, tensor in parts["raymap_encoder"].items():
        if key.startswith("blocks_enc."):
            bound = (6 / sum(tensor.shape)) ** 0.5
            tensor.copy_(
                torch.zeros_like(tensor)
                if key.endswith("bias")
                else torch.nn.init.uniform_(tensor, -bound, bound)
            )
    for key, tensor in parts["decoder"].items():
        if key.startswith("head_rgb.") and key.endswith("weight"):
            torch.nn.init.uniform_(tensor, -(tensor.shape[1] ** -0.5), tensor.shape[1] ** -0.5)
        if key.startswith(("head_dec", "head_rgb", "head_sam")):
            parts["gen_decoder"][key] = tensor.clone()
    return parts


def checked(tmp_path, parts, **options) -> list[str]:
    source = write_released(tmp_path / "a.pth", parts)
    done = converted(source, overwrite=True, **options)
    card = json.loads(source.with_suffix(".json").read_text())
    assert list(card["release_checks"]) == [check.statement for check in done.checks]
    for check in done.checks:
        assert card["release_checks"][check.statement].startswith(f"{check.verdict} (")
    return [check.verdict for check in done.checks]


def test_release_checks_say_yes_where_they_hold(tmp_path):
    torch.manual_seed(0)
    parts = believed_parts()
    other = write_released(tmp_path / "start.pth", {"encoder": parts["encoder"]})
    found = checked(tmp_path, parts, compare_encoder=other)
    assert found == ["no", "yes", "yes", "yes", "yes"]  # of another size than the published
    assert checked(tmp_path, parts)[3] == "not applicable"


@pytest.mark.parametrize(
    ("changed", "part", "key"),
    [
        (1, "raymap_encoder", "blocks_enc.3.attn.qkv.bias"),
        (1, "raymap_encoder", "blocks_enc.0.mlp.fc2.weight"),
        (2, "gen_decoder", "head_sam.up2.1.weight"),
        (3, "encoder", "blocks_enc.1.norm2.weight"),
        (4, "decoder", "head_rgb.proj.fc1.weight"),
    ],
)
def test_release_checks_say_no_where_they_do_not_hold(tmp_path, changed, part, key):
    torch.manual_seed(0)
    parts = believed_parts()
    other = write_released(tmp_path / "start.pth", {"encoder": dict(parts["encoder"])})
    parts[part][key] = parts[part][key] * 3 + 1
    found = checked(tmp_path, parts, compare_encoder=other)
    assert found[changed] == "no"


def test_a_reconstruction_has_nothing_to_say_about_rendering(tmp_path):
    found = checked(tmp_path, tiny_parts(renders=False))
    assert found[1:4] == ["not applicable"] * 3


def test_a_file_to_compare_with_must_have_an_encoder(tmp_path, released):
    torch.save({"x": torch.zeros(1)}, tmp_path / "start.pth")
    with pytest.raises(CheckpointError, match=r"start\.pth has no encoder"):
        converted(released, compare_encoder=tmp_path / "start.pth")


# --- a start for training -----------------------------------------------------------------------


def initial_parts():
    """A decoder without the parts that training adds, and with one of its own."""
    parts = tiny_parts(renders=False)
    absent = ("sam_task_token", "rgb_task_token", "inject_pose_token.", "head_sam.", "head_rgb.")
    decoder = {k: v for k, v in parts["decoder"].items() if not k.startswith(absent)}
    decoder["head_dec.proj.weight"] = torch.zeros(5, 32)
    return parts | {"decoder": decoder | {"mystery.weight": torch.zeros(3)}}


def test_an_initialisation_lists_what_it_lacks_and_initialises_it(tmp_path, capsys):
    parts = initial_parts()
    source = write_released(tmp_path / "start.pth", parts, module="elsewhere.blocks.head")
    refused(source, "elsewhere.blocks.head.ActivationType")  # the strict way
    assert main(["convert", str(source), "--initialisation"]) == 0
    shown = capsys.readouterr().out
    for name in ("initialised     decoder/sam_task_token", "inject_pose_token.N.0.fc1.weight"):
        assert name in shown
    assert "left out        decoder/mystery.weight" in shown
    card = json.loads(source.with_suffix(".json").read_text())
    assert card["variant"] == "initialisation"
    assert "decoder/head_dec.proj.weight" in card["initialised"]
    assert card["release_checks"] == {}
    state = load_model(source.with_suffix(".safetensors"), device="cpu").network.state_dict()
    for key, tensor in parts["encoder"].items():
        ours = next(iter(state_dict_from_released({"encoder": {key: tensor}})))
        assert torch.equal(state[ours], tensor)
    assert float(state["heads.segmentation_token"].std()) == pytest.approx(1, abs=0.5)
    assert torch.equal(state["decoder.pose_token"], parts["decoder"]["pose_token"][0])
    again = load_file(source.with_suffix(".safetensors"))
    converted(source, is_initialisation=True, overwrite=True)
    repeated = load_file(source.with_suffix(".safetensors"))
    assert all(torch.equal(again[name], repeated[name]) for name in again)


def test_an_initialisation_of_another_model_is_refused(tmp_path):
    parts = {"encoder": {"a": torch.zeros(1)}, "decoder": tiny_parts()["decoder"]}
    source = write_released(tmp_path / "start.pth", parts)
    refused(source, "no weight of encoder", is_initialisation=True)


# --- bad files ----------------------------------------------------------------------------------


class Bomb:
    """Runs a command when an unsafe loader unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


class Touch(Bomb):
    def __reduce__(self):
        return Path.touch, (self.trace,)


def bomb_in_args(path, trace):
    args = argparse.Namespace(decoder=TINY_TEXT, inner=[{"deep": Bomb(trace)}])
    torch.save({**tiny_parts(), "args": args}, path)


BOMBS = {
    "whole file": lambda path, trace: torch.save(Bomb(trace), path),
    "an entry": lambda path, trace: torch.save({**tiny_parts(), "x": Bomb(trace)}, path),
    "a method": lambda path, trace: torch.save({**tiny_parts(), "x": Touch(trace)}, path),
    "inside args": bomb_in_args,
    "inside optimizer": lambda path, trace: write_released(
        path, tiny_parts(), optimizer={"state": Bomb(trace)}
    ),
    "newer pickle": lambda path, trace: torch.save(
        {**tiny_parts(), "x": Bomb(trace)}, path, pickle_protocol=4
    ),
    "older format": lambda path, trace: torch.save(
        Bomb(trace), path, _use_new_zipfile_serialization=False
    ),
    "bare pickle": lambda path, trace: path.write_bytes(pickle.dumps(Bomb(trace))),
    "an argument": lambda path, trace: write_released(
        path, tiny_parts(), arguments={"sam_model": Bomb(trace)}
    ),
}


@pytest.mark.parametrize("is_initialisation", [False, True])
@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_does_not_go_off(tmp_path, case, is_initialisation):
    trace, source = tmp_path / "executed", tmp_path / "occany.pth"
    BOMBS[case](source, trace)
    message = refused(source, is_initialisation=is_initialisation)
    assert not trace.exists()
    assert any(part in message for part in ("nothing was executed", "pickle", "zip-format"))
    if case in ("whole file", "an entry", "inside args", "inside optimizer", "an argument"):
        assert "asks to run or build" in message
        assert ".system" in message
    assert main(["inspect", str(source)]) == 1
    assert main(["predict", str(tmp_path), "-o", str(tmp_path / "o"), "--model", str(source)]) == 1
    assert not trace.exists()


def test_the_bombs_are_live(tmp_path):
    """They do go off where a file is loaded without care."""
    torch.save(Bomb(tmp_path / "executed"), tmp_path / "a.pth")
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "executed").exists()


def png(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def truncated(path):
    write_released(path, tiny_parts())
    path.write_bytes(path.read_bytes()[:-5000])


def bit_flipped(path):
    """Inside a weight, where only a checksum sees it."""
    write_released(path, tiny_parts())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    content[entry.header_offset + 1000] ^= 1
    path.write_bytes(content)


def compressed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(100_000))


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def garbage_pickle(path):
    write_released(path, tiny_parts())
    rewritten(path, path.with_suffix(".new"), lambda content: b"\x80\x02}(")
    path.with_suffix(".new").replace(path)


def with_parts(change):
    def write(path):
        parts = tiny_parts()
        change(parts)
        write_released(path, parts)

    return write


def with_arguments(**arguments):
    return lambda path: write_released(path, tiny_parts(), arguments=arguments)


def stretched(parts):
    """A single number that claims to be a matrix."""
    parts["encoder"]["blocks_enc.0.mlp.fc1.weight"] = torch.zeros(1).expand(128, 32)


def nan(parts):
    parts["decoder"]["norm_dec.bias"][3:5] = float("nan")
    parts["encoder"]["norm_enc.bias"][0] = float("inf")


def set_weight(part, key, value):
    return with_parts(lambda parts: parts[part].update({key: value}))


BAD = {
    "missing": (lambda path: path.unlink(missing_ok=True), ["there is no file"]),
    "empty": (lambda path: path.write_bytes(b""), ["is empty"]),
    "text": (lambda path: path.write_text("hello"), ["not a zip-format PyTorch file"]),
    "picture": (png, ["PNG picture"]),
    "LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        ["LFS pointer"],
    ),
    "web page": (lambda path: path.write_text("<!DOCTYPE html>"), ["web page"]),
    "safetensors": (lambda path: save_file({"a": torch.zeros(9)}, path), [".safetensors file"]),
    "truncated": (truncated, ["truncated"]),
    "bit flipped": (bit_flipped, ["damaged", "CRC"]),
    "compressed": (compressed, ["compressed"]),
    "other zip": (other_zip, ["cannot be read as a PyTorch file"]),
    "garbage": (garbage_pickle, ["cannot be read as a PyTorch file"]),
    "a list": (lambda path: torch.save([1, 2], path), ["list", "not a dictionary"]),
    "no parts": (lambda path: torch.save({"epoch": 3}, path), ["encoder, decoder", "epoch"]),
    "three parts": (with_parts(lambda parts: parts.pop("gen_decoder")), ["gen_decoder"]),
    "plus": (lambda path: torch.save({"model": {"a": torch.zeros(1)}}, path), ["OccAny+"]),
    "other part": (
        with_parts(lambda parts: parts.update(depth={"a": torch.zeros(1)})),
        ["'depth'", "no known version"],
    ),
    "part no dictionary": (
        with_parts(lambda parts: parts.update(encoder=3)),
        ["no weights encoder"],
    ),
    "weight missing": (
        with_parts(lambda parts: parts["decoder"].pop("sam_task_token")),
        ["1 missing: decoder/sam_task_token"],
    ),
    "block missing": (
        with_parts(
            lambda parts: [
                parts["decoder"].pop(key)
                for key in list(parts["decoder"])
                if key.startswith("blocks_dec.1.")
            ]
        ),
        ["24 missing: decoder/"],
    ),
    "unknown weight": (
        set_weight("encoder", "pos_embed", torch.zeros(3)),
        ["1 unknown: encoder/pos_embed"],
    ),
    "wrong shape": (
        set_weight("decoder", "head_pose.fc2.bias", torch.zeros(8)),
        ["1 misshapen: decoder/head_pose.fc2.bias (is 8, must be 7)"],
    ),
    "wrong kind": (
        set_weight("decoder", "norm_dec.bias", torch.zeros(32, dtype=torch.long)),
        ["decoder/norm_dec.bias", "int64"],
    ),
    "no tensor": (set_weight("decoder", "norm_dec.bias", [1.0]), ["norm_dec.bias", "list"]),
    "sparse": (
        set_weight("decoder", "norm_dec.bias", torch.zeros(32).to_sparse()),
        ["norm_dec.bias", "plain tensor"],
    ),
    "no memory behind it": (
        set_weight("decoder", "norm_dec.bias", torch.zeros(32, device="meta")),
        ["norm_dec.bias", "plain tensor"],
    ),
    "key no text": (with_parts(lambda parts: parts["encoder"].update({7: torch.zeros(1)})), ["7"]),
    "stretched": (with_parts(stretched), ["claims 4096 values"]),
    "not finite": (with_parts(nan), ["3 weights that are not finite", "2 tensors"]),
    "other activation": (
        with_arguments(decoder=TINY_TEXT.replace("LINEAR", "CUBIC")),
        ["cubic and linear"],
    ),
    "other features": (with_arguments(projection_features="rgb"), ["projection_features", "rgb"]),
    "other conditioning": (
        with_arguments(use_raymap_only_conditioning=True),
        ["use_raymap_only_conditioning"],
    ),
    "other memory": (
        with_arguments(decoder=TINY_TEXT.replace("'kv'", "'tokens'")),
        ["memory_mode", "tokens"],
    ),
    "heads that do not divide": (
        with_arguments(decoder=TINY_TEXT.replace("num_heads=2", "num_heads=5")),
        ["width 32 over 5 heads"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_error(tmp_path, case, capsys):
    write, named = BAD[case]
    source = tmp_path / "occany.pth"
    write(source)
    before = sorted(tmp_path.iterdir())
    assert main(["convert", str(source)]) == 1
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1]
    assert out == ""
    assert last.startswith("occany: ")
    for part in named:
        assert part in last, last
    assert "occany.pth" in last
    assert "weights_only" not in last
    assert "Traceback" not in err
    assert len(last) < 700
    assert sorted(tmp_path.iterdir()) == before


def rewritten(source: Path, target: Path, change) -> None:
    """The same archive with another pickle and fitting checksums."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_no_change_of_the_pickle_escapes_as_another_error(released, tmp_path):
    random = Random(0)

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(random.choice((1, 2, 10))):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)

    refusals = 0
    for _ in range(40):
        rewritten(released, tmp_path / "b.pth", change)
        try:
            converted(tmp_path / "b.pth", overwrite=True)
        except CheckpointError:
            refusals += 1
    assert 20 < refusals < 40  # some changes only reach settings that do not matter


def test_the_checksum_is_compared_first(released, tmp_path):
    sha256 = hashlib.sha256(released.read_bytes()).hexdigest()
    assert converted(released, sha256=sha256.upper()).card["source"]["sha256"] == sha256
    other = write_released(tmp_path / "b.pth", tiny_parts())
    torch.save(Bomb(tmp_path / "executed"), other)
    refused(other, "sha256", sha256[:12], sha256=sha256)
    refused(other, "64 hexadecimal digits", sha256="abc")
    assert not (tmp_path / "executed").exists()


def test_a_converted_file_that_changes_is_found_by_its_card(released):
    converted(released)
    path = released.with_suffix(".safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"occany\.safetensors has sha256"):
        load_model(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="no card"):
        load_model(path)


def test_a_released_file_is_not_loaded_directly(released, tmp_path):
    with pytest.raises(CheckpointError, match=r"occany convert .*occany\.pth"):
        load_model(released)
    renamed = released.rename(tmp_path / "occany.safetensors")
    with pytest.raises(CheckpointError, match=r"rename it to \.pth and run `occany convert`"):
        load_model(renamed)


def test_weights_that_float16_cannot_hold_are_named(tmp_path):
    parts = tiny_parts()
    parts["decoder"]["norm_dec.bias"][0] = 1e6
    source = write_released(tmp_path / "a.pth", parts)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"decoder\.norm\.bias.*float16"):
        converted(source, half=True)
    assert sorted(tmp_path.iterdir()) == before


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError("no space left")])
def test_an_interrupted_conversion_leaves_nothing(released, monkeypatch, failure):
    def half_written(weights, path):
        path.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(store, "save_file", half_written)
    before = sorted(released.parent.iterdir())
    with pytest.raises((KeyboardInterrupt, OSError)):
        converted(released)
    assert sorted(released.parent.iterdir()) == before


def test_an_existing_file_is_replaced_only_on_request(released):
    path = released.with_suffix(".safetensors")
    path.write_bytes(b"precious")
    with pytest.raises(CheckpointError, match="--overwrite"):
        converted(released)
    assert path.read_bytes() == b"precious"
    converted(released, overwrite=True)
    load_model(path, device="cpu")


@pytest.mark.parametrize(
    ("output", "says"), [("a.pth", "must end in"), ("none/a.safetensors", "no folder")]
)
def test_an_output_that_cannot_be_written_is_named_at_once(released, tmp_path, output, says):
    with pytest.raises(CheckpointError, match=says):
        convert(released, tmp_path / output, ConversionOptions(), print)


def test_the_verb_shows_progress_checks_and_licence(released, tmp_path, capsys):
    output = tmp_path / "mine.safetensors"
    arguments = ["convert", str(released), "-o", str(output), "--half", "--name", "mine"]
    assert main([*arguments, "--licence", "mine too"]) == 0
    out, err = capsys.readouterr()
    assert "encoder: width 32, 2 blocks, 2 heads" in err
    assert "writing mine.safetensors" in err
    for part in ("not applicable", "licence: mine too", f"--model {output}"):
        assert part in out
    assert main(["inspect", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "release_checks.names and shapes are the published ones" in shown
    assert "mine too" in shown


def test_inspect_describes_a_released_file(released, capsys):
    assert main(["inspect", str(released)]) == 0
    shown = capsys.readouterr().out
    for part in ("raymap_encoder", "args, epoch, optimizer, scaler", "occany convert"):
        assert part in shown
