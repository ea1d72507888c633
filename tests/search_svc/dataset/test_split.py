import argparse
import csv

import pytest

from search_svc.dataset import photo_list as manifest
from search_svc.dataset import split
from svckit import cli


@pytest.fixture
def photos(tmp_path):
    """A collection of twelve photos of three labels, one of which cannot be read in full."""
    for label, count in {"honda_pilot_2011": 6, "land_rover_lr2_1900": 3, "odd": 3}.items():
        for i in range(count):
            path = tmp_path / "photos" / "VMMRdb" / label / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "photos" / "VMMRdb" / "odd" / "Thumbs.db").touch()
    return tmp_path / "photos"


def run(*argv):
    """Run the command as its program does."""
    parser = argparse.ArgumentParser()
    split.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["split", *map(str, argv)])
    cli.run(lambda: args.run(args), "vmmr-search")


def fails(capsys, *argv):
    """Run the command, which must fail, and return its message."""
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert not capsys.readouterr().out
    return str(caught.value)


def test_the_manifest_the_sizes_and_the_report_are_written(photos, tmp_path, capsys):
    out = tmp_path / "new" / "manifest.csv"
    run(photos, "--out", out)
    rows = manifest.read(out)
    assert [row.path for row in rows] == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    assert out.with_name("category_sizes.txt").read_text() == "honda_pilot_2011 6\nland_rover_lr2_1900 3\nodd 3\n"
    assert out.with_name("split_report.csv").read_text().splitlines() == [
        "path,reason",
        "VMMRdb/land_rover_lr2_1900,no year from 1908 to 2049 can be read from the name",
        'VMMRdb/odd,"no make, model and year can be read from the name"',
        'VMMRdb/odd/Thumbs.db,"made by the system, not by a camera"',
    ]
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 12 photos of 3 labels: 8 train, 1 dev, 3 test\n"
    assert printed.err.splitlines() == [
        "1 file left out: made by the system, not by a camera (1)",
        "'VMMRdb/land_rover_lr2_1900': no year from 1908 to 2049 can be read from the name",
        "'VMMRdb/odd': no make, model and year can be read from the name",
        f"next: vmmr-embedder embed {out} --photos {photos} --out embeddings",
    ]


@pytest.mark.parametrize("label", ["h\u00f3nda_pilot_2011", "hon\u200bda_pilot_2011"])
def test_an_accent_or_a_character_that_nobody_sees_makes_no_other_car(label, photos, tmp_path):
    (photos / "VMMRdb" / label).mkdir()
    (photos / "VMMRdb" / label / "1.jpg").touch()
    run(photos, "--out", tmp_path / "manifest.csv")
    assert "the same make, model and year as" in (tmp_path / "split_report.csv").read_text()


def test_labels_that_are_one_car_are_reported_first(photos, tmp_path, capsys):
    for label in ("Honda_Pilot_2011", "Odd"):
        (photos / "VMMRdb" / label).mkdir()
        (photos / "VMMRdb" / label / "1.jpg").touch()
    run(photos, "--out", tmp_path / "manifest.csv")
    remark = "VMMRdb/honda_pilot_2011,the same make, model and year as 'Honda_Pilot_2011': votes divide"
    rows = list(csv.reader((tmp_path / "split_report.csv").read_text().splitlines()))
    assert rows[1] == remark.split(",", 1)
    assert sum("votes divide" in reason for _, reason in rows) == 1, "labels that are not read are no car"
    assert (
        capsys.readouterr()
        .err.splitlines()[1]
        .startswith("'VMMRdb/honda_pilot_2011': the same make, model and year as ")
    )


