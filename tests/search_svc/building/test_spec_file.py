import json

import pytest

from search_svc.building import spec_file
from svckit.artifact import ArtifactError

CHOSEN = {"factory": "IVF64,SQ8", "metric": "ip", "nprobe": 16, "ef_search": None, "rerank": 4, "reason": "the fastest"}


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "spec.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_what_is_given_is_read(written):
    assert spec_file.read(written(CHOSEN)) == {"factory": "IVF64,SQ8", "metric": "ip", "nprobe": 16, "rerank": 4}
    assert spec_file.read(written({"factory": "Flat"})) == {"factory": "Flat"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON: "),
        ("[]", "is not a JSON object"),
        ({"metric": "ip"}, "is not an index spec: has no `factory`"),
        (CHOSEN | {"factory": None}, "is not an index spec: has no `factory`"),
        (CHOSEN | {"shards": 2}, "has a field 'shards' that no index spec has: those are factory, metric, nprobe"),
        (CHOSEN | {"factory": 3}, "factory must be a string, got 3"),
        (CHOSEN | {"metric": "cosine"}, "metric must be one of ip, l2, got 'cosine'"),
        (CHOSEN | {"nprobe": "16"}, "nprobe must be a whole number, or null, got '16'"),
        (CHOSEN | {"rerank": True}, "rerank must be a whole number, or null, got True"),
        (CHOSEN | {"ef_search": 1.5}, "ef_search must be a whole number, or null, got 1.5"),
    ],
)
def test_what_is_no_spec_is_refused_with_the_file_and_the_reason(written, content, reason):
    path = written(content)
    with pytest.raises(ArtifactError) as caught:
        spec_file.read(path)
    assert caught.value.path == path
    assert reason in caught.value.reason


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"spec\.json: No such file or directory"):
        spec_file.read(tmp_path / "spec.json")
