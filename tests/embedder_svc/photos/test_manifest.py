import hashlib

import pytest

from embedder_svc.photos.manifest import Manifest
from svckit.artifact import ArtifactError


@pytest.fixture
def read(tmp_path):
    def written(content):
        path = tmp_path / "manifest.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Manifest.read(path)

    return written


def test_all_columns_are_kept_as_text(read):
    content = 'path,label,year\na.jpg,"kia, soul",\nb/c.jpg,bmw_m3,2012\n'
    manifest = read(content)
    assert manifest.columns == ("path", "label", "year")
    assert manifest.rows == (("a.jpg", "kia, soul", ""), ("b/c.jpg", "bmw_m3", "2012"))
    assert manifest.paths == ("a.jpg", "b/c.jpg")
    assert manifest.sha256 == hashlib.sha256(content.encode()).hexdigest()


def test_a_file_written_by_excel_is_read(read):
    assert read("\ufeffpath,label\r\na.jpg,kia\r\n").rows == (("a.jpg", "kia"),)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not a CSV file in UTF-8 with a line of column names"),
        (b"path\n\xff\n", "not a CSV file in UTF-8"),
        ("label\nkia\n", "has no column `path`; it has label"),
        ("path\n", "lists no photos"),
        ("path,label\na.jpg\n", "photo 1 has 1 columns, there are 2"),
        ("path,label\na.jpg,kia\n,bmw\n", "photo 2: its path is empty"),
        ("path\na.jpg\nb.jpg\na.jpg\n", r"photo 3: its path is there twice: a\.jpg"),
        ("path\na.jpg\n../b.jpg\n", r"photo 2: its path leaves the folder of photos: \.\./b\.jpg"),
        ("path\na/../../b.jpg\n", "photo 1: its path leaves the folder of photos"),
        ("path\na\\..\\..\\b.jpg\n", "photo 1: its path leaves the folder of photos"),
        ("path\na/..\\b.jpg\n", "photo 1: its path leaves the folder of photos"),
        ("path\n/etc/a.jpg\n", "photo 1: its path leaves the folder of photos: /etc/a"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(read, content, reason):
    with pytest.raises(ArtifactError, match=f"manifest.csv: .*{reason}"):
        read(content)


def test_a_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"no\.csv: No such file"):
        Manifest.read(tmp_path / "no.csv")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            "a.jpg,kia_rio_2009,kia,rio,2009,val",
            "photo 1: split must be one of train, dev, test, unseen-dev, unseen-test, got 'val'",
        ),
        ("a.jpg,kia_rio_2009,kia,rio,MMIX,dev", "photo 1: year must be a number or nothing, got 'MMIX'"),
        ("a.jpg,kia_rio_2009,kia,rio,20092009200,dev", "photo 1: year must be a number or nothing, got '20092009200'"),
        (
            "a.jpg,kia_rio_2009,kia,rio,2009,dev\nb.jpg,kia_rio_2009,kia,rio,2010,dev",
            "photo 2: the label 'kia_rio_2009' has another make, model or year than in photo 1",
        ),
    ],
)
def test_what_build_would_refuse_is_refused_before_anything_is_embedded(read, rows, reason):
    with pytest.raises(ArtifactError, match=reason):
        read(f"path,label,make,model,year,split\n{rows}\n")


def test_years_are_numbers_as_pandas_writes_them_and_labels_are_compared_in_one_form_of_unicode(read):
    names = ("citro\u00ebn", "citroe\u0308n")
    rows = [
        f"{n}.jpg,{name}_c4_2011,{name},c4,{year},dev"
        for n, (name, year) in enumerate(zip(names, ("2011", "2011.0"), strict=True))
    ]
    manifest = read("\n".join(["path,label,make,model,year,split", *rows, ""]))
    assert manifest.column("year") == ("2011", "2011.0"), "cells are handed on as they are"
