# SPDX-License-Identifier: Apache-2.0
"""Our checkpoints: a safetensors file (or parts of it) and a JSON card beside it.

The card holds the architecture, the recipe, metrics, licence and the sha256 of every part. Loading
is strict: a missing, damaged or foreign file is an error, and nothing in it is executed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from occany_core.checkpoints.checksum import check_sha256, sha256_of
from occany_core.errors import CheckpointError, ConfigError
from occany_core.network import NetworkConfig, OccAnyNetwork

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
CARD_FORMAT = 1


@dataclass(frozen=True)
class Model:
    """A network with its weights, ready to run."""

    network: OccAnyNetwork
    card: dict
    device: torch.device

    @property
    def name(self) -> str:
        """Name on the card."""
        return self.card["name"]

    @property
    def sha256(self) -> str:
        """Checksum of the weights, or of their first part."""
        return self.card["files"][0]["sha256"]


def choose_device(device: str | torch.device) -> torch.device:
    """Resolve `auto`.

    Raises:
        ConfigError: There is no such kind of device, or no such GPU.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    # PyTorch takes cuda:300 for cuda:44.
    if chosen is None or chosen.type not in ("cpu", "cuda") or str(chosen) != str(device):
        raise ConfigError(f"the device is '{device}'; it must be cpu, cuda, cuda:N or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        remedy = "a lower N" if count else "a CUDA build of PyTorch"
        raise ConfigError(
            f"the device is {device}, but PyTorch counts {count} GPUs; use cpu, auto or {remedy}"
        )
    return chosen


def save_model(network: OccAnyNetwork, card: dict, path: Path, *, half: bool = False) -> None:
    """Write weights and card.

    Args:
        network: Its configuration goes into the card.
        card: `name`, `licence` and whatever else is worth knowing.
        path: `NAME.safetensors`; the card becomes `NAME.json`.
        half: Store floating-point weights as float16.
    """
    save_weights(network.state_dict(), network.config, card, path, half=half)


def save_weights(
    weights: dict[str, Tensor],
    config: NetworkConfig,
    card: dict,
    path: Path,
    *,
    half: bool = False,
) -> None:
    """Write a state dict of `OccAnyNetwork` and its card; both appear whole or not at all.

    Args:
        weights: As `OccAnyNetwork(config).state_dict()` has them.
        config: Goes into the card.
        card: As for `save_model`.
        path: `NAME.safetensors`.
        half: Store floating-point weights as float16.

    Raises:
        CheckpointError: A weight does not fit into float16, or the disk does not take the file.
    """
    dtype = torch.float16 if half else torch.float32
    stored = {}
    for name, tensor in weights.items():
        stored[name] = tensor.detach().to(dtype).contiguous()
        if half and not torch.isfinite(stored[name]).all():
            raise CheckpointError(
                f"{name} holds values that float16 cannot hold; store it in float32"
            )
    with complete_or_absent(path) as unfinished:
        try:
            save_file(_without_sharing(stored), unfinished)
        except SafetensorError as error:
            raise CheckpointError(f"cannot write {path}: {error}; is the disk full?") from error
        unfinished.chmod(0o644)
        file = {"name": path.name, "sha256": sha256_of(unfinished)}
    content = {"format": CARD_FORMAT, **card, "network": config.to_dict(), "files": [file]}
    write_card(path, content)


def write_card(path: Path, card: dict) -> None:
    """Write the card of a weights file."""
    with complete_or_absent(path.with_suffix(".json")) as unfinished:
        unfinished.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file gets its own when the block ends without a failure."""
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _without_sharing(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give every weight memory of its own, as the file format wants it."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in weights.items():
        pointer = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return apart


def weights_path(checkpoint: str | Path) -> Path:
    """Return the file that a checkpoint name or path means; `default` is the shipped one."""
    return WEIGHTS / "default.safetensors" if checkpoint == "default" else Path(checkpoint)


def write_metrics(checkpoint: str | Path, protocol: str, metrics: dict) -> None:
    """Put scores of one protocol into the card of a checkpoint, in place of older ones.

    Raises:
        CheckpointError: There is no such checkpoint, or its card is damaged.
    """
    path = weights_path(checkpoint)
    card = _read_card(path)
    card["metrics"] = card.get("metrics", {}) | {protocol: metrics}
    write_card(path, card)


def load_model(checkpoint: str | Path = "default", device: str | torch.device = "auto") -> Model:
    """Load a checkpoint.

    Args:
        checkpoint: `default` for the weights shipped with the package, or the path of a
            `.safetensors` file with its `.json` card beside it.
        device: cpu, cuda, cuda:N, auto or a `torch.device`.

    Raises:
        CheckpointError: The file or its card is missing, damaged, or they do not belong together.
        ConfigError: The device does not exist.
    """
    path = weights_path(checkpoint)
    chosen = choose_device(device)
    card = _read_card(path)
    weights = {}
    for file in card["files"]:
        weights |= _read_part(path.parent / file["name"], file["sha256"])
    check_finite(weights, str(path))
    try:
        with torch.device("meta"):  # no memory: the weights of the file become its own
            network = OccAnyNetwork(NetworkConfig.from_dict(card["network"]))
        single = {name: tensor.float() for name, tensor in weights.items()}
        network.load_state_dict(single, assign=True)
    except (ConfigError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the weights in {path} do not fit the network that their card describes: "
            f"{str(error)[:400]}"
        ) from error
    return Model(network.eval().requires_grad_(False).to(chosen), card, chosen)


def check_finite(weights: dict[str, Tensor], place: str) -> None:
    """See that every weight is a number.

    Raises:
        CheckpointError: Some are not; says how many and where the first are.
    """
    # One sum tells of each tensor whether to look closer.
    bad = [name for name, one in weights.items() if not one.sum(dtype=torch.float64).isfinite()]
    counts = {name: int((~torch.isfinite(weights[name])).sum()) for name in bad}
    if total := sum(counts.values()):
        raise CheckpointError(
            f"{place} holds {total} weights that are not finite, in {len(bad)} tensors, the first "
            f"{bad[0]}; take another copy or an earlier checkpoint"
        )


def _check_kind(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"there is no weights file {path}; give a .safetensors file or 'default' for "
            "the shipped weights"
        )
    with path.open("rb") as file:
        is_torch_file = file.read(4) == b"PK\x03\x04"
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is not a .safetensors file; only that format is loaded, because others can "
            f"run code. A released .pth file is converted once, by `occany convert {path}`"
        )
    if is_torch_file:
        raise CheckpointError(
            f"{path} is not a valid safetensors file but a PyTorch file under another name; "
            "rename it to .pth and run `occany convert` on it"
        )


def _read_card(path: Path) -> dict:
    _check_kind(path)
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path} has no card: {card_path.name} beside it cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:  # also text that is not UTF-8
        raise CheckpointError(f"the card {card_path} is not valid JSON: {error}") from error
    _check_card(card, card_path)
    return card


def _check_card(card: object, path: Path) -> None:
    if not isinstance(card, dict):
        raise CheckpointError(f"the card {path} must be a JSON object")
    missing = {"name", "licence", "network", "files"} - card.keys()
    if missing:
        raise CheckpointError(f"the card {path} has no {', '.join(sorted(missing))}")
    files = card["files"]
    has_files = isinstance(files, list) and len(files) > 0
    if not has_files or not all(_is_file_entry(file) for file in files):
        raise CheckpointError(
            f"the card {path} must list its files as name and sha256, not {files!r}"
        )


def _is_file_entry(file: object) -> bool:
    return isinstance(file, dict) and all(
        isinstance(file.get(key), str) for key in ("name", "sha256")
    )


def _read_part(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(f"the weights file {path}, named by its card, is missing")
    check_sha256(path, sha256)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}") from error
