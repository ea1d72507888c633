"""`vmmr-search build --ray`, on a cluster of two nodes on this machine: the files of a local build, whatever is killed."""

import argparse
import hashlib
import os
import shutil
import signal

import numpy as np
import pytest

from search_svc.building import build_command, checkpoints, on_ray, shard_files
from search_svc.building.checkpoints import Checkpoints
from search_svc.building.spec import IndexSpec
from search_svc.voting.labels import parse
from svckit.cli import CommandError
from tests.search_svc import builds

pytestmark = pytest.mark.xdist_group("ray")

ITEMS = 3000
SPEC = IndexSpec(factory="PCA6,IVF16,SQ8", shards=3, nprobe=2)


def build(index, spec=SPEC, **resources):
    names = [f"{row}.jpg" for row in range(ITEMS)]
    return builds.build_version(
        index,
        embeddings=np.random.default_rng(0).standard_normal((ITEMS, 8)).astype(np.float32),
        item_ids=names,
        uris=names,
        labels=[parse(f"honda_pilot_{2000 + row % 7}") for row in range(ITEMS)],
        model="m",
        model_name="n",
        spec=spec,
        **resources,
    )


def sums(version):
    """The sha256 of each file, but of the manifest, which has the time."""
    paths = (path for path in version.path.iterdir() if path.name != "manifest.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("factory", ["OPQ4,IVF16,PQ4", "HNSW8,SQ8"])
def test_every_file_is_that_of_a_local_build(ray_address, tmp_path, factory):
    spec = IndexSpec(factory=factory, shards=3)
    there = build(tmp_path / "there", spec, processes=3, ray=ray_address)
    assert sums(there) == sums(build(tmp_path / "here", spec, processes=2))


def test_a_task_whose_process_is_killed_goes_on_from_its_last_checkpoint(ray_address, tmp_path, monkeypatch):
    expected = sums(build(tmp_path / "here"))
    fill, keep_part = shard_files._fill_on_ray, shard_files._Shard._keep_part
    log = tmp_path / "log"

    def fill_and_be_killed_once(shard, gallery):
        """In small steps. Ray pickles what is in here, and runs it in its own processes."""
        shard_files._CHUNK_ROWS, checkpoints._INTERVAL_S, checkpoints._TIME_SHARE = 256, 0.0, 1e9
        found = shard.checkpoints.find(shard.path.stem)
        with log.open("a") as file:
            file.write(f"{shard.path.stem} from {found.state['rows'] if found else 0}\n")

        def keep_and_be_killed(self, index, longest):
            keep_part(self, index, longest)
            if index.ntotal == 512 and self.path.stem == "shard-001":
                os.kill(os.getpid(), signal.SIGKILL)

        shard_files._Shard._keep_part = keep_and_be_killed
        fill(shard, gallery)

    monkeypatch.setattr(shard_files, "_fill_on_ray", fill_and_be_killed_once)
    assert sums(build(tmp_path / "there", processes=2, ray=ray_address)) == expected
    lines = sorted(log.read_text().split("\n"))[1:]
    assert lines == ["shard-000 from 0", "shard-001 from 0", "shard-001 from 512", "shard-002 from 0"]


def test_a_build_that_was_stopped_is_gone_on_with_here_or_there(ray_address, tmp_path, monkeypatch, capsys):
    class StoppedError(BaseException):
        pass

    def stop_after_one(ray, tasks, at_once, meanwhile):
        run(ray, tasks[:1], at_once, meanwhile)
        if len(tasks) > 1:
            raise StoppedError

    run = on_ray.run
    monkeypatch.setattr(on_ray, "run", stop_after_one)
    with pytest.raises(StoppedError):
        build(tmp_path / "there", processes=2, ray=ray_address)
    monkeypatch.undo()
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    capsys.readouterr()
    made = [build(tmp_path / "here"), build(tmp_path / "there", processes=2, ray=ray_address)]
    said = capsys.readouterr().err
    assert said.count(f"{ITEMS} embeddings copied, the index trained, {ITEMS // 3} photos indexed") == 2
    expected = sums(build(tmp_path / "undisturbed"))
    assert [sums(version) for version in made] == [expected, expected]


def test_storage_that_a_node_does_not_share_is_told(ray_address, tmp_path, monkeypatch):
    fill = shard_files._fill_on_ray

    def fill_elsewhere(shard, _):
        fill(shard, tmp_path / "not here" / "embeddings.npy")

    monkeypatch.setattr(shard_files, "_fill_on_ray", fill_elsewhere)
    with pytest.raises(
        CommandError, match=r"embeddings\.npy is not there on a node of the cluster: with --ray, the index must be"
    ):
        build(tmp_path / "index", processes=2, ray=ray_address)


def test_a_shard_that_was_made_elsewhere_is_missed(tmp_path):
    shard = shard_files._Shard.begin(tmp_path, 0, range(8), tmp_path / "trained.faiss", Checkpoints(tmp_path))
    with pytest.raises(CommandError, match=r"shard-000\.faiss was made, and is not seen here"):
        shard.info()


def test_a_process_of_an_earlier_run_changes_nothing_any_more(tmp_path):
    """Ray has lost sight of its node, and another run, maybe of another job, goes on in the same place."""
    earlier = Checkpoints(tmp_path).begin_run()
    (tmp_path / "part").write_bytes(b"new")
    Checkpoints(tmp_path).begin_run().keep("shard-000", tmp_path / "part", rows=3)
    with pytest.raises(CommandError, match="another run goes on here"):
        earlier.keep("shard-000", tmp_path / "part", rows=2)
    assert Checkpoints(tmp_path).state("shard-000") == {"rows": 3}
    with pytest.raises(CommandError, match="another run goes on here"):
        earlier.check_run()


def test_a_cluster_that_is_not_there_is_told_before_any_work(tmp_path):
    pytest.importorskip("ray")
    parser = argparse.ArgumentParser()
    build_command.add(parser.add_subparsers())
    args = parser.parse_args(["build", str(tmp_path), "--out", str(tmp_path / "index"), "--ray", "127.0.0.1:1"])
    with pytest.raises(CommandError, match=r"--ray: there is no Ray cluster at 127\.0\.0\.1:1: Connection refused"):
        args.run(args)
    assert not (tmp_path / "index").exists()
