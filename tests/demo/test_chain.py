import pytest

from demo.chain import Chain
from search_svc.index.index_dir import current
from svckit.cli import CommandError

pytestmark = pytest.mark.xdist_group("demo")  # one worker builds the chain, once


def test_the_chain_ends_in_an_index(chain):
    assert current(chain.index) == "000001"


def test_the_photos_held_out_are_of_every_car(chain, photos):
    held_out = chain.held_out()
    assert sorted(path.split("/")[0] for path in held_out) == sorted(
        path.name for path in photos.iterdir() if path.is_dir()
    )
    assert all((photos / path).exists() for path in held_out)


def test_accuracy_is_told_as_a_table_and_kept_as_json(chain):
    assert "vote, top-1" in chain.evaluate()
    assert (chain.work / "accuracy.json").exists()


def test_each_step_is_a_line_with_what_it_came_to(photos, tmp_path, capsys):
    chain = Chain(photos, tmp_path)
    chain.split("blog")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:10] == ["split", "40", "photos", "of", "4", "labels:", "32", "train,", "4", "dev,"]
    assert line.endswith(" s")


def test_a_new_run_starts_afresh_but_goes_on_with_what_is_half_embedded(tmp_path):
    chain = Chain(tmp_path / "photos", tmp_path / "work")
    for name in ("embeddings", "embeddings.partial", "index"):
        (chain.work / name).mkdir(parents=True)
    chain.clear()
    assert [path.name for path in chain.work.iterdir()] == ["embeddings.partial"]


def test_a_step_that_fails_tells_what_its_command_said(tmp_path):
    chain = Chain(tmp_path / "nothing", tmp_path)
    with pytest.raises(
        CommandError, match=r"vmmr-search split ended with exit code 1\n.*nothing: there is no such folder"
    ):
        chain.split("blog")
