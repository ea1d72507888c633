"""The recipe of a training run: everything that changes the weights that come out, apart from the photos."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, cast

from embedder_svc.photos.resize import Rule
from embedder_svc.training.schedule import Stages
from svckit.cli import CommandError
from svckit.config import option

_RETIRED = {"loss": "softmax", "per_class": 1, "margin": 0.1, "blur": 0.0}
"""Settings that there were once, each with the value with which a run was what all runs are now."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a run, which is resumed only under the recipe that it began with."""

    epochs: int = option(24, minimum=1, help="passes over the training photos")
    batch: int = option(32, minimum=2, help="photos a step")
    dimension: int = option(
        0, minimum=0, maximum=2048, help="floats in an embedding, by a learned projection; 0: what the weights have"
    )
    scale: float = option(20.0, minimum=1, help="what the loss multiplies cosines by, the inverse of a temperature")
    smoothing: float = option(0.1, minimum=0, maximum=0.9, help="label smoothing")
    rate: float = option(0.02, minimum=0, help="peak learning rate of the network")
    class_rate: float = option(0.2, minimum=0, help="peak learning rate of the classes' directions")
    weight_decay: float = option(5e-4, minimum=0, help="weight decay of the convolutions and the projection")
    clip: float = option(5.0, minimum=0, help="largest norm of the network's gradient")
    warm_up: float = option(
        0.015, minimum=0, maximum=0.5, help="share of the run in which the rates rise to their peak"
    )
    stages: str = option("0:128,0.5:160,0.85:192", help="training size in pixels from each share of the run on")
    frozen: int = option(1, minimum=0, maximum=5, help="blocks kept as they are, from the input on: stem, layer1, ...")
    ema_steps: int = option(200, minimum=0, help="steps that the weight average reaches back; 0: no average")
    crop_area: float = option(0.25, minimum=0.05, maximum=1, help="smallest share of a photo that a random crop keeps")
    colour: float = option(0.4, minimum=0, maximum=0.9, help="strength of brightness, contrast and saturation changes")
    erase: float = option(0.35, minimum=0, maximum=1, help="share of photos that lose a random rectangle")
    precision: str = option("bfloat16", choices=("bfloat16", "float32"), help="arithmetic of the convolutions")
    resize: str = option("squash", choices=("squash", "pad"), help="how a photo becomes a square")
    cache_size: int = option(256, minimum=32, help="pixels a side of the decoded photos that crops are cut from")
    test_sizes: str = option("224", help="input sizes in pixels tried on the dev photos; the best is the model's")
    evaluate_every: int = option(4, minimum=1, help="epochs between two looks at the dev photos")
    seed: int = option(230, minimum=0, help="of order, crops and colours")

    def __post_init__(self) -> None:
        largest = max(*self.training_stages.sizes, *self.tested_sizes)
        if largest > self.cache_size:
            raise CommandError(f"--cache-size must be at least the largest size used, {largest}, got {self.cache_size}")

    @cached_property
    def training_stages(self) -> Stages:
        return Stages.parse(self.stages)

    @cached_property
    def tested_sizes(self) -> tuple[int, ...]:
        try:
            return tuple(int(size) for size in self.test_sizes.split(","))
        except ValueError:
            raise CommandError(f"--test-sizes must be whole numbers such as 176,208, got {self.test_sizes!r}") from None

    @property
    def rule(self) -> Rule:
        return cast("Rule", self.resize)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Return the fields in which another recipe, given as a dictionary, differs from this one: `rate (0.02, was 0.01)`.

        A field that the other lacks is newer than it: that recipe was run with the field's default. One that this vmmr lacks is
        a difference, unless the other has it with the value with which it changed nothing.
        """
        mine, theirs = {**_RETIRED, **asdict(self)}, {**_DEFAULTS, **other}
        return [
            f"{name} ({mine.get(name, 'no setting of this vmmr')}, was {theirs[name]})"
            for name in theirs
            if name not in mine or mine[name] != theirs[name]
        ]


_DEFAULTS = {field.name: field.default for field in fields(Recipe)}
