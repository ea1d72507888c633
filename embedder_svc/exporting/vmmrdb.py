"""The ResNet-50 of VMMRdb, without its classifier.

Tafazzoli et al., "A Large and Diverse Dataset for Improved Vehicle Make and Model Recognition", CVPR-W 2017; the layout is
that of the Torch 7 conversion used by the blog "Building a Car Model Classifier". It isn't torchvision's network under other
names: convolutions have biases, the shortcut has no batch norm, and a block is normalised once, after the addition:
relu(norm(branch(x) + shortcut(x))). Strides are on the 3x3 convolutions.
"""

from collections import OrderedDict

from torch import Tensor, nn

CLASSIFIER = "10."
"""Prefix of the classifier's parameters in a full checkpoint."""

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first block


class VmmrdbResNet50(nn.Sequential):
    """Maps normalised photos (N, 3, H, W) to mean-pooled features (N, 2048), not of unit length."""

    def __init__(self) -> None:
        stem = (nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        inputs = (64, *(4 * width for width, _, _ in _STAGES))
        stages = (_stage(before, *stage) for before, stage in zip(inputs, _STAGES, strict=False))
        super().__init__(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _SumOfBranches(nn.Sequential):
    """Applies its two children to the same input and adds the results, as Torch 7's ConcatTable and CAddTable do."""

    def forward(self, features: Tensor) -> Tensor:
        branch, shortcut = self
        out: Tensor = branch(features) + shortcut(features)
        return out


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    others = (_block(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(_block(inputs, width, stride), *others)


def _block(inputs: int, width: int, stride: int) -> nn.Sequential:
    outputs = 4 * width
    branch = nn.Sequential(
        nn.Conv2d(inputs, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, outputs, 1),
    )
    shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)
    # The addition is number 1 in the checkpoint.
    numbered = {"0": _SumOfBranches(branch, shortcut), "2": nn.BatchNorm2d(outputs), "3": nn.ReLU()}
    return nn.Sequential(OrderedDict(numbered))
