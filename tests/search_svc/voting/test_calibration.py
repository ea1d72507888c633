import dataclasses
import json
import shutil

import numpy as np
import pytest

from search_svc.index.version import IndexVersion
from search_svc.voting.calibration import LEVELS, Calibration, Ece, LogisticModel, Strangers, sigmoid
from search_svc.voting.vote import Weighting
from svckit.artifact import ArtifactError, sealed, write_manifest

CALIBRATION = Calibration(
    photos=389,
    k=10,
    temperature=0.05,
    prior=0.25,
    levels={level: LogisticModel(-0.25, (0.5, 1.5, 2.0)) for level in ("label", "model", "make")},
    known=LogisticModel(0.5, (16.0, 0.5)),
    known_offsets=(0.0, -1.0),
    false_alarm_rate=0.05,
    unknown_threshold=0.17,
    year_ratio=0.5,
    year_photos=0,
    typical={"make_model 0_2000": 0.75},
    errors={"label": Ece(0.05, 0.04)},
    mean_weight=1.5,
    strangers=Strangers(0.95, 0.5),
    nearest=tuple(tenth / 10 for tenth in range(1, 10)),
)
LATER = ("mean_weight", "strangers", "nearest")


@pytest.fixture
def path(tmp_path):
    CALIBRATION.write(tmp_path / "calibration.json")
    return tmp_path / "calibration.json"


def test_what_was_written_is_what_is_read(path):
    assert Calibration.read(path) == CALIBRATION
    assert path.read_bytes().endswith(b"}\n")


def test_the_vote_is_weighted_as_it_was_fitted():
    assert CALIBRATION.weighting(0.1) == Weighting(0.1, prior=0.25, mean_weight=1.5)


def test_a_calibration_from_before_there_were_means_is_read_and_gives_them_no_weight(path):
    fields = json.loads(path.read_text())
    for field in LATER:
        del fields[field]
    path.write_text(json.dumps(fields))
    assert Calibration.read(path).mean_weight == 0
    assert Calibration.read(path).strangers is None
    assert Calibration.read(path).nearest == ()
    assert Calibration.read(path).weighting(0.1) == Weighting(0.1, prior=0.25, mean_weight=0.0)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Calibration) if field.name not in LATER])
def test_a_missing_field_is_named(path, field):
    fields = json.loads(path.read_text())
    del fields[field]
    path.write_text(json.dumps(fields))
    with pytest.raises(ArtifactError, match=field) as caught:
        Calibration.read(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "changes",
    [
        {"photos": 1.5},
        {"photos": -1},
        {"photos": "389"},
        {"k": 0},
        {"temperature": 0},
        {"temperature": True},
        {"prior": None},
        {"levels": {"label": {"intercept": 0, "slopes": [1, 2, 3]}}},
        {"levels": 5},
        {"known": {"intercept": 0}},
        {"levels": {level: {"intercept": 0, "slopes": [1, 2]} for level in LEVELS}},
        {"known": {"intercept": 0, "slopes": ["steep", 1]}},
        {"known": {"intercept": 0, "slopes": [1, 2, 3]}},
        {"known_offsets": []},
        {"known_offsets": 3},
        {"unknown_threshold": float("nan")},
        {"typical": ["label"]},
        {"typical": {"label": "near"}},
        {"errors": {"label": {"before": 0.1}}},
        {"strangers": {}},
        {"strangers": 0},
        {"strangers": {"auroc": 0.9, "called_unknown": None}},
        {"nearest": [0.1]},
        {"nearest": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]},
        {"nearest": None},
    ],
)
def test_what_makes_no_sense_is_refused(path, changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ArtifactError, match="no calibration: "):
        Calibration.read(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{"])
def test_what_is_no_json_object_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        Calibration.read(path)


def test_a_line_needs_a_feature_for_each_slope():
    assert LogisticModel(1.0, (2.0, 3.0)).logit((4.0, 5.0)) == 24.0
    with pytest.raises(ValueError, match="zip"):
        LogisticModel(1.0, (2.0, 3.0)).logit((4.0,))


def test_even_the_largest_logit_is_a_chance():
    assert sigmoid(0.0) == 0.5
    assert 0 < sigmoid(-1e9) < 1e-12
    assert 1 - 1e-12 < sigmoid(1e9) < 1


@pytest.fixture
def index_dir(build_index, tmp_path):
    """Write an index with a calibration that its manifest lists."""
    version = build_index(np.eye(8, dtype=np.float32), names=["make_model 0_2000"] * 8, directory=tmp_path / "index")
    CALIBRATION.write(version.path / "calibration.json")
    relist(version.path)
    return tmp_path / "index"


def relist(path):
    """Write the manifest anew, with the files as they are now."""
    write_manifest(path, json.loads((path / "manifest.json").read_text()))


def reason_of_refusal(index_dir, *, verify=True):
    with pytest.raises(ArtifactError) as caught:
        IndexVersion.open(index_dir, verify=verify)
    assert caught.value.path.name == "calibration.json"
    return caught.value.reason


def test_a_version_that_lists_a_calibration_has_it(index_dir):
    assert IndexVersion.open(index_dir).calibration == CALIBRATION


def test_a_version_that_lists_none_has_none(index_dir):
    path = index_dir / "versions" / "000001"
    (path / "calibration.json").unlink()
    relist(path)
    assert IndexVersion.open(index_dir).calibration is None


def test_a_calibration_that_is_not_listed_is_not_believed(index_dir):
    path = index_dir / "versions" / "000001"
    fields = json.loads((path / "manifest.json").read_text())
    del fields["files"]["calibration.json"]
    (path / "manifest.json").write_text(json.dumps(sealed(fields)))
    assert IndexVersion.open(index_dir).calibration is None


def test_any_changed_byte_is_found(index_dir, tmp_path):
    size = (index_dir / "versions" / "000001" / "calibration.json").stat().st_size
    for place in range(0, size, max(1, size // 25)):
        copy = shutil.copytree(index_dir, tmp_path / f"copy-{place}")
        path = copy / "versions" / "000001" / "calibration.json"
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        assert reason_of_refusal(copy).startswith("is damaged: its sha256 is")


@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_calibration_is_found(index_dir, verify):
    (index_dir / "versions" / "000001" / "calibration.json").unlink()
    assert reason_of_refusal(index_dir, verify=verify) == "is missing"


def test_a_calibration_of_another_gallery_is_refused(index_dir):
    path = index_dir / "versions" / "000001"
    dataclasses.replace(CALIBRATION, typical={"another_car_2001": 0.5}).write(path / "calibration.json")
    relist(path)
    assert reason_of_refusal(index_dir) == "typical has no entry for the label 'make_model 0_2000'"
