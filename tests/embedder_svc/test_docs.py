"""docs/embedder.md says what there is."""

import dataclasses
import re
from pathlib import Path

from vmmr.inference.v2 import inference_pb2

from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.runtime import DEVICES
from embedder_svc.serving import kserve_tensors
from embedder_svc.serving.config import PREFIX, EmbedderConfig
from svckit.photos.photo import PhotoReason
from svckit.server import ServerConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "embedder.md").read_text()
SHARED = {field.name for field in dataclasses.fields(ServerConfig)}


def first_cells(section, page=PAGE):
    """The first cell of each row of a section's table, and the rows."""
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {name: row for row in rows for name in re.findall("`([^`]+)`", row[0])}


def test_every_setting_is_in_the_table_with_its_variable_and_default():
    own = [field for field in dataclasses.fields(EmbedderConfig) if field.name not in SHARED]
    rows = first_cells("Settings")
    assert rows.keys() == {f"--{field.name.replace('_', '-')}" for field in own}
    for field in own:
        row = rows[f"--{field.name.replace('_', '-')}"]
        assert row[1] == f"`{PREFIX}_{field.name.upper()}`"
        if shown := field.metadata.get("shown"):
            assert row[2] == shown
            continue
        assert field.default is None or row[2].strip("`") == str(field.default)


def test_the_settings_of_every_server_are_on_the_page_it_points_to():
    page = (DOCS / "operations.md").read_text()
    for name in SHARED:
        assert f"`--{name.replace('_', '-')}`" in page


def test_every_reason_to_refuse_a_photo_is_in_the_table():
    assert first_cells("Photos that are refused").keys() == set(PhotoReason)


def test_every_device_is_in_the_table():
    assert first_cells("Devices").keys() == set(DEVICES)


def test_every_field_of_a_bundle_is_in_the_table():
    assert first_cells("Model bundles").keys() == {field.name for field in dataclasses.fields(BundleInfo)}


def test_the_page_about_kserve_has_every_method_and_every_reason():
    page = (DOCS / "kserve.md").read_text()
    service = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert first_cells("Methods", page).keys() == set(service.methods_by_name)
    reasons = set(re.findall(r'"(TENSOR_\w+)"', Path(kserve_tensors.__file__).read_text()))
    assert reasons == set(re.findall(r"`(TENSOR_\w+)`", page))
