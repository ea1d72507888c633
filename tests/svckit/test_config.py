import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svckit import config
from svckit.config import ConfigError, option


@dataclass(frozen=True, kw_only=True)
class Sample:
    model: Path = option(help="the model")
    max_batch: int = option(8, help="largest batch, 100 % full", minimum=1, maximum=64)
    device: str = option("auto", help="where to run", choices=("auto", "cpu"))
    rate: float = option(0.5, help="a rate", minimum=0)
    exact: bool = option(default=False, help="search exactly")
    threads: int | None = option(None, help="threads", minimum=1)
    cache: Path | None = option(None, help="a folder")
    cache_bytes: int = option(100, help="bytes in it", needs="cache")
    lists: int = option(4, help="lists to look at", not_with="exact")


def load(*argv: str, **env: str) -> Sample:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser, Sample, "EMBEDDER")
    return config.from_namespace(Sample, "EMBEDDER", parser.parse_args(argv), {"EMBEDDER_MODEL": "m", **env})


def test_defaults_hold_where_nothing_is_given():
    assert load() == Sample(model=Path("m"))


def test_the_environment_wins_over_the_default_and_a_flag_over_both():
    assert load(EMBEDDER_MAX_BATCH="4").max_batch == 4
    assert load("--max-batch", "2", EMBEDDER_MAX_BATCH="4").max_batch == 2


def test_an_empty_variable_counts_as_not_set():
    assert load(EMBEDDER_MAX_BATCH="", EMBEDDER_CACHE="") == load()


@given(
    threads=st.integers(1, 2**40), rate=st.floats(0, allow_infinity=False), exact=st.booleans(), cache=st.just("a b")
)
def test_every_type_means_the_same_from_either_source(threads, rate, exact, cache):
    wanted = Sample(model=Path("m"), threads=threads, rate=rate, exact=exact, cache=Path(cache))
    flags = ("--threads", str(threads), "--rate", str(rate), "--exact" if exact else "--no-exact", "--cache", cache)
    env = {"THREADS": str(threads), "RATE": str(rate), "EXACT": str(exact), "CACHE": cache}
    assert load(*flags) == wanted
    assert load(**{f"EMBEDDER_{name}": value for name, value in env.items()}) == wanted


@pytest.mark.parametrize("text", ["1", "true", "Yes", "ON"])
def test_words_for_true(text):
    assert load(EMBEDDER_EXACT=text).exact is True


@pytest.mark.parametrize("text", ["0", "False", "no", "off"])
def test_words_for_false(text):
    assert load(EMBEDDER_EXACT=text).exact is False


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"MAX_BATCH": "0"}, "EMBEDDER_MAX_BATCH must be >= 1, got 0"),
        ({"MAX_BATCH": "65"}, "EMBEDDER_MAX_BATCH must be <= 64, got 65"),
        ({"MAX_BATCH": "many"}, "EMBEDDER_MAX_BATCH must be a whole number, got 'many'"),
        ({"MAX_BATCH": "1.5"}, "EMBEDDER_MAX_BATCH must be a whole number, got '1.5'"),
        ({"RATE": "nan"}, "EMBEDDER_RATE must be >= 0, got nan"),
        ({"RATE": "x"}, "EMBEDDER_RATE must be a number, got 'x'"),
        ({"EXACT": "maybe"}, "EMBEDDER_EXACT must be true or false, got 'maybe'"),
        ({"DEVICE": "tpu"}, "EMBEDDER_DEVICE must be one of auto, cpu, got tpu"),
        ({"THREADS": "0"}, "EMBEDDER_THREADS must be >= 1, got 0"),
        ({"MODEL": ""}, "--model or EMBEDDER_MODEL must be given"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_a_wrong_variable_is_named(env, message):
    with pytest.raises(ConfigError) as caught:
        load(**{f"EMBEDDER_{name}": value for name, value in env.items()})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--max-batch", "0"), "--max-batch must be >= 1, got 0"),
        (("--cache", ""), "--cache must be a path, got ''"),
    ],
)
def test_a_wrong_flag_is_named(argv, message):
    with pytest.raises(ConfigError) as caught:
        load(*argv, EMBEDDER_MAX_BATCH="5")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("argv", "env"), [(("--cache-bytes", "100"), {}), ((), {"EMBEDDER_CACHE_BYTES": "7", "EMBEDDER_CACHE": ""})]
)
def test_a_setting_that_means_nothing_alone_is_refused_and_both_are_named(argv, env):
    with pytest.raises(ConfigError) as caught:
        load(*argv, **env)
    assert str(caught.value) == (
        "--cache-bytes (EMBEDDER_CACHE_BYTES) means nothing without --cache (EMBEDDER_CACHE), which is not given"
    )


