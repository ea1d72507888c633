import math

import pytest
import torch

from embedder_svc.training.loss import NormalizedSoftmax

COS_45 = math.sqrt(0.5)


def with_directions(criterion, *directions):
    criterion.directions.data = torch.tensor(directions)
    return criterion


def test_softmax_is_the_cross_entropy_of_scaled_cosines():
    criterion = with_directions(NormalizedSoftmax(2, 2, scale=4.0, smoothing=0.0), [3.0, 0.0], [0.0, 0.5])
    loss = criterion(torch.tensor([[2.0, 0.0], [7.0, 7.0]]), torch.tensor([0, 1]))
    by_hand = [math.log(math.exp(4) + math.exp(0)) - 4, math.log(2)]
    assert loss.item() == pytest.approx(sum(by_hand) / 2)


def test_smoothing_spreads_a_share_of_the_target_over_all_classes():
    criterion = with_directions(NormalizedSoftmax(2, 2, scale=4.0, smoothing=0.1), [1.0, 0.0], [0.0, 1.0])
    loss = criterion(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    total = math.log(math.exp(4) + math.exp(0))
    assert loss.item() == pytest.approx(0.95 * (total - 4) + 0.05 * (total - 0))


def drawn(classes, dimension):
    criterion = NormalizedSoftmax(classes, dimension, scale=20, smoothing=0.1).double()
    torch.nn.init.normal_(criterion.directions, generator=torch.Generator().manual_seed(2))
    return criterion


def test_the_gradient_is_that_of_the_loss():
    criterion, generator = drawn(3, 4), torch.Generator().manual_seed(2)
    embeddings = torch.randn(6, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert criterion(embeddings, labels) > 0
    assert torch.autograd.gradcheck(lambda values: criterion(values, labels), embeddings)


def test_it_falls_as_embeddings_turn_to_their_class():
    criterion, labels = drawn(4, 8), torch.arange(4)
    away, halfway, there = (
        criterion(torch.lerp(torch.roll(criterion.directions, 1, 0), criterion.directions, share), labels).item()
        for share in (0.0, 0.5, 1.0)
    )
    assert away > halfway > there


def test_correct_are_photos_whose_nearest_direction_is_of_their_class():
    criterion = with_directions(NormalizedSoftmax(2, 2, scale=4.0, smoothing=0.0), [9.0, 0.0], [0.0, 0.1])
    assert criterion.correct(torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0]]), torch.tensor([0, 1, 0])) == 2


def test_directions_start_at_the_classes_means_seen_from_their_common_mean():
    criterion = NormalizedSoftmax(2, 3, scale=1.0, smoothing=0.0)
    embeddings = torch.tensor([[3.0, 0.0, 4.0], [0.0, 3.0, 4.0], [3.0, 0.0, 4.0]])
    criterion.imprint(embeddings, torch.tensor([0, 1, 0]))
    expected = torch.tensor([[COS_45, -COS_45, 0.0], [-COS_45, COS_45, 0.0]])
    torch.testing.assert_close(criterion.directions.data, expected)
    assert criterion.directions.requires_grad
