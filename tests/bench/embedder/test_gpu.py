"""bench/embedder/gpu.sh, as far as a machine without a GPU goes."""

import json
import os
import subprocess
import sys

from tests.embedder_svc import tiny_bundle


def test_it_measures_raw_decoding_and_serving_and_names_the_limit(root, tmp_path):
    tiny_bundle.make(tmp_path / "tiny")
    out = tmp_path / "gpu.json"
    short = ("--seconds", 0.3, "--batches", 1, 4, "--call", 2, "--callers", 4, "--processes", 2, "--out", out)
    environment = os.environ | {"PYTHON": sys.executable, "MODEL": str(tmp_path / "tiny")}
    command = ["bash", root / "bench/embedder/gpu.sh", "--device", "cpu", "--photos", tmp_path / "none", *short]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["raw"].keys() == {"copied", "bound", "on the device"}
    assert all(rates.keys() == {"1", "4"} for rates in figures["raw"].values())
    assert figures["page_locked"] is False
    assert figures["decoding"]["per_second"] > 0
    assert figures["jpegs"]["per_second"] > 0
    assert figures["ratios"]["served / raw, bitmaps"] == (
        figures["bitmaps"]["per_second"] / max(figures["raw"]["copied"].values())
    )
    assert done.stdout.count("limited by ") == 2
