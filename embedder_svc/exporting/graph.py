"""A headless network as the ONNX graph of a model bundle: from 8-bit photos to embeddings."""

import warnings

import onnx
import torch
from torch import Tensor, nn

from embedder_svc.exporting.traits import PixelNorm
from embedder_svc.exporting.whitening import Head

OPSET = 18
_MIN_LENGTH = 1e-12


class Embedder(nn.Module):
    """Maps photos (N, H, W, 3) uint8 RGB to embeddings (N, D) float32, of unit length if `normalize`.

    With `flip`, an embedding is the mean of those of a photo and its mirror image, taken before it gets unit length.
    """

    head: nn.Module
    """What the features pass before they get unit length: nothing, until it is replaced."""

    channels: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, network: nn.Module, pixels: PixelNorm, *, normalize: bool, flip: bool = False) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize
        self.flip = flip
        self.head = nn.Identity()
        self.register_buffer("channels", torch.tensor([2, 1, 0] if pixels.bgr else [0, 1, 2]))
        self.register_buffer("mean", torch.tensor(pixels.mean, dtype=torch.float64).div(pixels.scale).float())
        self.register_buffer(
            "factor", torch.tensor(pixels.std, dtype=torch.float64).reciprocal().mul(pixels.scale).float()
        )

    def forward(self, images: Tensor) -> Tensor:
        values = images.float().index_select(-1, self.channels)
        features: Tensor = self.head(self._features(((values - self.mean) * self.factor).permute(0, 3, 1, 2)))
        if not self.normalize:
            return features
        lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        return features / lengths.clamp_min(_MIN_LENGTH)

    def _features(self, inputs: Tensor) -> Tensor:
        """Return the features (N, D) of normalised photos (N, 3, H, W)."""
        if not self.flip:
            features: Tensor = self.network(inputs)
            return features
        pairs: Tensor = self.network(torch.stack([inputs, inputs.flip(-1)], 1).flatten(0, 1))
        return pairs.view(-1, 2, pairs.shape[1]).mean(1)


def export(embedder: Embedder, size: int) -> onnx.ModelProto:
    """Return the graph, for any number of photos of `size` x `size`; batch norms are folded into the convolutions before them."""
    photos = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals
        program = torch.onnx.export(
            embedder.eval(),
            (photos,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("photos")},),
            verbose=False,
        )
    assert program is not None
    return _without_traces(program.model_proto)


def linear(head: Head) -> nn.Linear:
    """Return a fitted head as a layer of a network."""
    layer = nn.Linear(*head.matrix.shape)
    layer.weight.data, layer.bias.data = torch.from_numpy(head.matrix.T), torch.from_numpy(head.bias)
    return layer.requires_grad_(requires_grad=False)


def dimension(model: onnx.ModelProto) -> int:
    """Return the number of floats in one of the graph's embeddings."""
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what the exporter noted of the code that it ran; paths on this machine are in it."""
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model
