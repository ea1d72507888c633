"""docs/gallery.md says what the commands and their files are."""

import argparse
import dataclasses
import re
from pathlib import Path

import pytest
from vmmr.label_names import YEARS
from vmmr.photo_names import PHOTO_SUFFIXES

from search_svc.building import build_command, spec_file
from search_svc.building.spec import IndexSpec
from search_svc.dataset import split
from search_svc.dataset.photo_list import COLUMNS
from search_svc.dataset.schemes import CUTS
from search_svc.index.version import VersionManifest
from search_svc.voting.labels import parse

PAGE = (Path(__file__).parents[2] / "docs" / "gallery.md").read_text()


def section(title):
    """From the heading on, down to the next of its level."""
    return re.split(r"\n## ", PAGE.split(f"\n## {title}\n", 1)[1])[0]


def rows(text):
    """The cells of the tables' rows, less the rules below the headings."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def parser(module):
    choices = argparse.ArgumentParser().add_subparsers()
    module.add(choices)
    return next(iter(choices.choices.values()))


@pytest.mark.parametrize("module", [split, build_command], ids=["split", "build"])
def test_every_flag_has_a_row_with_its_default_and_every_row_a_flag(module):
    command = parser(module)
    actions = {(action.option_strings or [action.metavar])[0]: action for action in command._actions}
    del actions["-h"]
    text = section(f"`vmmr-search {command.prog.split()[-1]}`")
    table = {cells[0].strip("`").split()[0]: cells[-1] for cells in rows(text)}
    assert {name for name in table if name.startswith("--") or name.isupper()} == set(actions)
    for name, action in actions.items():
        default = action.default[0] if isinstance(action.default, list) else action.default
        if default is not None:
            assert table[name] == f"`{default}`"


def test_the_defaults_of_the_index_spec_are_those_of_the_code():
    table = {cells[0].split("`")[1].split()[0]: cells[-1] for cells in rows(section("`vmmr-search build`"))[1:]}
    for field in dataclasses.fields(IndexSpec):
        if field.default is not None:
            assert table[f"--{field.name.replace('_', '-')}"] == f"`{field.default}`"


def test_the_fields_of_spec_files_are_described():
    text = section("`vmmr-search build`").split("### Spec files")[1].split("###")[0]
    assert set(re.findall(r"`([a-z_]+)`", text)) == {*spec_file.FIELDS, "reason"}


def test_every_field_of_the_version_manifest_is_described():
    fields = {field.name for field in dataclasses.fields(VersionManifest)}
    described = {name for cells in rows(section("On disk")) for name in re.findall(r"`(\w+)`", cells[0])}
    assert described == fields | {"files", "sha256"}


def test_every_column_of_the_photo_manifest_is_described():
    described = [name for cells in rows(PAGE.split("### `manifest.csv`")[1].split("\n## ")[0]) for name in cells[:1]]
    assert re.findall(r"`(\w+)`", " ".join(described)) == list(COLUMNS)


def test_the_examples_of_labels_are_read_as_the_page_says():
    examples = [cells for cells in rows(section("Labels")) if cells[1].startswith("`")]
    assert len(examples) == 3
    for _, name, make, model, year in examples:
        label = parse(name.strip("`"))
        assert (label.make, label.model, str(label.year)) == (make, model, year)


def test_suffixes_schemes_and_years_are_those_of_the_code():
    assert set(re.findall(r"`(\.[a-z]+)`", section("The folder"))) == set(PHOTO_SUFFIXES)
    assert set(re.findall(r"\n- \*\*(\w+)\*\*", PAGE)) == {*CUTS, "files"}
    assert f"Outside {YEARS[0]} to {YEARS[-1]}" in PAGE
