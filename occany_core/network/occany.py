# SPDX-License-Identifier: Apache-2.0
"""OccAnyNetwork: the parts assembled; no arithmetic of its own.

Images -> `encode` -> Tokens -> `update_memory` -> SceneMemory -> `render` -> RawMaps; projected
points -> `tokenize` -> `render_novel` -> RawMaps. Stateless apart from the weights. `B` scenes,
`V` views, `H W` pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.config import SEGMENTATION_LEVELS, NetworkConfig
from occany_core.network.decoder import Decoder
from occany_core.network.encoder import Encoder
from occany_core.network.heads import Heads, RawMaps
from occany_core.network.known_cameras import KnownCameras
from occany_core.network.memory import SceneMemory
from occany_core.network.novel_view_encoder import NovelViewEncoder
from occany_core.network.prompt_decoder import ClassProbe, PromptDecoder

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
    cameras: KnownCameras | None = None
    """Of the views, in networks that are told."""

    def views(self, picked: slice) -> "Tokens":
        """Return the tokens of some views."""
        return Tokens(
            self.tokens[:, picked],
            tuple(f[:, picked] for f in self.finer),
            self.grid,
            self.cameras and self.cameras.views(picked),
        )

    @staticmethod
    def joined(parts: "list[Tokens]") -> "Tokens":
        """Concatenate along views."""
        finer = zip(*(part.finer for part in parts), strict=True)
        return Tokens(
            torch.cat([part.tokens for part in parts], dim=1),
            tuple(torch.cat(maps, dim=1) for maps in finer),
            parts[0].grid,
            parts[0].cameras and KnownCameras.joined([part.cameras for part in parts]),
        )


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
        if config.prompt_classes is not None:
            self.prompt_decoder = PromptDecoder(config.segmentation_dims)
            self.class_probe = ClassProbe(config.segmentation_dims, config.prompt_classes)

    def encode(
        self, images: Float[Tensor, "B V 3 H W"], cameras: KnownCameras | None = None
    ) -> Tokens:
        """Encode prepared pictures; views are independent.

        Args:
            images: Values in [-1, 1].
            cameras: Of the views; None where nothing is known. Networks without
                `config.calibration` do not look at it.
        """
        batch, views, _, height, width = images.shape
        if not self.config.calibration:
            cameras = None
        elif cameras is None:
            cameras = KnownCameras.unknown(batch, views, images.device)
        tokens, finer = self.encoder(images.flatten(0, 1), cameras)
        patch = self.config.patch_size
        return Tokens(
            tokens.unflatten(0, (batch, views)),
            tuple(f.unflatten(0, (batch, views)) for f in finer),
            (height // patch, width // patch),
            cameras,
        )

    def update_memory(self, tokens: Tokens, memory: SceneMemory | None = None) -> SceneMemory:
        """Write views into the memory, the first two together, then one at a time."""
        memory = self._memory_for(tokens) if memory is None else memory
        for group in _groups(tokens, is_first=memory.num_tokens == 0):
            memory = self.decoder.update(group, tokens.grid, memory)
        return memory

    def update_memory_online(
        self, tokens: Tokens, memory: SceneMemory | None = None
    ) -> tuple[SceneMemory, Float[Tensor, "B V T D"]]:
        """Do what `update_memory` does, and also return what the decoder saw meanwhile.

        Returns:
            The grown memory, and the online features, which training supervises and inference
            does not need.
        """
        memory = self._memory_for(tokens) if memory is None else memory
        online = []
        for group in _groups(tokens, is_first=memory.num_tokens == 0):
            features, memory = self.decoder.update_online(group, tokens.grid, memory)
            online.append(features)
        return memory, torch.cat(online, dim=1)

    def _memory_for(self, tokens: Tokens) -> SceneMemory:
        views, patches = tokens.tokens.shape[1:3]
        return SceneMemory(capacity=views * (patches + 1))

    def render(
        self, tokens: Tokens, memory: SceneMemory, *, with_segmentation: bool = True
    ) -> RawMaps:
        """Decode observed views against the finished memory: the reconstruction."""
        features = self.decoder.render(tokens.tokens, tokens.grid, memory)
        return self.decode_online(tokens, features, with_segmentation=with_segmentation)

    def decode_online(
        self,
        tokens: Tokens,
        features: Float[Tensor, "B V T D"],
        *,
        with_segmentation: bool = True,
    ) -> RawMaps:
        """Run the heads on decoder features of observed views."""
        return self.heads.maps(
            features, tokens.grid, tokens.finer, with_segmentation, tokens.cameras
        )

    def conditioning(
        self, levels: tuple[Float[Tensor, "B V C s s"], ...]
    ) -> tuple[Float[Tensor, "B V C s s"], ...]:
        """Return those of the promptable levels that points carry into novel views."""
        named = zip(SEGMENTATION_LEVELS, levels, strict=False)
        return tuple(level for name, level in named if name in self.config.conditioning_levels)

    def tokenize(self, projected: Float[Tensor, "B V C H W"]) -> Float[Tensor, "B V N E"]:
        """Turn projected points of novel views into tokens; views are independent (spec 11.3)."""
        tokens = self.novel_view_encoder.tokenize(projected.flatten(0, 1))
        return tokens.unflatten(0, projected.shape[:2])

    def render_novel(
        self,
        tokens: Float[Tensor, "B V N E"],
        observed: Tokens,
        memory: SceneMemory,
        cameras: KnownCameras | None = None,
        *,
        with_segmentation: bool = True,
    ) -> RawMaps:
        """Render novel views from their tokens and the observed views' memory (spec 11).

        Args:
            tokens: From `tokenize`.
            observed: The observed views.
            memory: Of them.
            cameras: Of the novel views; None where the observed ones are not known.
            with_segmentation: Whether the promptable levels are wanted.
        """
        if not self.config.calibration:
            cameras = None
        encoded = self.novel_view_encoder(tokens, observed.grid, observed.tokens)
        features = self.novel_view_decoder.render(encoded, observed.grid, memory)
        return self.novel_view_heads.maps(features, observed.grid, (), with_segmentation, cameras)


def _groups(tokens: Tokens, *, is_first: bool) -> Iterator[Float[Tensor, "B V N D"]]:
    """Yield the views that are written together."""
    start = 0
    while start < tokens.tokens.shape[1]:
        end = start + (FIRST_GROUP if is_first and start == 0 else 1)
        yield tokens.tokens[:, start:end]
        start = end
