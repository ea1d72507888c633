import shutil

import pytest

from embedder_svc.network import choice
from embedder_svc.network.choice import choose_bundle
from svckit.artifact import ArtifactError
from svckit.config import ConfigError


@pytest.fixture
def folder(tmp_path, make_bundle):
    """`folder("fp32", "int8")`: a folder of bundles of these precisions."""

    def made(*precisions):
        for number, precision in enumerate(precisions):
            make_bundle(tmp_path / "models" / precision, seed=number, precision=precision)
        return tmp_path / "models"

    return made


@pytest.fixture
def dot_products(monkeypatch):
    return lambda there: monkeypatch.setattr(choice, "has_dot_products", lambda: there)


@pytest.mark.parametrize(
    ("there", "machine", "chosen"),
    [
        (("fp32", "fp16", "int8"), (False, True), "int8"),
        (("fp32", "fp16", "int8"), (False, False), "fp32"),
        (("fp32", "fp16", "int8"), (True, True), "fp16"),
        (("fp32", "int8"), (True, True), "fp32"),
        (("fp32", "fp16"), (False, True), "fp32"),
        (("int8",), (False, False), "int8"),
    ],
)
def test_auto_is_what_suits_the_machine_among_what_there_is(folder, dot_products, there, machine, chosen):
    gpu, vnni = machine
    dot_products(vnni)
    assert choose_bundle(folder(*there), "auto", gpu=gpu).name == chosen


def test_a_precision_that_is_named_is_taken_whatever_suits(folder, dot_products):
    dot_products(True)
    assert choose_bundle(folder("fp32", "int8"), "fp32", gpu=True).name == "fp32"


def test_one_that_is_not_there_is_told_with_those_that_are(folder):
    with pytest.raises(ConfigError, match=r"^--precision: .*/models has fp32, int8, not fp16$"):
        choose_bundle(folder("fp32", "int8"), "fp16", gpu=False)


def test_a_bundle_itself_is_served_as_it_is(folder):
    path = folder("fp32") / "fp32"
    assert choose_bundle(path, "auto", gpu=True) == path
    with pytest.raises(ConfigError, match=r"models/fp32 is fp32, not int8$"):
        choose_bundle(path, "int8", gpu=False)


def test_two_bundles_of_one_precision_are_no_choice(folder):
    path = folder("fp32")
    shutil.copytree(path / "fp32", path / "other")
    with pytest.raises(ArtifactError, match="fp32 and other are both fp32"):
        choose_bundle(path, "auto", gpu=False)


def test_a_folder_without_bundles_is_left_to_who_opens_it(tmp_path):
    assert choose_bundle(tmp_path, "auto", gpu=False) == tmp_path
