import pytest

from search_svc.select.points import Store
from svckit.artifact import ArtifactError

MEASURED = {"embeddings": "abc", "shards": 2, "faiss": "1.15.1"}


def test_points_are_kept_and_later_ones_replace_earlier(tmp_path, point):
    store = Store(tmp_path / "points.json", MEASURED)
    store.add([point("A"), point("B")])
    store.add([point("A", p50=7.0)])
    again = Store(tmp_path / "points.json", MEASURED)
    assert list(again.points.values()) == [point("A", p50=7.0), point("B")]
    assert list(again.points) == [point("A").setting, point("B").setting]


@pytest.mark.parametrize("name", MEASURED)
def test_points_of_something_else_are_refused(tmp_path, point, name):
    Store(tmp_path / "points.json", MEASURED).add([point()])
    with pytest.raises(
        ArtifactError, match=f"measured with something else: its {name} was {MEASURED[name]}, here it is x"
    ):
        Store(tmp_path / "points.json", MEASURED | {name: "x"})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"measured": {}, "points": [{"setting": {}}]}', "{\n"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "points.json").write_text(content)
    with pytest.raises(ArtifactError, match="does not hold points that were measured"):
        Store(tmp_path / "points.json", MEASURED)
