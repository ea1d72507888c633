"""A training run: epochs over the training photos, a look at the dev photos now and then, all of it resumable."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from embedder_svc.exporting.traits import PixelNorm
from embedder_svc.training.augment import Augmentation, normalised, resize
from embedder_svc.training.batches import Order, Pixels, fetch, on_device
from embedder_svc.training.checkpointing import load_state, save_state, write_weights
from embedder_svc.training.curves import EpochRecord, Stopwatch, Tally, write_curves
from embedder_svc.training.learner import Learner
from embedder_svc.training.photos import Decoded
from embedder_svc.training.recipe import Recipe
from embedder_svc.training.retrieval import Accuracy, Embedded, accuracy, best_size
from svckit.cli import CommandError, progress

STATE = "state.pt"
CURVES = "curves.csv"
WEIGHTS = "model.safetensors"

_SAVE_EVERY_S = 300.0
"""Seconds between two saves of the state, which takes about one, beside those before and after every look at the dev photos."""
_IMPRINTED_PER_CLASS = 8


class Run:
    """One run, in the directory `out`: a new one, or the one whose state is there.

    `identity` says what must stay the same when a run goes on, beside the recipe: fingerprints, by the names of their things.
    """

    def __init__(
        self,
        learner: Learner,
        recipe: Recipe,
        *,
        train: Decoded,
        dev: Decoded,
        norm: PixelNorm,
        metadata: Mapping[str, str],
        out: Path,
        identity: Mapping[str, str],
    ) -> None:
        self._learner = learner
        self._recipe = recipe
        self._train = replace(train, pixels=on_device(train.pixels, learner.device))
        self._dev = replace(dev, pixels=on_device(dev.pixels, learner.device))
        self._norm = norm
        self._metadata = metadata
        self._out = out
        self._identity = dict(identity)
        self._order = Order(len(train.photos), recipe.batch, recipe.seed)
        self._augmentation = Augmentation(recipe.crop_area, recipe.colour, recipe.erase)
        self._steps = recipe.epochs * self._order.steps
        self._step = 0
        self._tally = Tally()
        self._records: list[dict[str, Any]] = []
        self._best = -1.0
        self._saved = time.monotonic()

    def train(self) -> None:
        """Run to the last epoch. Raise CommandError if another run is in `out`, or if the loss becomes no number."""
        self._begin()
        with progress(total=self._steps, initial=self._step, desc="training", unit="step") as bar:
            if self._tally.steps and self._at_end_of_epoch():  # the run was cut off while it looked at the dev photos
                self._finish_epoch(bar)
            while self._step < self._steps:
                self._epoch(bar)

    def _begin(self) -> None:
        if self._order.steps < 1:
            raise CommandError(
                f"--batch {self._recipe.batch} is more than the {len(self._train.photos)} training photos"
            )
        state = self._out / STATE
        if state.exists():
            self._restore(load_state(state, self._learner.device))
        else:
            self._imprint()

    def _epoch(self, bar: Any) -> None:
        watch = Stopwatch()
        for chosen, photos in fetch(self._train.pixels, self._order.batches(self._step), self._learner.device):
            self._learn(chosen, photos, watch)
            bar.update()
            if not self._at_end_of_epoch():
                self._save_in_time()
        self._finish_epoch(bar)

    def _learn(self, chosen: NDArray[np.int64], photos: Tensor, watch: Stopwatch) -> None:
        waited_s = watch.lap()
        rng = np.random.default_rng([self._recipe.seed, 1, self._step])
        inputs = normalised(self._augmentation.view(photos, self._size(), rng), self._norm)
        labels = torch.from_numpy(self._train.photos.labels[chosen]).to(self._learner.device)
        share, self._step = self._step / self._steps, self._step + 1
        result = self._learner.learn(inputs, labels, progress=share, step=self._step)
        if not math.isfinite(result.loss):  # before its weights replace those that were saved
            raise CommandError(f"the loss is {result.loss} at step {self._step}: lower --rate or --class-rate")
        self._tally.add(result, len(chosen), seconds=waited_s + watch.lap(), waited_s=waited_s)

    def _size(self) -> int:
        return self._recipe.training_stages.size(self._step / self._steps)

    def _at_end_of_epoch(self) -> bool:
        return self._step % self._order.steps == 0

    def _finish_epoch(self, bar: Any) -> None:
        """Record the epoch; if it is time to look at the dev photos, look, with the state before and after it saved."""
        epoch = self._step // self._order.steps
        record = self._tally.record(epoch=epoch, step=self._step, size=self._size())
        looking = epoch % self._recipe.evaluate_every == 0 or self._step == self._steps
        if looking:
            self._save()
            record = self._keep_best(record, bar)
        self._tally = Tally()
        self._records.append(asdict(record))
        write_curves(self._out / CURVES, self._records)
        if looking:
            self._save()
        else:
            self._save_in_time()
        bar.set_postfix_str(_summary(self._records[-1]), refresh=False)

    def _keep_best(self, record: EpochRecord, bar: Any) -> EpochRecord:
        """Keep the weights if they find most dev photos so far; without dev photos there is no choice, and the last are kept."""
        if not len(self._dev.photos):
            self._write_weights(min(self._recipe.tested_sizes), {"epoch": record.epoch})
            return record
        bar.set_postfix_str("looking at dev photos")
        size, found = best_size(self._recipe.tested_sizes, self._measure)
        if found.top1 > self._best:
            self._best = found.top1
            self._write_weights(size, {"epoch": record.epoch, **_dev_metrics(found)})
        return replace(record, test_size=size, **asdict(found))

    def _measure(self, size: int) -> Accuracy:
        return accuracy(self._embedded(self._dev, size), self._embedded(self._train, size))

    def _embedded(self, split: Decoded, size: int) -> Embedded:
        embeddings = self._embed(split, np.arange(len(split.photos)), size)
        return Embedded(embeddings, torch.from_numpy(split.photos.labels), torch.from_numpy(split.photos.makes))

    def _embed(self, split: Decoded, chosen: NDArray[np.int64], size: int) -> Tensor:
        return embed(self._learner, self._norm, split.pixels, chosen, size=size, batch=self._recipe.batch)

    def _imprint(self) -> None:
        chosen = np.fromiter(_first_of_each(self._train.photos.labels), np.int64)
        embeddings = self._embed(self._train, chosen, self._size()).to(self._learner.device)
        labels = torch.from_numpy(self._train.photos.labels[chosen]).to(self._learner.device)
        self._learner.criterion.imprint(embeddings, labels)

    def _write_weights(self, size: int, metrics: Mapping[str, Any]) -> None:
        found = {"input_size": str(size), "metrics": json.dumps(metrics)}
        write_weights(self._out / WEIGHTS, self._learner.average.network, {**self._metadata, **found})

    def _save_in_time(self) -> None:
        """Save the state, unless it was saved a short time ago."""
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        state = {
            "recipe": asdict(self._recipe),
            "identity": self._identity,
            "step": self._step,
            "tally": self._tally.state(),
            "records": self._records,
            "best": self._best,
            "learner": self._learner.state(),
        }
        save_state(self._out / STATE, state)
        self._saved = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        if changed := self._recipe.differences(state["recipe"]):
            raise CommandError(f"{self._out}: holds a run with another recipe; changed: {', '.join(changed)}")
        if changed := [name for name, found in self._identity.items() if state["identity"].get(name) != found]:
            raise CommandError(f"{self._out}: holds a run with other {' and other '.join(changed)}")
        self._learner.restore(state["learner"])
        self._step, self._best, self._records = state["step"], state["best"], state["records"]
        self._tally = Tally(**state["tally"])


@torch.inference_mode()
def embed(
    learner: Learner, norm: PixelNorm, pixels: Pixels, chosen: NDArray[np.int64], *, size: int, batch: int
) -> Tensor:
    """Return embeddings (N, D) of unit length, on the CPU, of the chosen photos as at test time, by the averaged network.

    They are the most memory that a run takes, and are held once: each batch is written to its rows.
    """
    embeddings = torch.empty(len(chosen), learner.dimension)
    batches = (chosen[start : start + batch] for start in range(0, len(chosen), batch))
    for rows, (_, photos) in zip(torch.split(embeddings, batch), fetch(pixels, batches, learner.device), strict=True):
        inputs = normalised(resize(photos, size), norm)
        rows.copy_(normalize(learner.embed(learner.average.network, inputs)))
    return embeddings


def _first_of_each(labels: NDArray[np.int64]) -> Iterator[int]:
    """Return the numbers of the first few photos of every class."""
    for label in range(labels.max() + 1):
        yield from np.flatnonzero(labels == label)[:_IMPRINTED_PER_CLASS]


def _dev_metrics(found: Accuracy) -> dict[str, float]:
    return {f"dev_{name}": value for name, value in asdict(found).items()}


def _summary(record: Mapping[str, Any]) -> str:
    text = f"epoch {record['epoch']} loss {record['loss']:.3f}"
    return text if record["top1"] is None else f"{text} dev {record['top1']:.1f} %"
