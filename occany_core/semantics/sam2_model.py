# SPDX-License-Identifier: Apache-2.0
"""SAM2's weights on this machine -> models of transformers for another picture size (spec 11).

Two models: one that encodes pictures, and the 11.7 M parameters that answer prompts and track on
features that are supplied. The latter are made without the trunk of the image encoder, which is
neither built nor read. Nothing is ever fetched. Needs the extra `[semantics]` (transformers).
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from occany_core.checkpoints.torch_file import read_torch_file
from occany_core.errors import CheckpointError, ConfigError
from occany_core.semantics.sam2_names import (
    PLACE_CODE,
    PLACE_CODE_OF_PROMPTS,
    transformers_names,
)

PICTURES = "vision_encoder."
"""Weights that only real pictures need."""
STRIDES = (4, 8, 16)
"""Of the fine, middle and coarse level [px of the square picture]."""
REMEDY = (
    "fetch one with: occany download sam2.1-hiera-large --to FOLDER, which makes "
    "FOLDER/sam2.1-hiera-large"
)


def load_image_model(
    source: str | Path, segmentation_size: int, device: str | torch.device = "cpu"
) -> Any:
    """Load the model that encodes pictures (and answers prompts on them).

    Args:
        source: A folder in the format of transformers.
        segmentation_size: Side of the square into which pictures are squashed [px], a multiple of
            32.
        device: Where to run.

    Returns:
        `transformers.Sam2Model`.

    Raises:
        ConfigError: transformers is not installed, or the size is not possible.
        CheckpointError: There are no such weights.
    """
    transformers = _transformers()
    _check_size(segmentation_size)
    folder = _existing(source)
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a file; of original checkpoints only the part behind the image encoder "
            f"is read, which cannot encode pictures: {REMEDY}"
        )
    config = _config(transformers.Sam2Config, folder)
    _set_size(config, segmentation_size)
    try:
        model, report = transformers.Sam2Model.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot load SAM2 from {folder}: {str(error)[:300]}; {REMEDY}"
        ) from error
    wrong = sorted(name for name, *_ in report["mismatched_keys"])
    if wrong:
        raise CheckpointError(
            f"{folder} does not fit a transformers.Sam2Model: {wrong[0]} has another shape; "
            f"{REMEDY}"
        )
    _check_complete(folder, report["missing_keys"], report["unexpected_keys"])
    return model.eval().requires_grad_(False).to(device)


def load_video_model(
    source: str | Path, segmentation_size: int, device: str | torch.device = "cpu"
) -> Any:
    """Load what answers prompts and tracks on features that are supplied.

    Args:
        source: A folder in the format of transformers, or an original SAM2.1 checkpoint (.pt).
        segmentation_size: As in `load_image_model`.
        device: Where to run.

    Returns:
        `transformers.Sam2VideoModel`; all that is left of its image encoder is the code of places.

    Raises:
        ConfigError: transformers is not installed, or the size is not possible.
        CheckpointError: There are no such weights, or not exactly these.
    """
    transformers = _transformers()
    _check_size(segmentation_size)
    path = _existing(source)
    if path.is_file():
        config, weights = sam2_video_config(), _original(path)
    else:
        config, weights = _config(transformers.Sam2VideoConfig, path), _from_folder(path)
    model = video_model_without_pictures(config, segmentation_size)
    try:
        missing, left_over = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # of another shape
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{path} does not fit a transformers.Sam2VideoModel: {reason}; {REMEDY}"
        ) from error
    _check_complete(path, missing, left_over)
    return model.requires_grad_(False).to(device)


def video_model_without_pictures(config: Any, segmentation_size: int) -> nn.Module:
    """Make a `transformers.Sam2VideoModel` with random weights and without its image encoder.

    Args:
        config: `transformers.Sam2VideoConfig`; is changed.
        segmentation_size: As in `load_image_model`.
    """
    transformers = _transformers()
    _set_size(config, segmentation_size)
    config.image_size = segmentation_size
    config.memory_attention_rope_feat_sizes = [segmentation_size // STRIDES[-1]] * 2
    config.vision_config.backbone_config = transformers.Sam2HieraDetConfig(  # made and thrown away
        hidden_size=1,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 1, 1],
        embed_dim_per_stage=[1, 1, 1, 1],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        global_attention_blocks=[],
    )
    config.vision_config.backbone_channel_list = [1, 1, 1, 1]
    model = transformers.Sam2VideoModel(config).eval()
    model.vision_encoder.backbone = None
    model.vision_encoder.neck.convs = nn.ModuleList()
    return model


def sam2_video_config() -> Any:
    """Return the `transformers.Sam2VideoConfig` of the released SAM2.1.

    Raises:
        ConfigError: transformers is not installed.
    """
    return _transformers().Sam2VideoConfig()


def level_sizes(segmentation_size: int) -> list[list[int]]:
    """Rows and columns of the fine, middle and coarse level."""
    return [[segmentation_size // stride] * 2 for stride in STRIDES]


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "SAM2 needs transformers: pip install 'occany_ros[semantics]'"
        ) from error
    return transformers


def _check_size(segmentation_size: int) -> None:
    if segmentation_size < 32 or segmentation_size % 32:
        raise ConfigError(
            f"segmentation_size is {segmentation_size}; SAM2 needs a multiple of 32 px"
        )


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.exists():
        raise CheckpointError(
            f"{path} is no folder and no file of this machine, and nothing is fetched from a "
            f"network here: {REMEDY}"
        )
    return path


def _set_size(config: Any, segmentation_size: int) -> None:
    config.vision_config.backbone_feature_sizes = level_sizes(segmentation_size)
    config.prompt_encoder_config.image_size = segmentation_size


def _config(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"cannot load SAM2 from {folder}: its config.json is missing or not that of a SAM2 "
            f"({str(error)[:200]}); {REMEDY}"
        ) from error


def _from_folder(folder: Path) -> dict[str, Tensor]:
    """Read what the video model needs beside pictures."""
    weights: dict[str, Tensor] = {}
    try:
        for path in sorted(folder.glob("model*.safetensors")):
            with safe_open(path, "pt") as file:
                wanted = [name for name in file.keys() if not name.startswith(PICTURES)]  # noqa: SIM118
                weights |= {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {REMEDY}") from error
    if not weights:
        raise CheckpointError(
            f"cannot load SAM2 from {folder}: it holds no model.safetensors with weights; {REMEDY}"
        )
    for name, twin in ((PLACE_CODE, PLACE_CODE_OF_PROMPTS), (PLACE_CODE_OF_PROMPTS, PLACE_CODE)):
        if name in weights:  # older files hold the two, which are equal, once
            weights.setdefault(twin, weights[name])
    return weights


def _original(path: Path) -> dict[str, Tensor]:
    weights = read_torch_file(path).get("model")
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise CheckpointError(
            f"{path} has no weights under 'model'; it is not an original SAM2.1 checkpoint: "
            f"{REMEDY}"
        )
    renamed = transformers_names(weights)
    return {name: tensor for name, tensor in renamed.items() if not name.startswith(PICTURES)}


def _check_complete(path: Path, missing: list[str], left_over: list[str]) -> None:
    """See that all weights were there, and no others.

    Raises:
        CheckpointError: They were not.
    """
    for names, what in ((missing, "lacks"), (left_over, "also holds")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{path} {what} {', '.join(sorted(names)[:3])}{more}, so it is not a "
                f"whole SAM2.1; {REMEDY}"
            )
