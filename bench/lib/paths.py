"""Where the benches find what they read, and leave what they measured."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench/results"
CARS = ROOT.parent / "shared/data/stanford_cars/train"
"""Real photos, where they are: a folder of folders of JPEGs."""