def test_a_setting_may_be_given_with_the_one_that_it_needs_from_any_source():
    assert load("--cache-bytes", "7", EMBEDDER_CACHE="folder").cache_bytes == 7


def test_a_setting_that_means_nothing_with_another_is_refused_and_both_are_named():
    with pytest.raises(ConfigError) as caught:
        load("--lists", "4", EMBEDDER_EXACT="true")
    assert str(caught.value) == "--lists (EMBEDDER_LISTS) means nothing with --exact (EMBEDDER_EXACT)"
    assert load("--lists", "7", "--no-exact").lists == 7
    assert load("--exact").lists == 4


def test_the_flags_can_be_those_of_a_subcommand():
    parser = argparse.ArgumentParser()
    serve = parser.add_subparsers().add_parser("serve")
    config.add_arguments(serve, Sample, "EMBEDDER")
    args = parser.parse_args(["serve", "--max-batch", "3"])
    assert config.from_namespace(Sample, "EMBEDDER", args, {"EMBEDDER_MODEL": "m"}).max_batch == 3


def test_the_help_names_flag_variable_and_default():
    parser = argparse.ArgumentParser()
    config.add_arguments(parser, Sample, "EMBEDDER")
    text = " ".join(parser.format_help().split())
    assert "--max-batch N largest batch, 100 % full (default 8, env EMBEDDER_MAX_BATCH)" in text
    assert "--model PATH the model (required, env EMBEDDER_MODEL)" in text
    assert "--device {auto,cpu} where to run (default auto, env EMBEDDER_DEVICE)" in text
    assert "--exact, --no-exact search exactly (default False, env EMBEDDER_EXACT)" in text
    assert "--threads N threads (not set by default, env EMBEDDER_THREADS)" in text


class TestUnheeded:
    def of(self, **env: str) -> list[str]:
        return config.unheeded(Sample, "VMMR_EMBEDDER", env)

    def test_a_misspelt_variable_is_told_with_the_nearest_setting(self):
        assert self.of(VMMR_EMBEDDER_MAXBATCH="3", VMMR_EMBEDDER_DEVICE="cpu", HOME="/") == [
            "VMMR_EMBEDDER_MAXBATCH is not read: there is no such setting; VMMR_EMBEDDER_MAX_BATCH is one"
        ]

    def test_a_variable_like_no_setting_is_told_as_well(self):
        assert self.of(VMMR_EMBEDDER_QQ="1") == ["VMMR_EMBEDDER_QQ is not read: there is no such setting"]

    def test_a_setting_without_the_prefix_s_first_word_is_told(self):
        assert self.of(EMBEDDER_MAX_BATCH="3") == [
            "EMBEDDER_MAX_BATCH is not read: the setting is VMMR_EMBEDDER_MAX_BATCH"
        ]

    def test_nothing_is_told_of_what_kubernetes_sets(self):
        """For Services called `embedder` and `vmmr-embedder`, in the forms that it documents."""
        address = "tcp://10.0.0.11:50051"
        services = {
            f"{service}_{name}": value
            for service in ("EMBEDDER", "VMMR_EMBEDDER")
            for name, value in {
                "SERVICE_HOST": "10.0.0.11",
                "SERVICE_PORT": "50051",
                "SERVICE_PORT_GRPC": "50051",
                "PORT": address,
                "PORT_50051_TCP": address,
                "PORT_50051_TCP_PROTO": "tcp",
                "PORT_50051_TCP_PORT": "50051",
                "PORT_50051_TCP_ADDR": "10.0.0.11",
            }.items()
        }
        assert config.unheeded(WithPort, "VMMR_EMBEDDER", services) == []


@dataclass(frozen=True)
class WithPort:
    port: int = option(50051, help="the port")


def test_the_address_of_a_kubernetes_service_is_no_setting():
    """A Service called `vmmr-embedder` sets the variable of the port in every container beside it."""
    parser = argparse.ArgumentParser()
    config.add_arguments(parser, WithPort, "VMMR_EMBEDDER")
    env = {"VMMR_EMBEDDER_PORT": "tcp://10.0.0.11:50051"}
    assert config.from_namespace(WithPort, "VMMR_EMBEDDER", parser.parse_args([]), env) == WithPort()
