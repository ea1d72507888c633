import copy
import math

import pytest
import torch

from embedder_svc.training.losses import HierarchicalSoftmax, MultiSimilarity, NormalizedSoftmax, ProxyAnchor

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


LEVELS = torch.tensor([[0, 0, 1], [0, 1, 2]])
"""Two makes, of two cars and of one, which are three models."""


def test_hierarchical_is_the_mean_of_the_cross_entropies_of_make_model_and_class():
    criterion = with_directions(
        HierarchicalSoftmax(LEVELS[:1], 2, scale=2.0, smoothing=0.0), [1.0, 0], [0, 1.0], [-1.0, 0]
    )
    loss = criterion(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 2]))
    shares = [[math.exp(2 * cosine) for cosine in row] for row in ([1, 0, -1], [0, 1, 0])]
    first, second = ([share / sum(row) for share in row] for row in shares)
    classes = -math.log(first[0]) - math.log(second[2])
    makes = -math.log(first[0] + first[1]) - math.log(second[2])
    assert loss.item() == pytest.approx((classes + makes) / 2 / 2)


def test_hierarchical_without_levels_is_softmax():
    flat, hierarchical = (
        NormalizedSoftmax(3, 4, scale=9.0, smoothing=0.1),
        HierarchicalSoftmax(torch.zeros(0, 3, dtype=torch.int64), 4, scale=9.0, smoothing=0.1),
    )
    torch.nn.init.normal_(flat.directions, generator=torch.Generator().manual_seed(0))
    hierarchical.load_state_dict(flat.state_dict())
    embeddings, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(hierarchical(embeddings, labels), flat(embeddings, labels))


def test_hierarchical_forgives_a_sister_more_than_a_stranger():
    criterion = with_directions(
        HierarchicalSoftmax(LEVELS, 3, scale=9.0, smoothing=0.0), [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]
    )
    label = torch.tensor([0])
    assert criterion(torch.tensor([[0.5, 1.0, 0.0]]), label) < criterion(torch.tensor([[0.5, 0.0, 1.0]]), label)


def units(*degrees):
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


class TestMultiSimilarity:
    """Four photos of two classes, at angles. The pairs that a photo learns from are found by hand."""

    criterion = MultiSimilarity(scale=50.0, margin=0.1)
    labels = torch.tensor([0, 0, 1, 1])

    def test_it_is_equation_9_of_its_paper(self):
        """At 0 and 60, 40 and 100 degrees: each photo's partner is 60 away, which is cosine 0.5.

        For the photo at 0 the strangers are 40 and 100 away, cosines 0.766 and -0.174: one is nearer than the partner, the
        other is farther by more than 0.1. For that at 60 both are 20 or 40 away, and both nearer. The rest is symmetric.
        """
        loss = self.criterion(2 * units(0, 60, 40, 100), self.labels)
        cosine = {degrees: math.cos(math.radians(degrees)) for degrees in (20, 40, 60)}

        def photo(partner, *strangers):
            pull = math.log(1 + math.exp(-2 * (cosine[partner] - 0.5))) / 2
            return pull + math.log(1 + sum(math.exp(50 * (cosine[other] - 0.5)) for other in strangers)) / 50

        assert loss.item() == pytest.approx((photo(60, 40) + photo(60, 20, 40)) / 2)

    def test_photos_in_order_by_more_than_the_margin_teach_nothing(self):
        embeddings = units(0, 10, 90, 100).requires_grad_()
        loss = self.criterion(embeddings, self.labels)
        loss.backward()
        assert loss.item() == 0
        assert not embeddings.grad.any()

    def test_pairs_within_the_margin_still_teach(self):
        """The partner at 30 degrees has cosine 0.866; a stranger at 35 has 0.819, one at 45 has 0.707."""
        lonely = torch.tensor([0, 0, 1])
        near, far = (self.criterion(units(0, 30, -degrees), lonely).item() for degrees in (35, 45))
        pull = math.log(1 + math.exp(-2 * (math.cos(math.radians(30)) - 0.5))) / 2
        push = math.log(1 + math.exp(50 * (math.cos(math.radians(35)) - 0.5))) / 50
        assert near == pytest.approx((pull + push) / 3)
        assert far == 0

    def test_a_photo_that_is_alone_of_its_class_does_not_learn_but_is_learned_from(self):
        """Photos at 0 and 60 and a stranger at 20, whose own pairs do not count."""
        loss = self.criterion(units(0, 60, 20), torch.tensor([0, 0, 1])).item()
        cosine = {degrees: math.cos(math.radians(degrees)) for degrees in (20, 40, 60)}
        pulls = 2 * math.log(1 + math.exp(-2 * (cosine[60] - 0.5))) / 2
        pushes = sum(math.log(1 + math.exp(50 * (cosine[other] - 0.5))) / 50 for other in (20, 40))
        assert loss == pytest.approx((pulls + pushes) / 3)

    def test_a_batch_of_one_class_is_no_error(self):
        assert self.criterion(units(0, 10), torch.tensor([0, 0])).item() == 0

    def test_correct_are_photos_whose_nearest_other_is_of_their_class(self):
        assert self.criterion.correct(units(0, 10, 14, 30), torch.tensor([0, 0, 1, 1])) == 2
        assert self.criterion.correct(units(0, 10, 90, 91), torch.tensor([0, 0, 1, 1])) == 4
        assert self.criterion.correct(units(0, 10, 30), torch.tensor([0, 0, 1])) == 2


@pytest.mark.parametrize(
    "criterion",
    [
        NormalizedSoftmax(3, 4, scale=20, smoothing=0.1),
        HierarchicalSoftmax(LEVELS, 4, scale=20, smoothing=0.1),
        ProxyAnchor(3, 4, scale=32, margin=0.1),
        MultiSimilarity(scale=50, margin=0.1),
    ],
)
def test_the_gradient_is_that_of_the_loss(criterion):
    generator = torch.Generator().manual_seed(2)
    criterion = copy.deepcopy(criterion).double()
    for directions in criterion.parameters():
        torch.nn.init.normal_(directions, generator=generator)
    embeddings = torch.randn(6, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert criterion(embeddings, labels) > 0
    assert torch.autograd.gradcheck(lambda values: criterion(values, labels), embeddings)


@pytest.mark.parametrize(
    "criterion",
    [
        NormalizedSoftmax(4, 8, scale=20, smoothing=0.1),
        HierarchicalSoftmax(torch.tensor([[0, 0, 1, 1]]), 8, scale=20, smoothing=0.1),
        ProxyAnchor(4, 8, scale=32, margin=0.1),
    ],
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
