import pytest
import torch
from torch import nn

from embedder_svc.training import norms


@pytest.fixture
def network():
    """Two convolutions, each with a norm that only adds a bias, but for its eps."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)
    )
    for norm in (made[1], made[4]):
        norm.bias.data.uniform_(-1, 1)
    return made.eval().requires_grad_(requires_grad=False)


def test_the_network_computes_what_it_did_and_training_begins_from_there(network):
    inputs = 3 + 20 * torch.randn(16, 3, 12, 12)
    expected = network(inputs)
    norms.recall(network, inputs.split(5))
    torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.train()(inputs), expected, rtol=1e-4, atol=1e-4)


def test_without_it_the_first_step_would_have_another_network(network):
    inputs = 3 + 20 * torch.randn(16, 3, 12, 12)
    assert (network(inputs) - network.train()(inputs)).abs().max() > 1


def test_it_leaves_nothing_behind_in_the_network(network):
    norms.recall(network, [torch.randn(2, 3, 12, 12)])
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_channel_that_is_always_the_same_stays_so(network):
    network[0].weight.data[0] = 0
    inputs = torch.randn(16, 3, 12, 12)
    expected = network(inputs)
    norms.recall(network, [inputs])
    torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-4)
    assert network.train()(inputs).isfinite().all()
