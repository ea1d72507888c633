import torch
from torch.nn.functional import normalize

from embedder_svc.training.retrieval import Accuracy, Embedded, accuracy, best_size

GALLERY = Embedded(
    normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]])),
    labels=torch.tensor([0, 1, 2, 3, 4, 5]),
    makes=torch.tensor([0, 0, 1, 1, 2, 2]),
)


def test_accuracies_are_counted_over_the_nearest_by_cosine():
    """One query finds its class, one only its make, one its class among five, and one nothing."""
    queries = Embedded(
        normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.9]])),
        labels=torch.tensor([0, 0, 0, 5]),
        makes=torch.tensor([0, 0, 0, 2]),
    )
    assert accuracy(queries, GALLERY) == Accuracy(top1=25.0, top5=75.0, make=50.0)


def test_a_gallery_may_have_fewer_than_five_photos():
    gallery = Embedded(GALLERY.embeddings[:2], GALLERY.labels[:2], GALLERY.makes[:2])
    assert accuracy(gallery, gallery) == Accuracy(100.0, 100.0, 100.0)


def test_the_best_size_is_the_smallest_of_the_best():
    found = {160: 80.0, 192: 90.0, 224: 90.0}
    assert best_size((224, 160, 192), lambda size: Accuracy(found[size], 0, 0)) == (192, Accuracy(90.0, 0, 0))
