"""ResNet-50 without its classifier, in torch alone, with torchvision's parameter names.

He et al., "Deep Residual Learning for Image Recognition", 2015 (v1). v1.5 is the variant of torchvision and NVIDIA: the stride
of a down-sampling block is on its 3x3 convolution instead of on its first 1x1. The two share parameter names and shapes, and
weights of one loaded into the other give quietly worse features: the variant travels with the weights.
"""

from typing import Literal

import torch
from torch import Tensor, nn

StrideIn = Literal["v1", "v1.5"]

FEATURES = 2048
"""Features of a photo: the channels of the last stage."""
PROJECTION = "projection.weight"
"""The name of the parameter that only a network with a projection has."""
_EXPANSION = 4
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first block


class Bottleneck(nn.Module):
    """Three convolutions, 1x1 that reduces, 3x3, and 1x1 that expands, added to a shortcut.

    Maps (N, inputs, H, W) to (N, 4 * width, H / stride, W / stride).
    """

    def __init__(self, inputs: int, width: int, stride: int, *, stride_in: StrideIn, eps: float) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        first, second = (stride, 1) if stride_in == "v1" else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=eps)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=eps)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=eps)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs, eps=eps))

    def forward(self, features: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu_(out + self.downsample(features))


class ResNet50(nn.Module):
    """Maps normalised photos (N, 3, H, W) to mean-pooled features (N, 2048), or to (N, dimension) if they are projected.

    Neither has unit length. `stride_in` and `eps` (of the batch norms) belong to the weights: "v1.5" and 1e-5 for torchvision's.
    """

    def __init__(self, *, stride_in: StrideIn = "v1.5", eps: float = 1e-5, dimension: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=eps)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, (width, blocks, stride) in enumerate(_STAGES, start=1):
            stage = [Bottleneck(inputs, width, stride, stride_in=stride_in, eps=eps)]
            inputs = width * _EXPANSION
            stage += [Bottleneck(inputs, width, 1, stride_in=stride_in, eps=eps) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.projection = nn.Linear(FEATURES, dimension, bias=False) if dimension else nn.Identity()

    @property
    def dimension(self) -> int:
        """Floats in one embedding."""
        return self.projection.out_features if isinstance(self.projection, nn.Linear) else FEATURES

    def project(self, dimension: int, seed: int) -> None:
        """Add a projection of the features to `dimension` directions: orthogonal ones, drawn by the seed, that can be trained."""
        self.projection = nn.Linear(FEATURES, dimension, bias=False)
        nn.init.orthogonal_(self.projection.weight, generator=torch.Generator().manual_seed(seed))

    def forward(self, photos: Tensor) -> Tensor:
        features: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(photos))))
        for number in range(1, len(_STAGES) + 1):
            features = self.get_submodule(f"layer{number}")(features)
        embeddings: Tensor = self.projection(features.mean(dim=(2, 3)))
        return embeddings
