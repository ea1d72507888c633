import argparse
import re
from pathlib import Path

import pytest

from embedder_svc.serving.config import PREFIX, EmbedderConfig
from svckit.config import ConfigError, add_arguments, from_namespace

ROOT = Path(__file__).parents[3]


def load(flags, env):
    parser = argparse.ArgumentParser()
    add_arguments(parser, EmbedderConfig, PREFIX)
    return from_namespace(EmbedderConfig, PREFIX, parser.parse_args(flags), env)


def test_the_defaults_serve_the_model_that_ships():
    config = load([], {})
    assert config.port == 50051
    assert (ROOT / config.model / "model.json").exists()


def test_settings_come_from_variables_too():
    config = load(["--max-images", "3"], {"VMMR_EMBEDDER_MAX_IMAGES": "5", "VMMR_EMBEDDER_DEVICE": "cpu"})
    assert (config.max_images, config.device) == (3, "cpu")


def test_the_worst_photos_fit_the_memory_that_compose_gives():
    """Every decoding thread is at a photo of 19 bytes a pixel, as docs/embedder.md tells; the rest is for the process."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    threads, gigabytes = (int(re.search(pattern, text)[1]) for pattern in (r"VMMR_CPUS:-(\d+)", r"memory: \D*(\d+)g"))
    assert threads * 19 * EmbedderConfig().max_image_pixels < gigabytes * 2**30 * 0.6


@pytest.mark.parametrize(
    ("flags", "env", "message"),
    [
        ([], {"VMMR_EMBEDDER_MAX_BATCH": "0"}, "VMMR_EMBEDDER_MAX_BATCH must be >= 1, got 0"),
        (["--device", "tpu"], {}, "--device must be one of auto, cpu, cuda, tensorrt, got tpu"),
        (["--max-image-pixels", "100000000"], {}, "--max-image-pixels must be <= 89000000, got 100000000"),
        (
            ["--max-images", "300"],
            {},
            "--max-images (VMMR_EMBEDDER_MAX_IMAGES) must be <= --max-queue (VMMR_EMBEDDER_MAX_QUEUE), got 300 and 256",
        ),
        (
            ["--max-request-bytes", "1000"],
            {},
            (
                "--max-image-bytes (VMMR_EMBEDDER_MAX_IMAGE_BYTES) must be <= "
                "--max-request-bytes (VMMR_EMBEDDER_MAX_REQUEST_BYTES), got 20000000 and 1000"
            ),
        ),
        (
            ["--tls-cert", "a"],
            {},
            "--tls-cert (VMMR_EMBEDDER_TLS_CERT) and --tls-key (VMMR_EMBEDDER_TLS_KEY) go together, only one is given",
        ),
        (
            [],
            {"VMMR_EMBEDDER_MAX_REQUEST_BYTES": "3000000000"},
            "VMMR_EMBEDDER_MAX_REQUEST_BYTES must be <= 2147483647, got 3000000000",
        ),
        (
            [],
            {"VMMR_EMBEDDER_MAX_IMAGES": "4294967296"},
            "VMMR_EMBEDDER_MAX_IMAGES must be <= 4294967295, got 4294967296",
        ),
    ],
)
def test_a_wrong_setting_is_named(flags, env, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load(flags, env)
