"""A small collection of embeddings, a small grid, and the command."""

import argparse

import numpy as np
import pytest

from search_svc.dataset import photo_list as manifest
from search_svc.dataset.photo_list import Photo
from search_svc.index.version import SearchParams
from search_svc.select import command
from search_svc.select.grid import Grid, Setting
from search_svc.select.points import Point, Timing
from search_svc.voting.labels import parse
from svckit import cli
from svckit.artifact import write_manifest

SPLITS = ("train", "train", "train", "dev", "test", "unseen-dev", "unseen-test", "train")
FLAT, BLOG = Setting("Flat", "ip", SearchParams()), Setting("Flat", "l2", SearchParams())
LISTS = [
    Setting("IVF4,SQ8", "ip", SearchParams(nprobe=nprobe, rerank=rerank)) for nprobe in (1, 4) for rerank in (None, 2)
]
GRAPH = Setting("HNSW8,Flat", "ip", SearchParams(ef_search=16))


def small_grid(items, dimension, metric):
    return Grid((FLAT, BLOG, *LISTS, GRAPH), {BLOG: "the blog's Flat"}, {"PQ2": "takes 2,560 photos to train"})


def write(directory, matrix, photos, *, normalized=True):
    directory.mkdir()
    np.save(directory / "embeddings.npy", matrix)
    manifest.write(directory / "items.csv", photos)
    count, dimension = matrix.shape
    fields = {"kind": "embeddings", "model": "m" * 64, "model_name": "test", "normalized": normalized}
    write_manifest(directory, fields | {"count": count, "dimension": dimension})


@pytest.fixture
def collection():
    """Photos of all splits, with embeddings (400, 16) in clusters around one point for each of 10 labels."""
    rng = np.random.default_rng(0)
    of = rng.integers(10, size=400)
    vectors = rng.standard_normal((10, 16))[of] + 0.8 * rng.standard_normal((400, 16))
    matrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    photos = [Photo(f"{row}.jpg", parse(f"make_model {of[row]}_2010"), SPLITS[row % len(SPLITS)]) for row in range(400)]
    return matrix, photos


@pytest.fixture
def embeddings(collection, tmp_path):
    write(tmp_path / "embeddings", *collection)
    return tmp_path / "embeddings"


@pytest.fixture
def select(monkeypatch):
    """The command with the small grid and short rounds. It draws plots only if it is told to, for that takes a second."""
    monkeypatch.setattr("search_svc.select.exam._SINGLES", 5)
    monkeypatch.setattr("search_svc.select.exam._BATCHES", 1)
    monkeypatch.setattr("search_svc.select.sweep._FINAL_ROUNDS", 2)

    def run(*argv, grids=small_grid, drawn=False):
        if not drawn:
            monkeypatch.setattr("search_svc.select.plots.svgs", lambda result: [])
            monkeypatch.setattr("search_svc.select.plots.png", lambda result: b"")
        program = argparse.ArgumentParser()
        command.add(program.add_subparsers())
        args = program.parse_args(["select", *map(str, argv)])
        cli.run(lambda: command.run(args, grids), "vmmr-search")

    return run


@pytest.fixture
def point():
    """Return a point with these figures."""

    def made(name="Flat", *, top_1=0.8, memory=1000.0, p50=1.0, p99=2.0, recall=1.0, right=""):
        setting = Setting(name, "ip", SearchParams())
        share = right.count("1") / len(right) if right else top_1
        return Point(setting, share, 0.9, 0.99, recall, Timing(900.0, 5000.0, p50, p99), memory, 3.0, right)

    return made
