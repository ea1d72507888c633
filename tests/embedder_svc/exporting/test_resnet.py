from pathlib import Path

import pytest
import torch

from embedder_svc.exporting.resnet import ResNet50
from embedder_svc.exporting.torchvision_guard import import_torchvision

IMAGENET = Path(__file__).parents[4] / "shared/weights/resnet50_imagenet.safetensors"


@pytest.fixture(scope="module")
def torchvision_resnet50():
    """The network of torchvision itself, with random weights and running statistics that are not the identity."""
    torch.manual_seed(0)
    network = import_torchvision("models").resnet50(weights=None)
    network.fc = torch.nn.Identity()
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return network.eval()


def test_parameters_are_named_as_in_torchvision(torchvision_resnet50):
    assert ResNet50().state_dict().keys() == torchvision_resnet50.state_dict().keys()


@torch.inference_mode()
def test_v1_5_computes_what_torchvision_computes(torchvision_resnet50):
    network = ResNet50(stride_in="v1.5").eval()
    network.load_state_dict(torchvision_resnet50.state_dict())
    photos = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(photos), torchvision_resnet50(photos), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_variant_changes_the_features_but_not_their_shape():
    torch.manual_seed(0)
    first, second = ResNet50(stride_in="v1").eval(), ResNet50(stride_in="v1.5").eval()
    second.load_state_dict(first.state_dict())
    photos = torch.randn(1, 3, 64, 64)
    assert first(photos).shape == second(photos).shape == (1, 2048)
    assert not torch.allclose(first(photos), second(photos), rtol=1e-2)


@pytest.mark.skipif(not IMAGENET.exists(), reason=f"needs {IMAGENET.name} beside the repository")
def test_the_public_imagenet_weights_fill_every_parameter():
    from safetensors.torch import load_file

    result = ResNet50(stride_in="v1", eps=1e-3).load_state_dict(load_file(IMAGENET), strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
