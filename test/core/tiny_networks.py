# SPDX-License-Identifier: Apache-2.0
"""Networks small enough for a test, with random weights from a fixed seed."""

import torch

from occany_core.network import NetworkConfig, OccAnyNetwork, TransformerDims


def tiny_config(stem: str) -> NetworkConfig:
    """Two layers, width 32, pictures 48 px wide; `patch` has all parts of the released network."""
    dims = TransformerDims(width=32, depth=2, heads=2)
    if stem == "patch":
        return NetworkConfig(
            encoder=dims,
            decoder=dims,
            novel_view_encoder=TransformerDims(width=32, depth=0, heads=2),
            modality_width=8,
            segmentation_dims=(16, 8, 4),
            segmentation_size=64,
            picture_width=48,
        )
    return NetworkConfig(
        encoder=dims,
        decoder=dims,
        novel_view_encoder=TransformerDims(width=32, depth=1, heads=2),
        modality_width=8,
        stem="convolutional",
        point_head="convolutional",
        point_activation="norm_exp",
        segmentation_dims=None,
        rgb_head=False,
        picture_width=48,
    )


def random_network(config: NetworkConfig) -> OccAnyNetwork:
    """A network without a single weight at zero, so that each part has a say."""
    generator = torch.Generator().manual_seed(7)
    network = OccAnyNetwork(config)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            width = tensor.shape[1] if tensor.dim() > 1 else 100
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * width**-0.5)
        for name, tensor in network.named_parameters():
            if "norm" in name and name.endswith("weight"):
                tensor.add_(1)
    return network.eval()
