"""Runs `vmmr-search build` and `evaluate` on embeddings made by a seed."""

import argparse
import json

import numpy as np

from search_svc.building import build_command
from search_svc.dataset import photo_list as manifest
from search_svc.dataset.photo_list import Photo
from search_svc.evaluation import evaluate
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse
from svckit import cli
from svckit.artifact import write_manifest


def write_embeddings(directory, matrix, photos, model="m" * 64):
    directory.mkdir()
    np.save(directory / "embeddings.npy", matrix)
    manifest.write(directory / "items.csv", photos)
    count, dimension = matrix.shape
    fields = {"kind": "embeddings", "model": model, "model_name": "test", "normalized": True}
    write_manifest(directory, fields | {"count": count, "dimension": dimension})


def run(*argv):
    """Run a command of `vmmr-search` as its user does."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for command in (build_command, evaluate):
        command.add(commands)
    args = parser.parse_args([str(each) for each in argv])
    cli.run(lambda: args.run(args), "vmmr-search")


def evaluated(tmp_path, embeddings, *flags):
    """Evaluate the index, and return the report as JSON."""
    run("evaluate", tmp_path / embeddings, "--index", tmp_path / "index", "--json", tmp_path / "r.json", *flags)
    return json.loads((tmp_path / "r.json").read_text())


def build_calibrated(tmp_path):
    """Build an index of eight labels and calibrate it; embed its photos, and forty of each of two more labels."""
    rng = np.random.default_rng(0)
    of = np.arange(10 * 40) // 40
    vectors = np.eye(16)[of] + 0.35 * rng.standard_normal((400, 16))
    matrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    splits = ["unseen-test" if label >= 8 else ("train", "dev", "dev", "test")[row % 4] for row, label in enumerate(of)]
    photos = [Photo(f"{row}.jpg", parse(f"make{of[row] // 2}_m_{2000 + of[row]}"), splits[row]) for row in range(400)]
    write_embeddings(tmp_path / "embeddings", matrix, photos)
    run("build", tmp_path / "embeddings", "--out", tmp_path / "index")
    return IndexVersion.open(tmp_path / "index")
