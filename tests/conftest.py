"""What every test shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The machines that run these tests are shared: how long an example takes says nothing about the code.
settings.register_profile("vmmr", deadline=None)
settings.load_profile("vmmr")

# Processes that tests start must not oversubscribe the cores that pytest's own workers share.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def stanford_cars(root: Path) -> Path:
    """Real photos, `train/<label>/<file>.jpg`, that some checkouts have beside them."""
    folder = root.parent / "shared/data/stanford_cars"
    if not folder.is_dir():
        pytest.skip("real photos: ../shared/data/stanford_cars is not beside this checkout")
    return folder
