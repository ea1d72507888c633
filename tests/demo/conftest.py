import pytest

from demo import chain as demo_chain
from demo.drawn_cars import collection


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Ten photos of each of four cars."""
    out = tmp_path_factory.mktemp("drawn") / "photos"
    collection.provide(out, classes=4, photos=10, seed=1)
    return out


@pytest.fixture(scope="session")
def chain(photos, tmp_path_factory):
    """An index of them, built by vmmr's own commands."""
    chain = demo_chain.Chain(photos, tmp_path_factory.mktemp("work"))
    chain.clear()
    chain.split("stratified")
    chain.embed()
    chain.build()
    return chain