def test_an_existing_folder_is_no_manifest_and_is_told_by_its_name(photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert fails(capsys, photos, "--out", tmp_path / "out") == f"vmmr-search: error: {tmp_path / 'out'}: Is a directory"


def test_the_help_does_not_call_the_folder_optional(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert " DIR " in usage
    assert "[DIR]" not in usage


def test_the_same_folder_gives_the_same_bytes(photos, tmp_path):
    for name in ("a", "b"):
        run(photos, "--out", tmp_path / name / "manifest.csv", "--scheme", "stratified")
    assert (tmp_path / "a" / "manifest.csv").read_bytes() == (tmp_path / "b" / "manifest.csv").read_bytes()


def test_a_long_report_is_cut_on_the_screen_but_not_in_the_file(photos, tmp_path, capsys):
    for i in range(40):
        (photos / "VMMRdb" / "odd" / f"photo \a{i}.jpg").touch()
    run(photos, "--out", tmp_path / "manifest.csv")
    assert capsys.readouterr().err.splitlines()[-2] == f"and 32 more: {tmp_path / 'split_report.csv'}"
    assert len((tmp_path / "split_report.csv").read_text().splitlines()) == 44


def test_a_name_that_is_not_text_is_reported_not_fatal(photos, tmp_path):
    (photos / "VMMRdb" / "odd" / "caf\udce9.jpg").touch()
    run(photos, "--out", tmp_path / "manifest.csv")
    assert len(manifest.read(tmp_path / "manifest.csv")) == 12
    assert "odd/caf\\udce9.jpg,its name is not UTF-8" in (tmp_path / "split_report.csv").read_text(encoding="utf-8")


def test_the_last_labels_can_be_held_out_whole(photos, tmp_path, capsys):
    (photos / "VMMRdb" / "acura_rl_2001").mkdir()
    (photos / "VMMRdb" / "acura_rl_2001" / "0.jpg").touch()
    out = tmp_path / "manifest.csv"
    run(photos, "--out", out, "--unseen", "2")
    splits = {row.label.label: row.split for row in manifest.read(out) if row.split.startswith("unseen")}
    assert splits == {"land_rover_lr2_1900": "unseen-dev", "odd": "unseen-test"}
    assert capsys.readouterr().out == (
        f"{out}: 13 photos of 4 labels: 4 train, 1 dev, 2 test, 3 unseen-dev, 3 unseen-test\n"
    )
    message = fails(capsys, photos, "--out", tmp_path / "other.csv", "--unseen", "3")
    assert message == "vmmr-search: error: --unseen must be 2 or more, and leave 2 of the 4 labels, got 3"
    assert not (tmp_path / "other.csv").exists()


def test_excluded_photos_are_left_out_and_no_other_moves(photos, tmp_path, capsys):
    out, list_ = tmp_path / "manifest.csv", tmp_path / "exclude.csv"
    run(photos, "--out", out)
    before = {row.path: row.split for row in manifest.read(out)}
    dropped = ["VMMRdb/honda_pilot_2011/0.jpg", "VMMRdb/odd/2.jpg"]
    list_.write_text("path,reason\n" + "".join(f"{path},copy\n" for path in dropped))
    run(photos, "--out", out, "--exclude", list_)
    after = {row.path: row.split for row in manifest.read(out)}
    assert after == {path: split for path, split in before.items() if path not in dropped}
    assert f"{list_}: 2 photos are left out\n" in capsys.readouterr().err


def test_a_list_of_all_photos_leaves_nothing_to_write(photos, tmp_path, capsys):
    out = tmp_path / "manifest.csv"
    run(photos, "--out", out)
    capsys.readouterr()
    message = fails(capsys, photos, "--out", tmp_path / "none.csv", "--exclude", out)
    assert message == f"vmmr-search: error: {out}: leaves no photo"
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("first", [True, False])
def test_the_folder_may_come_before_or_after_the_scheme(photos, tmp_path, first):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.txt").write_text({"train": "odd/0.jpg\n", "dev": "", "test": "odd/2.jpg\n"}[name])
    lists = [tmp_path / f"{name}.txt" for name in ("train", "dev", "test")]
    scheme = ["--scheme", "files", *lists]
    out = tmp_path / "manifest.csv"
    run(*([photos, "--out", out, *scheme] if first else ["--out", out, *scheme, photos]))
    assert {row.path: row.split for row in manifest.read(out)} == {
        "VMMRdb/odd/0.jpg": "train",
        "VMMRdb/odd/2.jpg": "test",
    }
    assert "VMMRdb/odd/1.jpg,in none of the lists" in (tmp_path / "split_report.csv").read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "needs one folder of photos, DIR, got none"),
        (["a", "--scheme", "blog", "b"], "needs one folder of photos, DIR, got a, b"),
        (["a", "--scheme", "files", "b", "c"], "--scheme files needs three lists, for train, dev and test, got 2"),
        (["a", "--scheme", "random"], "--scheme must be one of blog, stratified, files, got 'random'"),
        (["nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(tmp_path, capsys, argv, message):
    assert fails(capsys, *argv, "--out", tmp_path / "manifest.csv") == f"vmmr-search: error: {message}"
    assert not (tmp_path / "manifest.csv").exists()


def test_a_list_that_is_not_there_is_named(photos, tmp_path, capsys):
    lists = [tmp_path / name for name in ("train.txt", "dev.txt", "test.txt")]
    message = fails(capsys, photos, "--out", tmp_path / "manifest.csv", "--scheme", "files", *lists)
    assert message == f"vmmr-search: error: {lists[0]}: No such file or directory"


def test_every_file_of_the_folder_is_a_photo_or_counted_with_its_reason(photos, tmp_path, capsys):
    for name in (
        "@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg",
        ".cache/1.jpg",
        "odd/sub/2.jpg",
        "odd/notes.txt",
        "odd/3\u202f.jpg",
    ):
        path = photos / "VMMRdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run(photos, "--out", tmp_path / "manifest.csv")
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'manifest.csv'}: 13 photos of 3 labels: ")
    assert printed.err.splitlines()[0] == (
        "5 files left out: made by the system, not by a camera (2); hidden (1); in a folder within the folder of a label (1); "
        "not a photo file (1)"
    )
    assert sum(path.is_file() for path in photos.rglob("*")) == 13 + 5


def test_makes_are_read_from_a_file_and_from_labels_that_show_them(photos, tmp_path, capsys):
    for label in (
        "iran_khodro_samand_2010",
        "iran_khodro_dena_2015",
        "Tata Motors_Nano_2012",
        "tata_motors_safari_2015",
    ):
        (photos / "VMMRdb" / label).mkdir()
        (photos / "VMMRdb" / label / "1.jpg").touch()
    out, makes = tmp_path / "manifest.csv", tmp_path / "makes.txt"
    run(photos, "--out", out)
    said = "'iran khodro': 2 labels begin so: if that is a make of two words, name it in a file for --makes"
    assert said in capsys.readouterr().err.splitlines()
    makes.write_text("\nIran Khodro\n")
    run(photos, "--out", out, "--makes", makes)
    cars = {row.label.label: (row.label.make, row.label.model) for row in manifest.read(out)}
    assert cars["iran_khodro_samand_2010"] == ("iran khodro", "samand")
    assert cars["tata_motors_safari_2015"] == ("tata motors", "safari"), "as the other label of that make shows"
    assert "iran khodro" not in capsys.readouterr().err
    assert "nowhere: no list of makes" in fails(capsys, photos, "--out", out, "--makes", tmp_path / "nowhere")


def test_one_label_in_two_forms_of_unicode_is_one_label(photos, tmp_path):
    for label in ("citroe\u0308n_c4_2011", "citro\u00ebn_c4_2011"):
        (photos / "VMMRdb" / label).mkdir()
        (photos / "VMMRdb" / label / f"{len(label)}.jpg").touch()
    out = tmp_path / "manifest.csv"
    run(photos, "--out", out)
    rows = [row for row in manifest.read(out) if "c4" in row.path]
    assert {row.label.label for row in rows} == {"citro\u00ebn_c4_2011"}
    assert all((photos / row.path).is_file() for row in rows), "paths stay as they are on the disk"
