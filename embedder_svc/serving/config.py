"""The settings of `vmmr-embedder serve`."""

from dataclasses import dataclass
from pathlib import Path

from embedder_svc.network.choice import PRECISION_SETTINGS
from embedder_svc.network.runtime import DEVICES
from embedder_svc.photos.preprocess import Limits
from svckit import shipped
from svckit.config import ConfigError, found, option
from svckit.server import ServerConfig

PREFIX = "VMMR_EMBEDDER"

# From 89.5 million pixels on, Pillow's own guard against decompression bombs warns.
_MAX_PIXELS = 89_000_000
# `--max-images` travels in GetModel's reply as a uint32.
_MAX_IMAGES = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig(ServerConfig):
    port: int = option(50051, minimum=0, maximum=65535, help="port to listen on; 0 takes any free one")
    model: Path = found(
        shipped.model,
        help="directory of the model bundle, or of several bundles of one model in different precisions",
        shown="the model that ships",
    )
    precision: str = option(
        "auto",
        choices=PRECISION_SETTINGS,
        help="the one of several bundles to serve; auto is fp16 on a GPU, and on a CPU int8 if it has instructions for it, else fp32",
    )
    device: str = option(
        "auto", choices=DEVICES, help="what runs the network; auto is CUDA where it works, else the CPU"
    )
    threads: int | None = option(
        None, minimum=1, help="photos a CPU runs at once, each on a thread; one a core if not set"
    )
    decode_threads: int | None = option(None, minimum=1, help="threads that decode photos; one a core if not set")
    max_batch: int | None = option(
        None, minimum=1, help="most photos in one run of the network; 1 on a CPU and 32 on a GPU if not set"
    )
    max_queue: int = option(256, minimum=1, help="photos in the server at once, all callers together; more are refused")
    cache_photos: int = option(
        0, minimum=0, help="photos whose embeddings are kept, to be answered at once when they come again; 0 for none"
    )
    max_images: int = option(32, minimum=1, maximum=_MAX_IMAGES, help="most photos in one call")
    max_image_bytes: int = option(20_000_000, minimum=1, help="most bytes in one encoded photo")
    max_image_pixels: int = option(
        25_000_000,
        minimum=1,
        maximum=_MAX_PIXELS,
        help="most pixels in one photo, before any crop; a JPEG may have eight times as many, as it is decoded smaller",
    )
    max_aspect_ratio: float = option(10.0, minimum=1, help="largest ratio of a photo's longer side to its shorter one")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_images > self.max_queue:
            raise ConfigError(f"--max-images must be <= --max-queue, got {self.max_images} and {self.max_queue}")
        if self.max_image_bytes > self.max_request_bytes:
            raise ConfigError(
                "--max-image-bytes must be <= --max-request-bytes, "
                f"got {self.max_image_bytes} and {self.max_request_bytes}"
            )

    @property
    def limits(self) -> Limits:
        return Limits(self.max_image_bytes, self.max_image_pixels, self.max_aspect_ratio)
