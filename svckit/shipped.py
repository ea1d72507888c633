"""Find the model and the gallery that ship with vmmr, from any folder: in the checkout that this code is run from, or in the package
`vmmr_models`, which `pip install ./models` makes of the same folder.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from svckit.config import ConfigError

CHECKOUT = Path(__file__).parents[1] / "models"
PACKAGE = "vmmr_models"


def model() -> Path:
    """Return the folder of the model bundle that ships. Raise ConfigError if it is not installed."""
    return _found("resnet50-cars-int8", "--model", "model")


def gallery() -> Path:
    """Return the index data directory of the gallery that ships. Raise ConfigError if it is not installed."""
    return _found("stanford-cars", "--index", "gallery")


def _found(name: str, flag: str, what: str) -> Path:
    for place in _places():
        if (place / name).is_dir():
            return place / name
    raise ConfigError(
        f"{flag} is not given, and the {what} that ships is not installed: give one, or install it with `pip install ./models`, "
        f"in a checkout of vmmr, or with the wheel {PACKAGE} of the same release"
    )


def _places() -> Iterator[Path]:
    yield CHECKOUT
    if found := find_spec(PACKAGE):
        yield from map(Path, found.submodule_search_locations or ())
