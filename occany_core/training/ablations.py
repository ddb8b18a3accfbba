# SPDX-License-Identifier: Apache-2.0
"""What the parts of the method are worth: a recipe with one thing changed each (paper Tab. 6).

A variant is a list of overrides, so that it can be trained by hand as well: `occany train RECIPE
--set ...`.
"""

from dataclasses import dataclass

from occany_core.training.recipe import Recipe

FULL = "full"
HELD_OUT = "held_out_views"
SHORTEST, LONGEST = 2, 5
"""Views of the sequences that stand in for single pictures, of which none can be held out."""


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    """Of its folder, too."""
    title: str
    changes: tuple[str, ...]
    """Overrides of the recipe."""
    against: str = FULL
    """The variant from which it differs in one thing."""
    weights_of: str | None = None
    """The variant whose weights it uses; None trains its own."""
    no_difference: str = ""
    """Why it cannot differ in this recipe; such a variant is not trained."""


def variants(recipe: Recipe) -> list[Variant]:
    """Return the rows for a recipe, each after the one that it is compared with.

    Encoder distillation needs pictures of the views that are rendered. Where the recipe renders
    places that nobody photographed, it is judged on a pair that holds photographed views out. A
    run with another seed shows which differences mean something.
    """
    pair, reference = [], FULL
    held_out = _held_out(recipe)
    if held_out or recipe.objective.distillation == 0:
        reference = HELD_OUT
        distils = f"objective.distillation={recipe.objective.distillation or 1.0}"
        pair = [Variant(HELD_OUT, "held-out views, distilled", (*held_out, distils))]
    return [
        Variant(FULL, "full", ()),
        Variant("other_seed", "full, another seed", (f"seed={recipe.seed + 1}",)),
        Variant("no_rendered_views", "without rendered views", (), weights_of=FULL),
        Variant(
            "no_forcing",
            "without forcing",
            ("objective.forcing=0",),
            no_difference=_without_forcing(recipe),
        ),
        Variant(
            "no_geometry_weighting",
            "without geometry weighting",
            ("objective.forcing_weighting=none",),
            no_difference=_without_forcing(recipe),
        ),
        Variant("no_task_tokens", "without task tokens", ("network.task_tokens=false",)),
        *pair,
        Variant(
            "no_distillation",
            "held-out views, not distilled" if pair else "without distillation",
            (*held_out, "objective.distillation=0"),
            against=reference,
        ),
    ]


def with_minutes(recipe: Recipe, minutes: float) -> tuple[str, ...]:
    """Return the overrides that give a run a length, which its stages share as before."""
    lengths = [stage.steps for stage in recipe.stages]
    if not all(lengths):
        lengths = [stage.minutes for stage in recipe.stages]
    changes = []
    for index, length in enumerate(lengths):
        share = minutes * length / sum(lengths)
        changes += [f"stages.{index}.minutes={share:.4g}", f"stages.{index}.steps=0"]
    return tuple(changes)


def _without_forcing(recipe: Recipe) -> str:
    return "objective.forcing is 0 in this recipe" if recipe.objective.forcing == 0 else ""


def _held_out(recipe: Recipe) -> tuple[str, ...]:
    """Return the overrides with which photographed views are held out and rendered."""
    changes = []
    for index, stage in enumerate(recipe.stages):
        if stage.novel != "nearby":
            continue
        changes.append(f"stages.{index}.novel=held_out")
        for place, phase in enumerate(stage.phases):
            for row, draw in enumerate(phase.draws):
                if draw.kind == "single":
                    path = f"stages.{index}.phases.{place}.draws.{row}"
                    changes += [f"{path}.kind=sequence", f"{path}.views=[{SHORTEST}, {LONGEST}]"]
    return tuple(changes)
