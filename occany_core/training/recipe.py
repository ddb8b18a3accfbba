# SPDX-License-Identifier: Apache-2.0
"""What a training run is: everything that decides what it computes, apart from the data.

Recipes differ in these values only; `recipes.py` holds the named ones.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from occany_core.errors import ConfigError
from occany_core.network import NetworkConfig
from occany_core.training.mask_losses import MaskLossSettings
from occany_core.training.prompts import PromptSettings

Kind = Literal["single", "sequence", "surround"]
KINDS = ("single", "sequence", "surround")
STREETS = "streets"


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One kind of batch and how often it is drawn."""

    kind: Kind
    """single: any camera alone; sequence: the front camera over time; surround: a whole rig."""
    views: tuple[int, int] = (1, 1)
    """Fewest and most views of a sequence, those that are held out included; the other kinds have
    their own number."""
    weight: float = 1.0
    """Relative frequency."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if not 1 <= self.views[0] <= self.views[1] or self.weight < 0:
            raise ConfigError(
                f"views {self.views} must be at least 1, fewest first, and weight {self.weight} "
                "not negative"
            )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one mixture of batches."""

    until: float = 1.0
    """Ends at this share of the stage."""
    draws: tuple[Draw, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Reconstruction, or novel-view rendering with the reconstruction frozen (paper 3)."""

    name: str
    minutes: float = 0.0
    """Length in time, where `steps` is 0."""
    steps: int = 0
    """Length in optimiser steps, whatever `minutes` says; 0 goes by time."""
    peak_rate: float
    """Learning rate after the warm-up."""
    phases: tuple[Phase, ...]
    novel: Literal["none", "nearby", "held_out"] = "none"
    """none trains reconstruction. The others render views of the same scenes: places near the
    cameras, of which only depth is known, or some of the photographed views themselves."""
    num_novel: int = 6
    """Rendered views per scene, where `novel` is nearby."""
    held_out: float = 0.5
    """Probability of a view to be held out, where `novel` is held_out."""
    trained: tuple[str, ...]
    """Parameters that learn, by the start of their name."""
    frozen: tuple[str, ...] = ()
    """Exceptions from `trained`."""

    def __post_init__(self) -> None:
        if min(self.minutes, self.steps) < 0 or not (self.minutes or self.steps):
            raise ConfigError(
                f"stage {self.name}: minutes is {self.minutes} and steps {self.steps}; one of "
                "them must be above 0, and none below"
            )
        if not self.phases or self.phases[-1].until < 1:
            raise ConfigError(f"stage {self.name}: the last phase must reach until = 1")

    @property
    def renders(self) -> bool:
        """Whether novel views are trained."""
        return self.novel != "none"

    def trains(self, name: str) -> bool:
        """Whether the stage says of a parameter that it learns."""
        return name.startswith(self.trained) and not name.startswith(self.frozen)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised: weights of the terms, 0 leaves a term out."""

    space: Literal["log", "metric"] = "metric"
    """log compares direction times log1p of the range, for training from scratch with `norm_exp`
    points; metric is the published loss, relative to the size of the scene."""
    alpha: float = 0.2
    """Weight of log C: the error at which the best confidence is 1."""
    reference: float = 1.0
    """Points in the frame of the first view."""
    rig_reference: float = 1.0
    """The same for the views of a rig, which may share little of what they see."""
    local: float = 1.0
    """Points in each view's own frame."""
    plain: float = 0.0
    """Errors without confidence, which keep pulling where the confidence gave up."""
    sky: float = 0.0
    """Confidence of pixels without a surface falls."""
    pose: float = 1.0
    ground: float = 0.0
    """Tilt of the ground that known cameras see; needs `network.calibration`."""
    forcing: float = 1.0
    """Segmentation Forcing, in stages that train segmentation heads; needs a teacher."""
    teacher: str = ""
    """streets reads the features off what rendered streets show; anything else is a folder
    with SAM2's weights. Empty where none is chosen yet."""
    masks: MaskLossSettings = field(default_factory=MaskLossSettings)
    """Of the prompt decoder and the class probe, in stages that train them."""
    prompts: PromptSettings = field(default_factory=PromptSettings)
    """What the prompt decoder is asked in training."""
    distillation: float = 0.0
    """`L_enc` of held-out views."""
    both_passes: bool = True
    """Compare what the decoder sees while it writes the memory as well as afterwards."""
    forcing_weighting: Literal["plain", "normalised", "none"] = "plain"
    """How the confidence of the geometry weighs forcing, see `ForcingSettings`."""

    def __post_init__(self) -> None:
        if self.space not in ("log", "metric"):
            raise ConfigError(f"objective.space is {self.space!r}; it must be log or metric")


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW, its schedule, and the average of the weights."""

    lowest_rate: float = 1e-6
    warmup: float = 0.03
    """Share of a stage in which the rate rises from 0."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 0.0
    """Largest norm of all gradients; 0 does not clip."""
    average: float = 0.0
    """Decay per step of the averaged weights, which are the result; 0 keeps no average."""
    accumulation: int = 1
    """Batches per step."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run."""

    name: str
    network: NetworkConfig
    picture: tuple[int, int]
    """Height and width of training pictures [px]."""
    views_per_step: int
    """Views of one batch of one process; scenes are as many as fit."""
    stages: tuple[Stage, ...]
    objective: Objective = field(default_factory=Objective)
    optimiser: Optimiser = field(default_factory=Optimiser)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What encoder and decoder compute in; heads, geometry and losses are float32. auto is
    bfloat16 on a GPU, and float32 on a CPU, where few are faster otherwise."""
    compile: bool = False
    """torch.compile the blocks of encoder and decoder."""
    calibrated: float = 0.5
    """Share of batches of single views and sequences whose cameras count as known, see
    `Batch.is_calibrated`; those of rigs always do."""
    tilt: float = 0.0
    """Spread of the roll and pitch by which the rig that a network is told of is off, the same for
    all views of a scene [deg]. Springs and mountings give; a network that is told no more than
    they do learns little of it."""
    most_depth: float = 80.0
    """Surfaces farther away are not compared [m]."""
    reuse: float = 6.0
    """How often each view is used before it makes room for a new one."""
    most_errors: int = 50
    """Bad samples and steps without a finite gradient that a run passes over."""
    seed: int = 0

    def __post_init__(self) -> None:
        patch = self.network.patch_size
        if any(side < patch or side % patch for side in self.picture):
            raise ConfigError(
                f"picture is {self.picture}; both sides must be multiples of {patch}"
            )
        if self.views_per_step < 1 or self.optimiser.accumulation < 1 or not self.stages:
            raise ConfigError(
                f"views_per_step is {self.views_per_step} and accumulation "
                f"{self.optimiser.accumulation}; both must be at least 1, with one stage or more"
            )

    def forces(self, stage: Stage) -> bool:
        """Whether a stage compares features with a teacher's; nearby views have no picture."""
        heads = "novel_view_heads" if stage.renders else "heads"
        trains = stage.trains(f"{heads}.segmentation.")
        return self.objective.forcing > 0 and stage.novel != "nearby" and trains

    def asked(self, stage: Stage) -> MaskLossSettings:
        """Return the mask losses of a stage, without weight for what it does not train."""
        can_ask = self.network.prompt_classes is not None and not stage.renders
        masks = self.objective.masks
        if not (can_ask and stage.trains("prompt_decoder.")):
            masks = replace(masks, focal=0.0, dice=0.0, quality=0.0)
        return masks if can_ask and stage.trains("class_probe.") else replace(masks, classes=0.0)

    def needs_teacher(self, stage: Stage) -> bool:
        """Whether a stage needs features to aim at or to be prompted on."""
        return self.forces(stage) or self.asked(stage).has_any

    @property
    def needs_labels(self) -> bool:
        """Whether training needs to know what the pictures show."""
        is_read_off = self.objective.teacher == STREETS
        return any(
            self.asked(stage).has_any or (is_read_off and self.forces(stage))
            for stage in self.stages
        )

    @property
    def block(self) -> int:
        """Side of the pixel blocks that have one depth each [px].

        The convolutional head predicts once per 4 x 4 block; the linear one at every pixel.
        """
        return 4 if self.network.point_head == "convolutional" else 1
