import pytest
import torch
from torch import nn

from embedder_svc.training.ema import WeightAverage


def network(value=0.0):
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    module[0].weight.data.fill_(value)
    return module


def test_the_average_follows_its_formula_every_fourth_step():
    trained = network(1.0)
    average = WeightAverage(trained, steps=16)
    trained[0].weight.data.fill_(2.0)
    for step in (20, 21, 22, 23, 24):
        average.update(trained, step)
    expected = 2 - (1 - 4 / 16) ** 2  # taken in at steps 20 and 24
    assert average.network[0].weight.item() == pytest.approx(expected)


def test_the_starting_weights_are_gone_after_the_first_average():
    trained = network(1.0)
    average = WeightAverage(trained, steps=1000)
    trained[0].weight.data.fill_(2.0)
    average.update(trained, 1)
    assert average.network[0].weight.item() == 2.0


def test_a_run_of_few_steps_is_averaged_over_all_of_them():
    trained = network()
    average = WeightAverage(trained, steps=1000)
    for step in (1, 2, 3):
        trained[0].weight.data.fill_(step)
        average.update(trained, step)
    assert average.network[0].weight.item() == pytest.approx(2.0)


def test_running_statistics_are_averaged_and_counters_copied():
    trained = network()
    average = WeightAverage(trained, steps=8)
    trained[1].running_mean.fill_(6.0)
    trained[1].num_batches_tracked.fill_(7)
    average.update(trained, 8)
    assert average.network[1].running_mean.item() == 3.0
    assert average.network[1].num_batches_tracked.item() == 7


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("step", [1, 400, 401])
def test_without_reach_it_is_the_network_after_every_step(steps, step):
    trained = network(1.0)
    average = WeightAverage(trained, steps)
    trained[0].weight.data.fill_(2.0)
    average.update(trained, step)
    assert average.network[0].weight.item() == 2.0


def test_the_averaged_network_is_another_one_ready_to_be_used():
    trained = network(1.0)
    average = WeightAverage(trained, steps=8)
    trained[0].weight.data.fill_(2.0)
    assert average.network[0].weight.item() == 1.0
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert trained.training
    assert torch.is_grad_enabled()
