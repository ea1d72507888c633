"""What a training step costs, and looking at the dev photos: `python -m bench.embedder.training`.

Steps of every kind take turns on one thread, and each kind is given beside the first. CPU seconds, the least of some:
what else the machine does only ever adds. Memory is given beside the size of the embeddings themselves.
"""

import resource
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from embedder_svc.exporting.resnet import FEATURES, ResNet50
from embedder_svc.exporting.traits import PIXELS
from embedder_svc.training.augment import Augmentation
from embedder_svc.training.learner import Learner
from embedder_svc.training.loop import embed
from embedder_svc.training.recipe import Recipe
from embedder_svc.training.retrieval import Embedded, accuracy

CPU = torch.device("cpu")
RECIPE = Recipe()
CLASSES = 196
ROUNDS = 3
KINDS = [(size, frozen) for frozen in (0, 2) for size in (128, 160)]
GALLERY, QUERIES = 60_000, 1024


def main() -> None:
    torch.set_num_threads(1)
    print(f"looking at the dev photos: {memory():.2f} x the memory of the training photos' embeddings")
    took = steps()
    print(f"\na step of {RECIPE.batch} photos\nsize  frozen  CPU s  ratio")
    for (size, frozen), seconds in zip(KINDS, took, strict=True):
        print(f"{size:4}  {frozen:6}  {seconds:5.2f}  {seconds / took[0]:5.2f}")
    print(f"random views for the first of these: ratio {views() / took[0]:.2f}")


class Stub(nn.Module):
    """Stands for a network whose embeddings take no time."""

    def forward(self, photos: Tensor) -> Tensor:
        return photos.flatten(1)[:, :FEATURES]


def memory() -> float:
    """Return the peak of memory while a gallery is embedded, and while photos are searched in it."""
    learner = Learner(Stub(), replace(RECIPE, frozen=0), classes=2, dimension=FEATURES, device=CPU)
    before = peak_bytes()
    gallery = embedded(learner, GALLERY)
    accuracy(embedded(learner, QUERIES), gallery)
    return (peak_bytes() - before) / (GALLERY * FEATURES * 4)


def embedded(learner: Learner, count: int) -> Embedded:
    pixels = np.broadcast_to(np.zeros(1, np.uint8), (count, 32, 32, 3))
    embeddings = embed(learner, PIXELS["caffe"], pixels, np.arange(count), size=32, batch=RECIPE.batch)
    numbers = torch.zeros(count, dtype=torch.int64)
    return Embedded(embeddings, numbers, numbers)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def steps() -> list[float]:
    """Return the CPU seconds a step of each kind. The first round, in which kernels are chosen, does not count."""
    learners = {frozen: learner(frozen) for _, frozen in KINDS}
    rounds = [[step(learners[frozen], size) for size, frozen in KINDS] for _ in range(1 + ROUNDS)]
    return [min(seconds) for seconds in zip(*rounds[1:], strict=True)]


def learner(frozen: int) -> Learner:
    recipe = replace(RECIPE, frozen=frozen)
    return Learner(ResNet50(), recipe, classes=CLASSES, dimension=FEATURES, device=CPU)


def step(learner: Learner, size: int) -> float:
    inputs, labels = torch.randn(RECIPE.batch, 3, size, size), torch.arange(RECIPE.batch)
    start = time.process_time()
    learner.learn(inputs, labels, progress=0.5, step=1001)  # most steps add nothing to the average
    return time.process_time() - start


def views() -> float:
    augmentation = Augmentation(RECIPE.crop_area, RECIPE.colour, RECIPE.erase)
    photos = torch.zeros(RECIPE.batch, RECIPE.cache_size, RECIPE.cache_size, 3, dtype=torch.uint8)
    return min(view(augmentation, photos) for _ in range(1 + ROUNDS))


def view(augmentation: Augmentation, photos: Tensor) -> float:
    start = time.process_time()
    augmentation.view(photos, KINDS[0][0], np.random.default_rng(0))
    return time.process_time() - start


if __name__ == "__main__":
    main()
