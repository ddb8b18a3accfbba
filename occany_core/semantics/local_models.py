# SPDX-License-Identifier: Apache-2.0
"""Folders on this machine -> models and tokenizers of transformers; the network is never asked.

Needs the extra `[semantics]`. `occany download` fetches such folders.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from occany_core.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class LocalModel:
    """What is wanted of a folder, and where it comes from."""

    model_class: str
    """Name in transformers."""
    download: str
    """Name for `occany download`."""
    folder: Path

    def load(self, device: str | torch.device = "cpu") -> Any:
        """Return the model, ready to be used and not to be trained.

        Raises:
            ConfigError: transformers is not installed.
            CheckpointError: There is no such folder, or it does not hold the whole model.
        """
        model_class = getattr(self._transformers(), self.model_class)
        with self._explained():
            model, report = model_class.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        if report["missing_keys"]:
            raise CheckpointError(
                f"{self.folder} lacks {sorted(report['missing_keys'])[:3]} and would get random "
                f"numbers for them; {self._remedy}"
            )
        return model.eval().requires_grad_(False).to(device)

    def tokenizer(self) -> Any:
        """Return the tokenizer that lies beside the model; raises as `load`."""
        transformers = self._transformers()
        with self._explained():
            return transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)

    @property
    def _remedy(self) -> str:
        return (
            f"fetch one with: occany download {self.download} --to FOLDER, which makes "
            f"FOLDER/{self.download}"
        )

    def _transformers(self) -> Any:
        try:
            import transformers
        except ImportError as error:
            raise ConfigError(
                f"{self.model_class} needs transformers: pip install 'occany_ros[semantics]'"
            ) from error
        if not self.folder.is_dir():
            raise CheckpointError(
                f"there is no folder {self.folder} with a transformers.{self.model_class}; "
                f"{self._remedy}"
            )
        return transformers

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what transformers raises about files into one sentence."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"{self.folder} does not hold a usable transformers.{self.model_class} "
                f"({lines[0][:200]}); {self._remedy}"
            ) from error
