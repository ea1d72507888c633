import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.dataset.cuts import COLUMNS, Cut, CutCounts, CutKind, Cuts, kind_of
from svckit.artifact import ArtifactError

CAR = Cut(0.25, 0.125, 0.75, 1.0, 0.875)
NO_CAR = Cut(0.0, 0.0, 1.0, 1.0, no_car_found=True)
fractions = st.floats(0, 1, width=32)
cuts = st.one_of(
    st.none(),
    st.builds(Cut, fractions, fractions, fractions, fractions, st.one_of(st.none(), fractions), st.just(False)),
    st.just(NO_CAR),
)


@given(st.lists(cuts, max_size=20), st.data())
def test_a_table_of_cuts_holds_what_a_list_does(cuts, data):
    table = Cuts.of(cuts)
    assert [table[row] for row in range(len(table))] == cuts
    assert table.kinds.tolist() == [kind_of(cut) for cut in cuts]
    assert table.no_car.tolist() == [cut == NO_CAR for cut in cuts]
    rows = data.draw(st.lists(st.integers(0, len(cuts) - 1))) if cuts else []
    joined = table.take(np.array(rows, np.int64)).joined(Cuts.unknown(2))
    assert [joined[row] for row in range(len(joined))] == [*(cuts[row] for row in rows), None, None]


@pytest.mark.parametrize(
    ("cut", "kind"),
    [
        (None, CutKind.UNKNOWN),
        (CAR, CutKind.CAR),
        (Cut(0, 0, 1, 1, 0.875), CutKind.WHOLE),
        (Cut(0, 0, 1, 1), CutKind.WHOLE),
        (Cut(0, 0, 0.5, 1), CutKind.GIVEN),
        (NO_CAR, CutKind.NO_CAR_FOUND),
    ],
)
def test_a_cut_tells_how_the_photo_was_cut(cut, kind):
    assert kind_of(cut) == kind
    assert CutCounts.of(Cuts.of([cut]).kinds) == CutCounts(*(int(kind == each) for each in CutKind))


@pytest.mark.parametrize(
    ("cut", "problem"),
    [
        (CAR, ""),
        (NO_CAR, ""),
        (Cut(0.5, 0, 0.5, 1), "must have 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got 0.5, 0, 0.5, 1"),
        (Cut(0, 0.5, 1, 0.25), "must have 0 <= left"),
        (Cut(-0.1, 0, 1, 1), "must have 0 <= left"),
        (Cut(0, 0, 1, 1.5), "must have 0 <= left"),
        (Cut(float("nan"), 0, 1, 1), "must have 0 <= left"),
        (Cut(0, 0, 1, 1, 0.0), "car_score must be above 0 and at most 1, got 0"),
        (Cut(0, 0, 1, 1, 1.5), "car_score must be above 0 and at most 1, got 1.5"),
        (Cut(0, 0, 1, 1, float("nan")), "car_score must be above 0 and at most 1, got nan"),
        (Cut(0, 0, 1, 1, 0.5, no_car_found=True), "no_car_found and a car_score contradict each other"),
    ],
)
def test_what_cannot_be_a_part_of_a_photo_is_told(cut, problem):
    assert cut.problem.startswith(problem)
    assert bool(cut.problem) == bool(problem)


# --- items.csv ---


def write(path, *lines, columns=COLUMNS):
    path.write_text("\n".join([",".join(["path", *columns]), *lines, ""]))
    return path


def test_cuts_are_read_from_the_columns_that_the_embedder_adds(tmp_path):
    path = write(
        tmp_path / "items.csv",
        "a.jpg,0.25,0.125,0.75,1,0.875,false",
        "b.jpg,0,0,1,1,,true",
        "c.jpg,0.100000001,0,1,1,,false",
    )
    cuts = Cuts.read(path)
    assert [cuts[0], cuts[1]] == [CAR, NO_CAR]
    assert cuts[2] == Cut(float(np.float32(0.1)), 0, 1, 1)


def test_a_file_without_the_columns_has_no_cuts(tmp_path):
    assert Cuts.read(write(tmp_path / "items.csv", "a.jpg", columns=())) is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a.jpg,0.5,0,0.5,1,,false", "line 2: must have 0 <= left < right"),
        ("a.jpg,half,0,0.5,1,,false", "line 2: could not convert string to float: 'half'"),
        ("a.jpg,0,0,1,1,,", "line 2: no_car_found must be true or false, got ''"),
        ("a.jpg,0,0,1,1,2,false", "line 2: car_score must be above 0"),
        ("a.jpg,0,0", "line 2: no_car_found must be true or false, got ''"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, line, told):
    with pytest.raises(ArtifactError, match=f"items.csv: {told}"):
        Cuts.read(write(tmp_path / "items.csv", line))


def test_columns_that_are_missing_beside_others_are_named(tmp_path):
    path = write(tmp_path / "items.csv", "a.jpg,0,0", columns=("left", "no_car_found"))
    with pytest.raises(ArtifactError, match="has no column top, right, bottom, car_score beside left, no_car_found"):
        Cuts.read(path)
