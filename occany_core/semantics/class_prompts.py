# SPDX-License-Identifier: Apache-2.0
"""Texts that are looked for in pictures, and the class that each stands for."""

from dataclasses import dataclass

from occany_core.voxels import ClassTable


@dataclass(frozen=True)
class PromptTable:
    """Texts to look for, and the class each stands for."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def without(self, classes: ClassTable) -> "PromptTable":
        """Leave out the prompts of `empty` and `other`, which are never painted."""
        kept = [
            (text, label)
            for text, label in zip(self.texts, self.labels, strict=True)
            if label not in (classes.empty, classes.other)
        ]
        return PromptTable(tuple(text for text, _ in kept), tuple(label for _, label in kept))
