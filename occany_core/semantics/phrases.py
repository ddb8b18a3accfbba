# SPDX-License-Identifier: Apache-2.0
"""Prompts -> caption, and scores of the caption's tokens -> classes (evaluation page 11.1).

A detector of the GroundingDINO kind reads one caption, "car. traffic sign.", and gives each of its
queries a score for every token. Which prompt a query means is read off the tokens of one segment,
that is, of the text between two full stops.

`Q` queries, `K` of them kept, `T` tokens of the caption, `L` columns of the detector's answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core.errors import ConfigError, InputError
from occany_core.semantics.class_prompts import PromptTable, plain_text

SEPARATORS = (101, 102, 1012)
"""Ids of BERT's [CLS], [SEP] and full stop, which bound the segments of a caption."""
FULL_STOP = "."

Decode = Callable[[Sequence[int]], str]
"""Turns token ids into text, joining the pieces of a word."""


@dataclass(frozen=True)
class PhraseThresholds:
    """Scores that have to be exceeded; 0 to 1."""

    box: float = 0.05
    """By the best token of a query."""
    text: float = 0.05
    """By each token that goes into its phrase."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("box", self.box), ("text", self.text)):
            if not 0 <= value < 1:
                raise ConfigError(f"{name} threshold is {value}; give 0 or more, and below 1")


EVALUATION = PhraseThresholds()
DEMO = PhraseThresholds(box=0.15, text=0.0)
"""The released demo, which asks for class names."""


@dataclass(frozen=True)
class LabelledQueries:
    """Queries whose phrase is a prompt, in the order of the queries."""

    queries: Int[Tensor, " K"]
    """Their indices."""
    scores: Float[Tensor, " K"]
    """Of their best tokens, 0 to 1."""
    labels: Int[Tensor, " K"]
    """Class ids."""


def caption_of(prompts: PromptTable) -> str:
    """Put all prompts into one caption, in their order, each followed by a full stop.

    Raises:
        InputError: There is none, or one is empty or contains a full stop.
    """
    texts = [plain_text(text) for text in prompts.texts]
    if not texts:
        raise InputError("there are no prompts to look for; give at least one")
    for text in texts:
        if not text or FULL_STOP in text:
            raise InputError(
                f"prompt {text!r} cannot stand in a caption, in which full stops part the "
                "prompts; write it without any"
            )
    return " ".join(text + FULL_STOP for text in texts)


def labelled_queries(
    logits: Float[Tensor, "Q L"],
    ids: Int[Tensor, " T"],
    decode: Decode,
    prompts: PromptTable,
    thresholds: PhraseThresholds = EVALUATION,
) -> LabelledQueries:
    """Choose the queries that mean a prompt (evaluation page 11.1, step 1).

    The best token of a query (the first of equal ones) must exceed the box threshold. It lies in a
    segment; a full stop belongs to the segment on its left. The tokens of that segment above the
    text threshold are decoded. If that is a prompt, the query has its class, else it is dropped.
    So "concrete barrier" of which "concrete" is weak means "barrier", if that is a prompt too.

    Args:
        logits: Of every query for every token; columns beyond the caption are not looked at.
        ids: Of the caption, with [CLS] and [SEP].
        decode: As the tokenizer of `ids` does it.
        prompts: The first of equal texts counts.
        thresholds: What scores have to exceed.

    Raises:
        InputError: The caption has more tokens than the answer has columns.
    """
    if len(ids) > logits.shape[1]:
        raise InputError(
            f"the caption has {len(ids)} tokens and the detector answered for {logits.shape[1]}; "
            "ask for fewer prompts"
        )
    token_scores = logits[:, : len(ids)].sigmoid()
    scores = token_scores.amax(dim=1)
    best = (token_scores == scores[:, None]).to(torch.uint8).argmax(dim=1)  # the first of equals
    queries = (scores > thresholds.box).nonzero()[:, 0]
    segments, is_separator = _segments(ids)
    told = segments == segments[best[queries], None]
    told &= (token_scores[queries] > thresholds.text) & ~is_separator
    labels = _labels_of(told, ids, decode, prompts)
    known = labels >= 0
    return LabelledQueries(queries[known], scores[queries][known], labels[known])


def _segments(ids: Int[Tensor, " T"]) -> tuple[Int[Tensor, " T"], Bool[Tensor, " T"]]:
    """Count the separators before each token; say which tokens are separators."""
    is_separator = torch.isin(ids, ids.new_tensor(SEPARATORS))
    return is_separator.cumsum(0) - is_separator.long(), is_separator


def _labels_of(
    told: Bool[Tensor, "K T"], ids: Int[Tensor, " T"], decode: Decode, prompts: PromptTable
) -> Int[Tensor, " K"]:
    """Return the class of the prompt that each row of tokens spells, -1 where it spells none."""
    if not len(told):
        return ids.new_zeros(0)
    distinct, row = told.unique(dim=0, return_inverse=True)
    label_of_text: dict[str, int] = {}
    for text, label in zip(prompts.texts, prompts.labels, strict=True):
        label_of_text.setdefault(plain_text(text), label)
    phrases = [decode(ids[chosen].tolist()) for chosen in distinct]
    found = [label_of_text.get(phrase.replace(FULL_STOP, "").strip(), -1) for phrase in phrases]
    return ids.new_tensor(found)[row]
