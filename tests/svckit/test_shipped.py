"""The model and the gallery that ship are found from every folder, wherever vmmr is installed; where they are not there, it is said what to do."""

import argparse
import subprocess
import sys

import pytest

from embedder_svc.serving import config as embedder
from search_svc.serving import config as search
from svckit import config, shipped
from svckit.config import ConfigError

SERVICES = [
    (embedder.EmbedderConfig, embedder.PREFIX, "model", "resnet50-cars-int8"),
    (search.SearchConfig, search.PREFIX, "index", "stanford-cars"),
]


def setting(cls, prefix, name, **env):
    return config.setting(cls, prefix, name, argparse.Namespace(), env)


def test_of_a_checkout_they_are_found_from_any_folder(tmp_path, root):
    script = "from svckit import shipped; print(shipped.model(), shipped.gallery(), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(root / "models" / name) for _, _, _, name in SERVICES]


@pytest.fixture
def without_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "CHECKOUT", tmp_path / "site-packages" / "models")
    monkeypatch.setattr(shipped, "PACKAGE", "vmmr_models_of_this_test")


@pytest.mark.parametrize("service", SERVICES)
def test_without_a_checkout_they_are_those_of_the_package(service, without_checkout, tmp_path, monkeypatch):
    *known, folder = service
    installed = tmp_path / "vmmr_models_of_this_test" / folder
    installed.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert setting(*known) == installed


@pytest.mark.parametrize(("cls", "prefix", "name", "folder"), SERVICES)
def test_a_variable_and_a_flag_win_over_what_ships(cls, prefix, name, folder, tmp_path):
    variable = f"{prefix}_{name}".upper()
    assert str(setting(cls, prefix, name, **{variable: "a"})) == "a"
    args = argparse.Namespace(**{name: "b"})
    assert str(config.setting(cls, prefix, name, args, {variable: "a"})) == "b"


@pytest.mark.parametrize(("cls", "prefix", "name", "folder"), SERVICES)
def test_where_they_are_not_installed_it_is_said_what_to_do(cls, prefix, name, folder, without_checkout):
    with pytest.raises(ConfigError) as caught:
        setting(cls, prefix, name)
    assert str(caught.value).startswith(f"--{name} ({prefix}_{name.upper()}) is not given, and the ")
    assert "`pip install ./models`, in a checkout of vmmr" in str(caught.value)
    parser = argparse.ArgumentParser()
    config.add_arguments(parser, cls, prefix)
    with pytest.raises(ConfigError, match="is not installed: give one, or install it"):
        config.from_namespace(cls, prefix, parser.parse_args([]), {})
    assert config.from_namespace(cls, prefix, parser.parse_args([f"--{name}", "mine"]), {})
