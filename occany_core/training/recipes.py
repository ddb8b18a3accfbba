# SPDX-License-Identifier: Apache-2.0
"""The named recipes: the shipped tiny weights, the released runs, and the paper's."""

import dataclasses
from collections.abc import Callable

from occany_core.network import NetworkConfig, TransformerDims
from occany_core.network import tiny as tiny_network
from occany_core.training.mask_losses import MaskLossSettings
from occany_core.training.prompts import PromptSettings
from occany_core.training.recipe import STREETS, Draw, Objective, Optimiser, Phase, Recipe, Stage

_SINGLE = Draw(kind="single")
_PAIR = Draw(kind="sequence", views=(2, 2), weight=0.35)
_SHORT = Draw(kind="sequence", views=(2, 5), weight=0.6)
_SURROUND = Draw(kind="surround", weight=0.6)

NOVEL_PARTS = ("novel_view_encoder.", "novel_view_decoder.", "novel_view_heads.")
POSE_IS_GIVEN = ("novel_view_heads.pose.",)
"""Of rendered views; their pose head has nothing to learn."""
SEGMENTATION_PARTS = ("heads.segmentation", "prompt_decoder.", "class_probe.")


def tiny() -> Recipe:
    """Return the recipe of the shipped weights: from scratch, single views first, then rigs.

    Prompt decoder and class probe learn on the finished reconstruction, and shape the promptable
    features; the rendering after it is conditioned on features that no longer change.
    """
    mixed = (_SINGLE, _SHORT, _SURROUND)
    return Recipe(
        name="tiny",
        network=tiny_network(),
        picture=(112, 192),
        views_per_step=192,
        stages=(
            Stage(
                name="reconstruction",
                minutes=16,
                peak_rate=5e-4,
                phases=(Phase(until=0.3, draws=(_SINGLE, _PAIR)), Phase(draws=mixed)),
                trained=("encoder.", "decoder.", "heads."),
            ),
            Stage(
                name="segmentation",
                minutes=3,
                peak_rate=2e-3,
                phases=(Phase(draws=mixed),),
                trained=SEGMENTATION_PARTS,
            ),
            Stage(
                name="rendering",
                minutes=8,
                peak_rate=5e-4,
                phases=(Phase(draws=mixed),),
                novel="nearby",
                trained=NOVEL_PARTS,
                frozen=POSE_IS_GIVEN,
            ),
        ),
        # Confidence settles at alpha / error. Where the error stays above alpha, as that of rigs
        # in the reference frame does for long, it sinks to 1 and does not come back.
        objective=Objective(
            space="log",
            alpha=1.0,
            rig_reference=0.1,
            plain=1.0,
            sky=1.0,
            pose=0.1,
            ground=1.0,
            forcing=0.1,
            teacher=STREETS,
            prompts=PromptSettings(number=4),
            masks=MaskLossSettings(shapes_features=True),
            both_passes=False,
        ),
        optimiser=Optimiser(lowest_rate=1e-5, clip=1.0, average=0.999),
        calibrated=0.7,
        tilt=0.5,
    )


_DECODER = ("decoder.", "heads.")


def released() -> Recipe:
    """Return the recipe of the released base weights (training page 1 to 4).

    The network is full-size. Sequences and rigs come as 29 to 16. 45 000 samples in 101 passes of
    batches of 64 are 71 000 steps a stage.
    """
    return Recipe(
        name="released",
        network=NetworkConfig(rgb_head=False),
        picture=(288, 512),
        views_per_step=16,
        stages=(
            Stage(
                name="reconstruction",
                steps=71_000,
                peak_rate=7e-5,
                phases=(
                    Phase(
                        draws=(
                            Draw(kind="sequence", views=(5, 10), weight=29),
                            Draw(kind="surround", weight=16),
                        )
                    ),
                ),
                trained=_DECODER,
            ),
            Stage(
                name="rendering",
                steps=71_000,
                peak_rate=7e-5,
                phases=(
                    Phase(
                        draws=(
                            Draw(kind="sequence", views=(5, 9), weight=29),
                            Draw(kind="surround", weight=16),
                        )
                    ),
                ),
                novel="held_out",
                trained=NOVEL_PARTS,
                frozen=POSE_IS_GIVEN,
            ),
        ),
        objective=Objective(distillation=1.0),
        optimiser=Optimiser(accumulation=2),
        most_depth=50.0,
    )


def paper() -> Recipe:
    """Return the paper's design: live blocks in the rendering encoder, sequences before rigs.

    Reconstruction sees sequences of 6 to 10 views first, then sequences and rigs 1 to 1; rendering
    sees sequences only.
    """
    recipe = released()
    sequence = Draw(kind="sequence", views=(6, 10))
    mixed = (sequence, Draw(kind="surround"))
    reconstruction, rendering = recipe.stages
    return dataclasses.replace(
        recipe,
        name="paper",
        network=NetworkConfig(
            rgb_head=False, novel_view_encoder=TransformerDims(width=768, depth=6, heads=16)
        ),
        stages=(
            dataclasses.replace(
                reconstruction,
                phases=(Phase(until=0.5, draws=(sequence,)), Phase(draws=mixed)),
            ),
            dataclasses.replace(rendering, phases=(Phase(draws=(sequence,)),)),
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"tiny": tiny, "released": released, "paper": paper}
