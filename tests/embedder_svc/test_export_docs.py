"""docs/export.md says what `export` and `embed` take, read and write; the model card says what the shipped model is."""

import argparse
import re
from dataclasses import fields
from pathlib import Path

import pytest

from embedder_svc.exporting import command as export_command
from embedder_svc.exporting import npm_weights
from embedder_svc.exporting.traits import PIXELS, Traits
from embedder_svc.network import bundle
from embedder_svc.offline import command as embed_command
from embedder_svc.photos import photo_files

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()
SHIPPED = ROOT / "models" / "resnet50-cars-int8"


def section(title):
    """From the heading on, down to the next of its level."""
    return re.split(r"\n## ", PAGE.split(f"\n## {title}\n", 1)[1])[0]


def rows(text):
    """The cells of a table's rows, less the rules below the headings."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("module", [export_command, embed_command], ids=["export", "embed"])
def test_every_flag_has_a_row_with_its_default_and_every_row_a_flag(module):
    commands = argparse.ArgumentParser().add_subparsers()
    module.add(commands)
    ((name, command),) = commands.choices.items()
    actions = {(action.option_strings or [action.metavar])[0]: action for action in command._actions}
    del actions["-h"]
    table = {
        flag: row
        for row in rows(section(f"`vmmr-embedder {name}`"))
        for flag in re.findall(r"`(--[\w-]+|MANIFEST)", row[0])
    }
    assert table.keys() == actions.keys()
    for flag, action in actions.items():
        if action.required:
            assert table[flag][2] == "required"
        elif action.default not in (None, True, False) and flag != "--workers":
            assert table[flag][2] == f"`{action.default}`"
        for choice in action.choices or ():
            assert f"`{choice}`" in " ".join(table[flag])


def test_every_trait_that_metadata_may_hold_is_named():
    sentence = section("Where weights come from").split("metadata may hold")[1].split(".")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) >= {field.name for field in fields(Traits)} | {"source", "metrics"}


def test_the_conventions_of_pixels_are_those_of_the_table():
    assert {row[4] for row in rows(section("Where weights come from"))[1:]} == set(PIXELS)


def test_the_limits_of_offline_photos_are_told():
    limits = photo_files.LIMITS
    megabytes, megapixels = limits.max_bytes >> 20, limits.max_pixels // 1_000_000
    assert f"{megabytes} MB, {megapixels} megapixels and {limits.max_aspect:.0f}:1" in PAGE


class TestShippedModel:
    def test_it_is_what_its_card_says(self):
        info, card = bundle.read(SHIPPED), (SHIPPED / "README.md").read_text()
        assert card.startswith(f"# {info.name}\n")
        assert f"`{info.fingerprint}`" in card
        assert npm_weights.SHA256 in card
        assert f"cosine, mean {info.parity['cosine_mean']:.4f}, least {info.parity['cosine_min']:.4f}" in card
        assert f"{info.input_size} x {info.input_size}" in card
