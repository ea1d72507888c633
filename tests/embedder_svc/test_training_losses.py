import math

import pytest
import torch

from embedder_svc.training.losses import NormalizedSoftmax, ProxyAnchor

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


def test_proxy_anchor_is_equation_4_of_its_paper():
    """Three classes of which the batch shows two: the third only pushes."""
    criterion = with_directions(ProxyAnchor(3, 2, scale=2.0, margin=0.1), [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0])
    loss = criterion(torch.tensor([[5.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0, 1]))
    cosines = [[1, 0, -1], [COS_45, COS_45, -COS_45], [0, 1, 0]]

    def pull(*values):
        return math.log(1 + sum(math.exp(-2 * (value - 0.1)) for value in values))

    def push(*values):
        return math.log(1 + sum(math.exp(2 * (value + 0.1)) for value in values))

    pulled = pull(cosines[0][0], cosines[1][0]) + pull(cosines[2][1])
    pushed = push(cosines[2][0]) + push(cosines[0][1], cosines[1][1]) + push(*(row[2] for row in cosines))
    assert loss.item() == pytest.approx(pulled / 2 + pushed / 3)


@pytest.mark.parametrize(
    "criterion", [NormalizedSoftmax(4, 8, scale=20, smoothing=0.1), ProxyAnchor(4, 8, scale=32, margin=0.1)]
)
def test_a_loss_falls_as_embeddings_turn_to_their_class(criterion):
    torch.nn.init.normal_(criterion.directions, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4)
    away, halfway, there = (
        criterion(torch.lerp(torch.roll(criterion.directions, 1, 0), criterion.directions, share), labels).item()
        for share in (0.0, 0.5, 1.0)
    )
    assert away > halfway > there


def test_directions_start_at_the_classes_means_seen_from_their_common_mean():
    criterion = NormalizedSoftmax(2, 3, scale=1.0, smoothing=0.0)
    embeddings = torch.tensor([[3.0, 0.0, 4.0], [0.0, 3.0, 4.0], [3.0, 0.0, 4.0]])
    criterion.imprint(embeddings, torch.tensor([0, 1, 0]))
    expected = torch.tensor([[COS_45, -COS_45, 0.0], [-COS_45, COS_45, 0.0]])
    torch.testing.assert_close(criterion.directions.data, expected)
    assert criterion.directions.requires_grad
