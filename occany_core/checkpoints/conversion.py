# SPDX-License-Identifier: Apache-2.0
"""Released `.pth` file -> our safetensors file and card, once (spec 15, 16)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from occany_core.checkpoints.architecture import HeadCounts, architecture, arguments_of
from occany_core.checkpoints.checksum import check_sha256, sha256_of
from occany_core.checkpoints.release_checks import ReleaseCheck, release_checks
from occany_core.checkpoints.released import (
    RECONSTRUCTION_PARTS,
    RENDERING_PARTS,
    KeyReport,
    Parts,
    compare_keys,
    state_dict_from_released,
)
from occany_core.checkpoints.store import check_finite, save_weights
from occany_core.checkpoints.torch_file import read_torch_file
from occany_core.errors import CheckpointError
from occany_core.network import NetworkConfig, OccAnyNetwork

LICENCE = (
    "non-commercial: weights of the OccAny authors, built on MUSt3R's non-commercial ones; check "
    "the authors' terms"
)
"""Spec 18."""
SEED = 0
"""Of the weights that an initialisation file lacks."""
NOT_WEIGHTS = {"args", "epoch", "optimizer", "scaler"}

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """How to convert; the defaults keep every number."""

    half: bool = False
    """Store float16 instead of float32."""
    sha256: str | None = None
    """What the file must have."""
    name: str | None = None
    """Name on the card; None takes the file's."""
    licence: str = LICENCE
    heads: HeadCounts = field(default_factory=HeadCounts)
    is_initialisation: bool = False
    """The file is a start for training (MUSt3R-512): what it lacks is initialised."""
    compare_encoder: Path | None = None
    """File whose encoder should be the same, for the release checks."""
    overwrite: bool = False


@dataclass(frozen=True)
class Conversion:
    """What was converted."""

    card: dict
    report: KeyReport
    checks: list[ReleaseCheck]


def convert(source: Path, output: Path, options: ConversionOptions, say: Say) -> Conversion:
    """Read a released file, check it, and write it in our format.

    Args:
        source: `.pth` file.
        output: `NAME.safetensors`; the card goes beside it. Both appear whole or not at all.
        options: How.
        say: Is told what goes on, a line at a time.

    Raises:
        CheckpointError: The file is damaged, of another kind, or does not fit; the output exists.
    """
    _check_output(output, options)
    if not source.is_file():
        raise CheckpointError(f"there is no file {source}; `occany download` fetches one")
    say(f"reading {source.name} ({source.stat().st_size / 1e9:.2f} GB)")
    sha256 = check_sha256(source, options.sha256) if options.sha256 else sha256_of(source)
    content = read_torch_file(source, any_activation_enum=options.is_initialisation)
    parts = parts_of(content, source)
    config = _network(parts, content, options, source)
    _say_network(config, say)
    report = compare_keys(parts, config)
    say(str(report))
    if options.is_initialisation:
        weights = _initialised(parts, config, report, source)
    else:
        if not report.fits:
            raise CheckpointError(f"{source} does not fit the network: {report}")
        weights = state_dict_from_released(parts)
    check_finite(weights, str(source))
    checks = [] if options.is_initialisation else _release_checks(parts, options)
    card = _card(source, sha256, content, options, report)
    card["release_checks"] = {one.statement: f"{one.verdict} ({one.detail})" for one in checks}
    say(f"writing {output.name}")
    save_weights(weights, config, card, output, half=options.half)
    return Conversion(card, report, checks)


def parts_of(content: dict, source: Path) -> Parts:
    """Return the weights of a released file, part by part.

    Raises:
        CheckpointError: A part is missing, unknown, or holds something else than weights.
    """
    if "model" in content and "decoder" not in content:
        raise CheckpointError(
            f"{source} has one entry 'model', as OccAny+ files do; only base files (occany.pth, "
            "occany_recon.pth) are converted by this version"
        )
    has_rendering = any(part in content for part in RENDERING_PARTS)
    needed = (*RECONSTRUCTION_PARTS, *(RENDERING_PARTS if has_rendering else ()))
    missing = [part for part in needed if not isinstance(content.get(part), dict)]
    if missing:
        raise CheckpointError(
            f"{source} has no weights {', '.join(missing)}, only the entries "
            f"{_some(content)}; it is not a whole released checkpoint"
        )
    for name in content.keys() - {*needed, *NOT_WEIGHTS}:
        values = dict.values(content[name]) if isinstance(content[name], dict) else ()
        if any(isinstance(value, Tensor) for value in values):
            raise CheckpointError(
                f"{source} has weights {str(name)[:60]!r}, which no known version has; it is "
                "damaged or of another model"
            )
    parts = {part: dict(dict.items(content[part])) for part in needed}
    for part, weights in parts.items():
        for key, tensor in weights.items():
            if not isinstance(key, str):
                raise CheckpointError(
                    f"{part} in {source} has a key {str(key)[:60]!r} that is no text; the file is "
                    "damaged or of another model"
                )
            _check_tensor(f"{part}/{key[:100]}", tensor, source)
    return parts


