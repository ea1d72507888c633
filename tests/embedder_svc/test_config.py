import re
from pathlib import Path

import pytest

from embedder_svc.config import PREFIX, EmbedderConfig
from svckit.config import ConfigError, load

ROOT = Path(__file__).parents[2]


def test_the_defaults_serve_the_model_that_ships():
    config = load(EmbedderConfig, PREFIX, [], {})
    assert config.port == 50051
    assert (ROOT / config.model / "model.json").exists()


def test_settings_come_from_variables_too():
    config = load(EmbedderConfig, PREFIX, ["--max-images", "3"], {"EMBEDDER_MAX_IMAGES": "5", "EMBEDDER_DEVICE": "cpu"})
    assert (config.max_images, config.device) == (3, "cpu")


@pytest.mark.parametrize(
    ("flags", "env", "message"),
    [
        ([], {"EMBEDDER_MAX_BATCH": "0"}, "EMBEDDER_MAX_BATCH must be >= 1, got 0"),
        (["--device", "tpu"], {}, "--device must be one of auto, cpu, cuda, tensorrt, got tpu"),
        (["--max-image-pixels", "100000000"], {}, "--max-image-pixels must be <= 89000000, got 100000000"),
        (["--max-images", "300"], {}, "--max-images must be <= --max-queue, got 300 and 256"),
        (
            ["--max-request-bytes", "1000"],
            {},
            "--max-image-bytes must be <= --max-request-bytes, got 20000000 and 1000",
        ),
        (["--tls-cert", "a"], {}, "--tls-cert and --tls-key go together, only one is given"),
    ],
)
def test_a_wrong_setting_is_named(flags, env, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load(EmbedderConfig, PREFIX, flags, env)
