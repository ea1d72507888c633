"""Draws the trace of one `identify`: `python -m bench.pair.trace [--photos DIR]`.

Starts the pair that ships with `--tracing` and a receiver of OTLP, identifies photos, each within a span of this program, prints
the spans of the quickest as a tree, and draws them as docs/trace.svg. The gallery is given a photo first, so that all stages are
there. What it prints is stored in bench/results/trace.json.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import vmmr
from matplotlib.figure import Figure
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from bench.lib import machine
from bench.lib.otlp import Received, Span, receiving
from bench.lib.paths import CARS, RESULTS, ROOT
from bench.lib.photos import photos_of
from bench.lib.servers import serving
from svckit import shipped

OUT = RESULTS / "trace.json"
PICTURE = ROOT / "docs" / "trace.svg"
COLOURS = {"caller": "#8c8c8c", "vmmr-embedder": "#1f5f99", "vmmr-search": "#c26a12"}
CALLS = 40
_NO_BREAK = "\u00a0"
"""A space that SVG keeps at the beginning of a text."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    with receiving() as (received, endpoint), tempfile.TemporaryDirectory() as folder:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        spans = traced(received, photos, Path(folder) / "gallery")
    rows = list(tree(spans))
    for depth, span in rows:
        print(f"{'  ' * depth + span.name:60} {span.service:14} {span.ms:8.2f} ms")
    draw(rows)
    told = [
        {"depth": depth, "service": span.service, "name": span.name, "ms": round(span.ms, 3)} for depth, span in rows
    ]
    OUT.write_text(json.dumps({"machine": machine.describe(), "photos": source, "spans": told}, indent=1) + "\n")


def traced(received: Received, photos: Sequence[bytes], gallery: Path) -> list[Span]:
    """Identify photos, and return the spans of the trace that took least: the machine may do other things."""
    shutil.copytree(shipped.gallery(), gallery)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "caller"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    with (
        serving("embedder_svc", "--tracing") as embedder,
        serving("search_svc", "--tracing", "--index", gallery) as search,
        vmmr.Client(embedder.address, search.address, timeout_s=60) as client,
    ):
        list(client.add_photos([vmmr.NewItem(photos[0], label="drawn_car_2020")]))
        for number in range(CALLS):
            with provider.get_tracer("bench").start_as_current_span("identify"):
                client.identify(photos[number % len(photos)])
    # The servers have exported what they had before they ended.
    roots = [span for span in received.spans if span.name == "identify"]
    quickest = min(roots, key=lambda span: span.ms).trace_id
    return [span for span in received.spans if span.trace_id == quickest]


def tree(spans: Sequence[Span], parent: str = "", depth: int = 0) -> Iterator[tuple[int, Span]]:
    """Yield each span with its depth, those of a parent below it in the order of their beginning."""
    for span in sorted((each for each in spans if each.parent_id == parent), key=lambda each: each.began_ns):
        yield depth, span
        yield from tree(spans, span.span_id, depth + 1)


def draw(rows: Sequence[tuple[int, Span]]) -> None:
    mpl.rcParams |= {"svg.hashsalt": "vmmr", "svg.fonttype": "none"}
    figure = Figure(figsize=(9, 0.6 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    start = rows[0][1].began_ns
    for row, (_, span) in enumerate(rows):
        left = (span.began_ns - start) / 1e6
        axes.barh(row, max(span.ms, 0.02), left=left, height=0.7, color=COLOURS[span.service])
        axes.annotate(f" {span.ms:.2f}", (left + span.ms, row), va="center", fontsize=8)
    axes.set_yticks(
        range(len(rows)), [_NO_BREAK * 4 * depth + _short(span) for depth, span in rows], fontsize=8, ha="left"
    )
    axes.tick_params(axis="y", length=0, pad=200)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_xlim(0, 1.08 * rows[0][1].ms)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [axes.barh(0, 0, color=colour) for colour in COLOURS.values()]
    axes.legend(handles, list(COLOURS), loc="lower left", frameon=False, fontsize=8)
    figure.savefig(PICTURE, metadata={"Date": None})


def _short(span: Span) -> str:
    return span.name.rpartition(".")[2]


if __name__ == "__main__":
    main()
