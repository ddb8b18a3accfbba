# SPDX-License-Identifier: Apache-2.0
"""Our checkpoints: a safetensors file (or parts of it) and a JSON card beside it.

The card holds the architecture, the recipe, metrics, licence and the sha256 of every part. Loading
is
strict: a missing, damaged or foreign file is an error, and nothing in it is executed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

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


def choose_device(device: str) -> torch.device:
    """Resolve `auto`.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"runtime.device is {device}, but PyTorch sees no GPU; use cpu or auto, or "
            "install a CUDA build"
        )
    return torch.device(device)


def save_model(network: OccAnyNetwork, card: dict, path: Path, *, half: bool = False) -> None:
    """Write weights and card.

    Args:
        network: Its configuration goes into the card.
        card: `name`, `licence` and whatever else is worth knowing.
        path: `NAME.safetensors`; the card becomes `NAME.json`.
        half: Store floating-point weights as float16.
    """
    dtype = torch.float16 if half else torch.float32
    weights = {
        name: tensor.to(dtype).contiguous() for name, tensor in network.state_dict().items()
    }
    save_file(weights, path)
    path.chmod(0o644)
    file = {"name": path.name, "sha256": _sha256(path)}
    content = {"format": CARD_FORMAT, **card, "network": network.config.to_dict(), "files": [file]}
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_model(checkpoint: str | Path = "default", device: str = "auto") -> Model:
    """Load a checkpoint.

    Args:
        checkpoint: `default` for the weights shipped with the package, or the path of a
            `.safetensors` file with its `.json` card beside it.
        device: cpu, cuda, cuda:N or auto.

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
    try:
        network = OccAnyNetwork(NetworkConfig.from_dict(card["network"]))
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (ConfigError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the weights in {path} do not fit the network that their card describes: {error}"
        ) from error
    return Model(network.eval().requires_grad_(False).to(chosen), card, chosen)


def _read_card(path: Path) -> dict:
    if not path.is_file():
        raise CheckpointError(
            f"there is no weights file {path}; give a .safetensors file or 'default' for "
            "the shipped weights"
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is not a .safetensors file; only that format is loaded, because other "
            "formats can run code"
        )
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
    found = _sha256(path)
    if found != sha256:
        raise CheckpointError(
            f"{path} has sha256 {found[:12]}..., its card says {sha256[:12]}...; it is "
            "damaged or belongs "
            "to another card: copy or download it again"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
