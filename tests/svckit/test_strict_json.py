"""JSON of others: what Python's reader passes, or fails at in its own ways, is one kind of error."""

import json

import pytest

from search_svc.voting.calibration import Calibration
from svckit import strict_json
from svckit.artifact import ArtifactError, read_object


@pytest.mark.parametrize(
    "text", ['{"a": [1, -2.5, true, null, "x"]}', f"[{2**63 - 1}, {-(2**63)}, 1e308]", "[" * 100 + "]" * 100]
)
def test_reads_what_json_reads(text):
    assert strict_json.loads(text) == json.loads(text)


HOSTILE = {
    "no JSON": "{",
    "NaN": '{"a": NaN}',
    "an infinity": '{"a": -Infinity}',
    "a number that is an infinity": '{"a": 1e999}',
    "a number of 65 bits": f'{{"a": {2**63}}}',
    "a number of many digits": '{"a": ' + "9" * 5000 + "}",
    "nesting": '{"a":' * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_wrong_is_one_kind_of_error_and_names_the_file(text, tmp_path):
    with pytest.raises(ValueError):
        strict_json.loads(text)
    path = tmp_path / "manifest.json"
    path.write_text(text)
    for read in (read_object, Calibration.read):
        with pytest.raises(ArtifactError, match=str(path)):
            read(path)
