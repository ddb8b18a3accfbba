# SPDX-License-Identifier: Apache-2.0
"""Architecture of a network: one dataclass for the shipped tiny model and the released 651 M."""

import dataclasses
from dataclasses import dataclass, field

from occany_core.errors import ConfigError

SEGMENTATION_LEVELS = ("coarse", "middle", "fine")


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerDims:
    """Size of one stack of transformer blocks."""

    width: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 0 or self.heads < 1:
            raise ConfigError(
                f"width {self.width}, depth {self.depth} and heads {self.heads}: none may be "
                "negative, and only the depth may be 0"
            )
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise ConfigError(
                f"width {self.width} over {self.heads} heads gives "
                f"{self.width / self.heads} per head; "
                "rotary embedding needs a multiple of 4"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Everything that fixes the shapes and the function of `OccAnyNetwork`.

    The defaults are the released configuration (`docs/parity.md`); `tiny()` is the shipped one.
    """

    encoder: TransformerDims = field(default=TransformerDims(width=1024, depth=24, heads=16))
    decoder: TransformerDims = field(default=TransformerDims(width=768, depth=12, heads=12))
    novel_view_encoder: TransformerDims | None = field(
        default=TransformerDims(width=768, depth=0, heads=16)
    )
    """Depth 0 reproduces the released function (its blocks are dead); None has no rendering
    stage."""
    modality_width: int = 256
    """Tokenizer channels per modality of the projected points."""
    patch_size: int = 16
    stem: str = "patch"
    """patch: one strided convolution; convolutional: four small stages, for training from
    scratch."""
    point_head: str = "linear"
    """linear: one map per patch; convolutional: up-sampler with a mean-scene prior, and promptable
    features from finer maps as well."""
    point_activation: str = "linear"
    """linear, or norm_exp (direction times expm1 of the length)."""
    segmentation_dims: tuple[int, int, int] | None = (256, 64, 32)
    """Channels of the coarse, middle and fine promptable features; None has no such head."""
    segmentation_size: int = 512
    """Side of the square picture these features describe [px]; the coarse grid has 1/16 of it."""
    conditioning_levels: tuple[str, ...] = SEGMENTATION_LEVELS
    """The levels that points carry into novel views; each costs time and memory there."""
    prompt_classes: int | None = None
    """Classes that a probe of the fine features tells apart; with it comes a decoder of masks from
    prompts (`prompt_decoder.py`). None has neither: such features are for SAM2's own decoder."""
    task_tokens: bool = True
    """Whether a learnt token is added to the features before each head but that of poses. Heads
    begin with an affine layer that has a bias, so without tokens the same functions can be learnt;
    what changes is how they are learnt."""
    rgb_head: bool = True
    """The released files carry a colour head that inference never evaluates."""
    calibration: bool = False
    """Whether the network is told what is known of the cameras (`known_cameras.py`)."""
    picture_width: int = 512
    """Long side of the pictures the weights were trained for [px]."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("stem", self.stem, ("patch", "convolutional")),
            ("point_head", self.point_head, ("linear", "convolutional")),
            ("point_activation", self.point_activation, ("linear", "norm_exp")),
        ):
            if value not in known:
                raise ConfigError(
                    f"network {name} is {value!r}; it must be one of {', '.join(known)}"
                )
        if self.calibration and (self.stem, self.point_head) != ("convolutional",) * 2:
            raise ConfigError(
                "network calibration needs stem and point_head to be convolutional; they are "
                f"{self.stem} and {self.point_head}"
            )
        if self.calibration and self.point_activation != "norm_exp":
            raise ConfigError(
                "network calibration needs point_activation to be norm_exp; it is "
                f"{self.point_activation}"
            )
        in_order = tuple(one for one in SEGMENTATION_LEVELS if one in self.conditioning_levels)
        if self.conditioning_levels != in_order:
            raise ConfigError(
                f"network conditioning_levels are {self.conditioning_levels}; give some of "
                f"{', '.join(SEGMENTATION_LEVELS)}, in this order"
            )
        if self.prompt_classes is not None and self.segmentation_dims is None:
            raise ConfigError(
                f"network prompt_classes is {self.prompt_classes}, but there are no features to "
                "prompt on; give segmentation_dims as well"
            )
        if self.prompt_classes is not None and self.segmentation_dims[0] % 8:
            raise ConfigError(
                f"network segmentation_dims are {self.segmentation_dims}; masks need a "
                "multiple of 8 for the first"
            )

    def to_dict(self) -> dict:
        """Return plain JSON data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> "NetworkConfig":
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: A key is unknown or missing.
        """
        values = dict(data)
        try:
            for name in ("encoder", "decoder", "novel_view_encoder"):
                if values.get(name) is not None:
                    values[name] = TransformerDims(**values[name])
            for name in ("segmentation_dims", "conditioning_levels"):
                if values.get(name) is not None:
                    values[name] = tuple(values[name])
            return cls(**values)
        except TypeError as error:
            raise ConfigError(
                f"the network description does not fit this version: {error}"
            ) from error


def tiny() -> NetworkConfig:
    """Return the architecture of the shipped default weights."""
    return NetworkConfig(
        encoder=TransformerDims(width=192, depth=5, heads=4),
        decoder=TransformerDims(width=192, depth=2, heads=4),
        novel_view_encoder=TransformerDims(width=192, depth=1, heads=4),
        modality_width=48,
        stem="convolutional",
        point_head="convolutional",
        point_activation="norm_exp",
        segmentation_dims=(128, 32, 16),
        segmentation_size=128,
        conditioning_levels=("fine",),
        prompt_classes=18,
        rgb_head=False,
        calibration=True,
        picture_width=192,
    )