def _check_tensor(name: str, tensor: object, source: Path) -> None:
    is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided
    if not is_plain or tensor.device.type != "cpu":
        raise CheckpointError(
            f"{name} in {source} is a {type(tensor).__name__}, not a plain tensor of weights; the "
            "file is damaged or of another model"
        )
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{name} in {source} holds {tensor.dtype}, weights are floating-point numbers; the "
            "file is damaged or of another model"
        )
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(
            f"{name} in {source} claims {tensor.numel()} values and holds fewer; the file was "
            "tampered with"
        )


def _some(content: dict) -> str:
    names = [str(name)[:40] for name in content]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "none"


def _check_output(output: Path, options: ConversionOptions) -> None:
    if output.suffix != ".safetensors":
        raise CheckpointError(f"the output {output} must end in .safetensors")
    if output.exists() and not options.overwrite:
        raise CheckpointError(f"{output} exists; give another name, or --overwrite")
    if not output.parent.is_dir():
        raise CheckpointError(f"there is no folder {output.parent} to write {output.name} into")


def _network(
    parts: Parts, content: dict, options: ConversionOptions, source: Path
) -> NetworkConfig:
    arguments = arguments_of(content.get("args"))
    try:
        return architecture(
            parts, arguments, options.heads, is_initialisation=options.is_initialisation
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source} cannot be converted: {error}") from error


def _say_network(config: NetworkConfig, say: Say) -> None:
    for name, dims in (("encoder", config.encoder), ("decoder", config.decoder)):
        say(f"{name}: width {dims.width}, {dims.depth} blocks, {dims.heads} heads")
    rendering = "with" if config.novel_view_encoder is not None else "without"
    say(f"{rendering} rendering of novel views, pictures {config.picture_width} px wide")


def _initialised(
    parts: Parts, config: NetworkConfig, report: KeyReport, source: Path
) -> dict[str, Tensor]:
    """Return the weights that match by name and shape, and fresh ones for all others (spec 14)."""
    used = set(report.used)
    for part in RECONSTRUCTION_PARTS:
        if not any(name.startswith(f"{part}/") for name in used):
            raise CheckpointError(
                f"no weight of {part} in {source} has a known name and shape; it is no start for "
                f"this network: {report}"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        weights = OccAnyNetwork(config).state_dict()
    matching = {
        part: {key: tensor for key, tensor in one.items() if f"{part}/{key}" in used}
        for part, one in parts.items()
    }
    return weights | state_dict_from_released(matching)


def _release_checks(parts: Parts, options: ConversionOptions) -> list[ReleaseCheck]:
    other = None
    if options.compare_encoder is not None:
        content = read_torch_file(options.compare_encoder, any_activation_enum=True)
        if not isinstance(content.get("encoder"), dict):
            raise CheckpointError(
                f"{options.compare_encoder} has no encoder to compare with, only the entries "
                f"{_some(content)}"
            )
        other = dict(dict.items(content["encoder"]))
    return release_checks(parts, other)


def _card(
    source: Path, sha256: str, content: dict, options: ConversionOptions, report: KeyReport
) -> dict:
    rendering = any(part in content for part in RENDERING_PARTS)
    card = {
        "name": options.name or source.stem,
        "licence": options.licence,
        "variant": "occany" if rendering else "occany_recon",
        "source": {"file": source.name, "sha256": sha256},
        "preprocessing": {
            "picture": "RGB, long side of the network's picture width, both sides multiples of "
            "the patch size",
            "values": "(x / 255 - 0.5) / 0.5",
        },
        "unused_weights": len(report.unused),
    }
    epoch = content.get("epoch")
    if isinstance(epoch, int):
        card["source"]["epoch"] = epoch
    if options.is_initialisation:
        card["variant"] = "initialisation"
        card["initialised"] = [*report.missing, *(one.split(" (")[0] for one in report.misshapen)]
        card["left_out"] = list(report.unknown)
        card["seed"] = SEED
    return card
