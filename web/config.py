"""The settings of `vmmr-web serve`."""

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from svckit import logs
from svckit.config import ConfigError, option

PREFIX = "VMMR_WEB"


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    host: str = option("127.0.0.1", help="address to listen on; 0.0.0.0 for every interface")
    port: int = option(8080, minimum=0, maximum=65535, help="port to listen on; 0 takes any free one")
    metrics_port: int | None = option(
        None, minimum=0, maximum=65535, help="port of the Prometheus endpoint /metrics; 0 takes any free one"
    )
    port_file: Path | None = option(None, help="file to write the ports to, as JSON, once ready")
    tls_cert: Path | None = option(None, help="PEM certificate chain; turns TLS on")
    tls_key: Path | None = option(None, help="PEM private key of the certificate")
    trusted_proxies: str = option(
        "",
        help="addresses or networks of proxies, with commas between them, whose X-Forwarded-For and X-Forwarded-Proto are believed",
    )
    token_file: Path | None = option(
        None, help="file with the token of those who may change the gallery; without it, nobody may"
    )
    embedder: str = option("127.0.0.1:50051", help="where the embedder is")
    search: str = option("127.0.0.1:50052", help="where the search service is")
    services_tls: bool = option(False, help="connect to both services with TLS")
    services_tls_ca: Path | None = option(None, help="PEM certificates to trust of the services; turns their TLS on")
    services_tls_cert: Path | None = option(
        None, help="PEM certificate chain to show to the services, for mutual TLS; turns their TLS on"
    )
    services_tls_key: Path | None = option(None, help="PEM private key of that certificate")
    services_token_file: Path | None = option(None, help="file with the bearer token that the services want")
    photos: Path | None = option(None, help="folder with the gallery's photos, as the items' uris name them")
    timeout_s: float = option(
        30.0, minimum=0.001, maximum=3600, help="seconds that a call may take; a caller may ask for fewer"
    )
    max_photo_bytes: int = option(20_000_000, minimum=1, help="most bytes of one photo")
    max_upload_bytes: int = option(32 * 2**20, minimum=1, help="most bytes of one request")
    max_photos: int = option(32, minimum=1, maximum=10_000, help="most photos of one request")
    upload_timeout_s: float = option(60.0, minimum=0.001, help="seconds that a request has to arrive")
    max_concurrent_calls: int = option(
        32, minimum=1, maximum=2**20, help="requests with photos at once; more are refused"
    )
    calls_per_minute: int = option(
        120,
        minimum=0,
        help="requests with photos, or with a token, that an address may send a minute; 0 for any number",
    )
    keep_bytes: int = option(
        256 * 2**20, minimum=0, help="bytes of photos and answers that are kept in memory, for links to answers"
    )
    allow_private: bool = option(False, help="fetch photos from private addresses too, if a URL names them")
    drain_pause_s: float = option(
        0.5, minimum=0, help="seconds between telling health checks that the server stops and refusing new calls"
    )
    drain_s: float = option(20.0, minimum=0, help="seconds that calls have to end when the server stops")
    log_level: str = option("info", choices=logs.LEVELS, help="least level that is logged")
    log_format: str = option("json", choices=logs.FORMATS, help="form of the log on stderr")
    tracing: bool = option(False, help="export spans of requests by OTLP, as OpenTelemetry's variables say (OTEL_*)")

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together, only one is given")
        if (self.services_tls_cert is None) != (self.services_tls_key is None):
            raise ConfigError("--services-tls-cert and --services-tls-key go together, only one is given")
        if self.max_photo_bytes > self.max_upload_bytes:
            raise ConfigError(
                f"--max-photo-bytes must be <= --max-upload-bytes, got {self.max_photo_bytes} and {self.max_upload_bytes}"
            )
        if self.photos is not None and not self.photos.is_dir():
            raise ConfigError(f"--photos: there is no folder {self.photos.absolute()}")
        for proxy in self.proxies:
            _check_network(proxy)

    @property
    def proxies(self) -> list[str]:
        return [part.strip() for part in self.trusted_proxies.split(",") if part.strip()]


def _check_network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError as error:
        raise ConfigError(f"--trusted-proxies must be addresses or networks, got {text!r}: {error}") from error
