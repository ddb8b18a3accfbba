# SPDX-License-Identifier: Apache-2.0
"""OccAnyNetwork: the parts assembled; no arithmetic of its own.

Images -> `encode` -> Tokens -> `update_memory` -> SceneMemory -> `render` -> RawMaps; projected
points -> `render_novel` -> RawMaps. Stateless apart from the weights. `B` scenes, `V` views, `H W`
pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.config import NetworkConfig
from occany_core.network.decoder import Decoder
from occany_core.network.encoder import Encoder
from occany_core.network.heads import Heads, confidence_from_logit
from occany_core.network.memory import SceneMemory
from occany_core.network.novel_view_encoder import NovelViewEncoder

FIRST_GROUP = 2
"""Views that start a memory together; later ones are written one by one (spec 6.4)."""


@dataclass(frozen=True)
class Tokens:
    """What the encoder says about a batch of views."""

    tokens: Float[Tensor, "B V N D"]
    finer: tuple[Float[Tensor, "B V C h w"], ...]
    """Maps of the convolutional stem at 1/4 and 1/8 resolution; empty for the patch stem."""
    grid: tuple[int, int]
    """Patch rows and columns."""

    def views(self, picked: slice) -> "Tokens":
        """Return the tokens of some views."""
        return Tokens(self.tokens[:, picked], tuple(f[:, picked] for f in self.finer), self.grid)

    @staticmethod
    def joined(parts: "list[Tokens]") -> "Tokens":
        """Concatenate along views."""
        finer = zip(*(part.finer for part in parts), strict=True)
        return Tokens(
            torch.cat([part.tokens for part in parts], dim=1),
            tuple(torch.cat(maps, dim=1) for maps in finer),
            parts[0].grid,
        )


@dataclass(frozen=True)
class RawMaps:
    """What the decoder says about each pixel of a batch of views."""

    points_world: Float[Tensor, "B V H W 3"]
    """Metres, world = optical frame of the reference view."""
    points_cam: Float[Tensor, "B V H W 3"]
    """Metres, optical frame of the view."""
    confidence: Float[Tensor, "B V H W"]
    """In (1, inf)."""
    pose_encoding: Float[Tensor, "B V 7"]
    """Translation [m] and quaternion (real first) of world_from_cam; not used for fusion."""
    segmentation: tuple[Float[Tensor, "B V C s s"], ...]
    """Three promptable levels, or empty."""


class OccAnyNetwork(nn.Module):
    """The base network (paper 3, spec 1)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, writes_memory=True)
        self.heads = Heads(config, has_picture=True)
        self.renders_novel_views = config.novel_view_encoder is not None
        if self.renders_novel_views:
            self.novel_view_encoder = NovelViewEncoder(config)
            self.novel_view_decoder = Decoder(config, writes_memory=False)
            self.novel_view_heads = Heads(config, has_picture=False)

    def encode(self, images: Float[Tensor, "B V 3 H W"]) -> Tokens:
        """Encode prepared pictures; views are independent."""
        batch, views, _, height, width = images.shape
        tokens, finer = self.encoder(images.flatten(0, 1))
        patch = self.config.patch_size
        return Tokens(
            tokens.unflatten(0, (batch, views)),
            tuple(f.unflatten(0, (batch, views)) for f in finer),
            (height // patch, width // patch),
        )

    def update_memory(
        self, tokens: Tokens, memory: SceneMemory | None = None
    ) -> tuple[SceneMemory, Float[Tensor, "B V T D"]]:
        """Write views into the memory, the first two together, then one at a time.

        Returns:
            The grown memory, and the online features, which training supervises and inference
            ignores.
        """
        num_views = tokens.tokens.shape[1]
        start = 0
        online = []
        while start < num_views:
            size = FIRST_GROUP if memory is None else 1
            group = tokens.tokens[:, start : start + size]
            features, memory = self.decoder.update(group, tokens.grid, memory)
            online.append(features)
            start += group.shape[1]
        return memory, torch.cat(online, dim=1)

    def render(self, tokens: Tokens, memory: SceneMemory) -> RawMaps:
        """Decode observed views against the finished memory: the reconstruction."""
        return self.decode_online(tokens, self.decoder.render(tokens.tokens, tokens.grid, memory))

    def decode_online(self, tokens: Tokens, features: Float[Tensor, "B V T D"]) -> RawMaps:
        """Run the heads on decoder features of observed views."""
        return _run_heads(self.heads, features, tokens.grid, list(tokens.finer))

    def render_novel(
        self,
        projected: Float[Tensor, "B V C H W"],
        observed: Tokens,
        memory: SceneMemory,
    ) -> RawMaps:
        """Render novel views from projected points and the observed views' memory (spec 11)."""
        tokens = self.novel_view_encoder(projected, observed.tokens)
        features = self.novel_view_decoder.render(tokens, observed.grid, memory)
        return _run_heads(self.novel_view_heads, features, observed.grid, [])


def _run_heads(
    heads: Heads, features: Float[Tensor, "B V T D"], grid: tuple[int, int], finer: list[Tensor]
) -> RawMaps:
    sizes = features.shape[:2]
    flat = features.flatten(0, 1)
    raw = heads.raw_points(flat, grid, [f.flatten(0, 1) for f in finer])
    raw = raw.permute(0, 2, 3, 1).unflatten(0, sizes)  # (B, V, H, W, 7)
    return RawMaps(
        points_world=heads.activate(raw[..., 0:3]),
        points_cam=heads.activate(raw[..., 3:6]),
        confidence=confidence_from_logit(raw[..., 6]),
        pose_encoding=heads.pose_encoding(flat).unflatten(0, sizes),
        segmentation=tuple(
            level.unflatten(0, sizes) for level in heads.segmentation_levels(flat, grid)
        ),
    )
