import json
import subprocess

import numpy as np
import pytest

from bench.quality import ablation
from embedder_svc import __main__ as embedder
from svckit.cli import CommandError
from tests.training_inputs import save_checkpoint, save_photo, small_resnet

RECIPE = "--epochs 1 --batch 4 --stages 0:32 --test-sizes 32 --cache-size 32 --device cpu"
SPLITS = ["train", "train", "train", "dev", "test"]


@pytest.fixture(autouse=True)
def small():
    with small_resnet():
        yield


@pytest.fixture
def folder(tmp_path):
    """Photos of six cars, of one colour each, the last two unseen, and a checkpoint of chance."""
    rng = np.random.default_rng(0)
    rows = []
    for car in range(6):
        (tmp_path / f"car{car}").mkdir()
        for number, split in enumerate(SPLITS if car < 4 else ["unseen-dev"] * 21 + ["unseen-test"]):
            path = f"car{car}/{number}.jpg"
            if "test" not in split:  # who reads those fails
                save_photo(tmp_path / path, 20 + 40 * car, rng)
            rows.append(f"{path},ford_car{car}_2001,ford,car{car},2001,{split}")
    (tmp_path / "unseen.csv").write_text("\n".join(["path,label,make,model,year,split", *rows, ""]))
    save_checkpoint(tmp_path / "start.safetensors")
    return tmp_path


def test_a_command_that_fails_ends_it():
    ablation._vmmr("--version")
    with pytest.raises(subprocess.CalledProcessError):
        ablation._vmmr("nonsense")


@pytest.fixture
def started(monkeypatch):
    """The commands of `vmmr-embedder` that were started, which run in this process."""
    started = []

    def start(*words):
        started.append(" ".join(map(str, words)))
        args = embedder.parser().parse_args(list(map(str, words)))
        args.run(args)

    monkeypatch.setattr(ablation, "_vmmr", start)
    return started


def test_a_network_is_judged_without_test_photos_and_what_is_done_is_not_done_again(folder, started, capsys):
    command = [folder / "unseen.csv", "--photos", folder, "--weights", folder / "start.safetensors"]
    words = [*map(str, [*command, "--work", folder / "work", "--out", folder / "out.json"]), "--only", "no average"]
    ablation.main([*words, "--recipe", RECIPE])
    assert [each.partition(" ")[0] for each in started] == ["train", "export", "embed"]
    assert started[0].endswith(f"{RECIPE} --ema-steps 0")
    (found,) = json.loads((folder / "out.json").read_text())["runs"].values()
    assert found["photos"] == {"train": 12, "dev": 4, "new": 42}
    assert found["new"].keys() == {"1", "2", "5", "10", "20"}

    weights = folder / "work/no-average/run/model.safetensors"
    written = weights.stat().st_mtime_ns
    ablation.main([*words, "--recipe", RECIPE])
    assert [each.partition(" ")[0] for each in started[3:]] == ["train"]
    assert weights.stat().st_mtime_ns == written
    assert json.loads((folder / "out.json").read_text())["runs"] == {"no average": found}
    assert "no average" in capsys.readouterr().out

    with pytest.raises(CommandError, match=r"no-average/run: holds a run with another recipe; changed: scale"):
        ablation.main([*words, "--recipe", f"{RECIPE} --scale 8"])
