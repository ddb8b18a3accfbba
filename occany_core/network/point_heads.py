# SPDX-License-Identifier: Apache-2.0
"""Features -> seven raw channels per pixel: points in two frames, and confidence (spec 7).

`B` is any batch of views, `N` = h x w patch tokens, `D` decoder width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.config import NetworkConfig
from occany_core.network.convolutions import ResidualConv, doubled
from occany_core.network.encoder import STEM_WIDTHS
from occany_core.network.known_cameras import KnownCameras, SightEmbedding

POINT_CHANNELS = 7
"""World x, y, z; camera x, y, z; confidence logit."""
KNOWN_CHANNELS = 7
"""Of known cameras: what `KnownCameras.place` takes; confidence logit."""
OTHER_RANGE = POINT_CHANNELS + 4
"""Among both, known cameras after unknown ones: the range of what is not ground, which jumps where
one thing ends before another."""


def pixel_shuffle(
    patches: Float[Tensor, "B N values"], grid: tuple[int, int], patch_size: int
) -> Float[Tensor, "B channels H W"]:
    """Spread each token over its patch: value c*p*p + dy*p + dx is channel c at (dy, dx)."""
    maps = patches.transpose(1, 2).unflatten(2, grid)
    return F.pixel_shuffle(maps, patch_size)


class LinearPointHead(nn.Module):
    """One affine map per patch."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = nn.Linear(config.decoder.width, POINT_CHANNELS * config.patch_size**2)

    def forward(
        self,
        features: Float[Tensor, "B N D"],
        grid: tuple[int, int],
        finer: list[Tensor],
        cameras: KnownCameras | None = None,
    ) -> Float[Tensor, "B 7 H W"]:
        del finer, cameras
        return pixel_shuffle(self.proj(features), grid, self.patch_size)


class ConvolutionalPointHead(nn.Module):
    """Up-sample features to 1/4 resolution and add them to a mean-scene prior.

    The prior is a map of mean log-points over the pixel coordinates of
    `encoder.pixel_coordinates`, so that it fits pictures of any size and aspect. Where the stem
    offers finer maps of the picture they are merged in; novel views have none. Where cameras are
    known (`KnownCameras`) points stay on their rays, and the level ground is the prior.
    """

    PRIOR_ROWS, PRIOR_COLUMNS = 20, 36

    def __init__(self, config: NetworkConfig, *, has_picture: bool) -> None:
        super().__init__()
        quarter, eighth = STEM_WIDTHS
        self.to_eighth = nn.Conv2d(config.decoder.width, eighth, 1)
        self.refine_eighth = nn.Sequential(ResidualConv(eighth), ResidualConv(eighth))
        self.to_quarter = nn.Conv2d(eighth, quarter, 1)
        self.refine_quarter = nn.Sequential(ResidualConv(quarter), ResidualConv(quarter))
        self.out = nn.Conv2d(quarter, POINT_CHANNELS, 1)
        self.known_out = nn.Conv2d(quarter, KNOWN_CHANNELS, 1) if config.calibration else None
        for out in filter(None, (self.out, self.known_out)):
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
        self.has_picture = has_picture
        self.sight = SightEmbedding(quarter) if config.calibration and not has_picture else None
        self.register_buffer("prior", torch.zeros(1, 7, self.PRIOR_ROWS, self.PRIOR_COLUMNS))

    def prior_for(self, height: int, width: int) -> Float[Tensor, "1 7 height width"]:
        """Sample the prior at the centres of a `height` x `width` map of the picture."""
        half = width / 2
        x = (torch.arange(width, device=self.prior.device) + 0.5 - half) / half
        y = (torch.arange(height, device=self.prior.device) + 0.5 - height / 2) / half
        y = y * (self.PRIOR_COLUMNS / self.PRIOR_ROWS)
        where = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
        return F.grid_sample(self.prior, where[None], padding_mode="border", align_corners=False)

    def quarter(
        self,
        features: Float[Tensor, "B N D"],
        grid: tuple[int, int],
        finer: list[Tensor],
        cameras: KnownCameras | None = None,
    ) -> Float[Tensor, "B 7 h4 w4"]:
        """Predict at 1/4 resolution; training compares here."""
        return self._placed(self._changes(features, grid, finer, cameras), cameras, block=4)

    def forward(
        self,
        features: Float[Tensor, "B N D"],
        grid: tuple[int, int],
        finer: list[Tensor],
        cameras: KnownCameras | None = None,
    ) -> Float[Tensor, "B 7 H W"]:
        changes = self._changes(features, grid, finer, cameras)
        full = F.interpolate(changes, scale_factor=4, mode="bilinear", align_corners=False)
        if changes.shape[1] > POINT_CHANNELS:  # the air between two things holds nothing
            other = F.interpolate(changes[:, OTHER_RANGE, None], scale_factor=4)
            full[:, OTHER_RANGE] = other[:, 0]
        return self._placed(full, cameras, block=1)

    def _changes(
        self,
        features: Float[Tensor, "B N D"],
        grid: tuple[int, int],
        finer: list[Tensor],
        cameras: KnownCameras | None,
    ) -> Float[Tensor, "B channels h4 w4"]:
        """Return what is to be added to the priors: of unknown cameras, then of known ones."""
        x = features.transpose(1, 2).unflatten(2, grid)
        quarter, eighth = finer if self.has_picture else (0.0, 0.0)
        x = self.refine_eighth(doubled(self.to_eighth(x)) + eighth)
        x = doubled(self.to_quarter(x)) + quarter
        if self.sight is not None and cameras is not None:
            x = x + self.sight(cameras, x.shape[-2:], block=4)
        x = self.refine_quarter(x)
        if self.known_out is None or cameras is None:
            return self.out(x)
        return torch.cat((self.out(x), self.known_out(x)), dim=1)

    def _placed(
        self, changes: Float[Tensor, "B channels h w"], cameras: KnownCameras | None, block: int
    ) -> Float[Tensor, "B 7 h w"]:
        """Add the priors."""
        prior = self.prior_for(*changes.shape[-2:])
        guessed = changes[:, :POINT_CHANNELS] + prior
        if changes.shape[1] == POINT_CHANNELS:
            return guessed
        said = changes[:, POINT_CHANNELS:]
        placed = cameras.place(said[:, :-1], block)
        known = cameras.is_known.flatten()[:, None, None, None]
        return torch.where(known, torch.cat((placed, said[:, -1:]), dim=1), guessed)

    @torch.no_grad()
    def shift_confidence(self, logit: float) -> None:
        """Add to the confidence logits of every prediction."""
        self.prior[:, -1] += logit
        if self.known_out is not None:
            self.known_out.bias[-1] += logit
