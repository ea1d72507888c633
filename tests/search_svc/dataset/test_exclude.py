import pytest

from search_svc.dataset import exclude
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

KNOWN = {"a/1.jpg", "a/2.jpg", "b/1.jpg"}


@pytest.fixture
def listed(tmp_path):
    """Write an exclusion list."""

    def write(content):
        path = tmp_path / "exclude.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_the_photos_of_the_list_are_told_and_counted(listed, capsys):
    path = listed('\ufeffreason,path\nblurred,a/2.jpg\n"a, b",./b//1.jpg\n,\n')
    assert exclude.excluded(path, KNOWN) == {"a/2.jpg", "b/1.jpg"}
    assert capsys.readouterr().err == f"{path}: 2 photos are left out\n"


def test_photos_that_are_not_there_are_counted_and_the_first_is_named(listed, capsys):
    path = listed("path\nz.jpg\na/1.jpg\ny.jpg\n")
    assert exclude.excluded(path, KNOWN) == {"a/1.jpg"}
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {path}: 2 photos are not here, the first is 'y.jpg'",
        f"{path}: 1 photos are left out",
    ]


def test_a_list_for_another_folder_is_refused(listed):
    with pytest.raises(CommandError, match=r"none of its photos is here, not even '/data/a/1.jpg'"):
        exclude.excluded(listed("path\n/data/a/1.jpg\n"), KNOWN)


@pytest.mark.parametrize("content", ["path\n", "path,reason\n"])
def test_an_empty_list_leaves_nothing_out(listed, content):
    assert exclude.excluded(listed(content), KNOWN) == set()


def test_no_list_leaves_nothing_out_and_says_nothing(capsys):
    assert exclude.excluded(None, KNOWN) == set()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "has no column path"), ("file\na\n", "has no column path"), (b"\xff\xfe", "not a CSV file in UTF-8")],
)
def test_what_is_no_list_is_told(listed, content, reason):
    with pytest.raises(ArtifactError, match=reason):
        exclude.read(listed(content))


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.csv: No such file"):
        exclude.read(tmp_path / "none.csv")


def test_a_quoted_path_with_more_behind_it_is_refused_rather_than_guessed(listed):
    with pytest.raises(ArtifactError, match="not a CSV file in UTF-8"):
        exclude.read(listed('path\n"a/1"2.jpg\n'))
