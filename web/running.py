"""The program, put together: settings, the client of both services, what is remembered between requests, the routes, the process."""

import asyncio
from pathlib import Path

from svckit import tls, tracing
from svckit.metrics import Endpoint
from web.app import build
from web.config import WebConfig
from web.door.access import Access
from web.door.door import Door, connected
from web.door.kept import Kept
from web.door.metrics import WebMetrics
from web.door.process import serve
from web.door.rates import Rates


async def run(settings: WebConfig) -> None:
    """Serve until a signal. Raise ConfigError if a setting turns out to be wrong."""
    metrics = WebMetrics()
    traced = tracing.start("web") if settings.tracing else None
    certificate = _certificate(settings)
    if certificate:
        certificate.measure(metrics.registry)
    endpoint = _endpoint(settings, metrics)
    try:
        async with connected(settings, _token(settings.services_token_file)) as client:
            door = Door(
                settings=settings,
                client=client,
                access=Access(_token(settings.token_file)),
                rates=Rates(settings.calls_per_minute),
                kept=Kept(settings.keep_bytes),
            )
            metrics_port = endpoint.port if endpoint else None
            app = build(door, metrics, traced)
            await serve(app, settings, metrics_port=metrics_port, certificate=certificate, stopping=door.stop)
    finally:
        if traced:
            await asyncio.to_thread(traced.stop)
        if endpoint:
            await asyncio.to_thread(endpoint.stop)


def _endpoint(settings: WebConfig, metrics: WebMetrics) -> Endpoint | None:
    if settings.metrics_port is None:
        return None
    return Endpoint(metrics.registry, host=settings.host, port=settings.metrics_port)


def _certificate(settings: WebConfig) -> tls.ServerCertificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return tls.ServerCertificate(settings.tls_cert, settings.tls_key)


def _token(path: Path | None) -> str | None:
    return tls.read_token(path) if path else None
