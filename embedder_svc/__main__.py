"""`vmmr-embedder`: the server from photos to embeddings, and the offline steps of a model.

The server is put together here: photos are decoded in threads, batched across calls, and run through one network.
"""

from vmmr_entry import quietly

from svckit.extras import needing_services

with needing_services("vmmr-embedder"):
    import argparse
    import asyncio
    import sys
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack, asynccontextmanager, closing
    from typing import TYPE_CHECKING, cast

    from vmmr.embedder.v1 import embedder_pb2_grpc
    from vmmr.inference.v2 import inference_pb2_grpc

    from embedder_svc.exporting import command as export_command
    from embedder_svc.network import fetch_command, info_command
    from embedder_svc.network.choice import choose_bundle
    from embedder_svc.network.detector import Detector, View
    from embedder_svc.network.model import Model
    from embedder_svc.network.runtime import on_gpu
    from embedder_svc.offline import command as embed_command
    from embedder_svc.serving import kserve
    from embedder_svc.serving.cache import Cache
    from embedder_svc.serving.config import PREFIX, EmbedderConfig
    from embedder_svc.serving.decoder import Decoder, Pixels
    from embedder_svc.serving.kserve import KServeService
    from embedder_svc.serving.looking import Finder
    from embedder_svc.serving.pipeline import Embedding, Pipeline
    from embedder_svc.serving.service import SERVICE, EmbedderService
    from embedder_svc.training import command as train_command
    from svckit import cli, config, supervisor
    from svckit.config import ConfigError
    from svckit.cores import cores
    from svckit.metrics import Metrics
    from svckit.server import Server
    from svckit.turns import beyond
    from svckit.worker import Worker

if TYPE_CHECKING:
    from embedder_svc.network.cars import Car
    from embedder_svc.network.choice import PrecisionSetting
    from embedder_svc.network.runtime import Device
    from svckit.batcher import Batcher

PROGRAM = "vmmr-embedder"


def main() -> None:
    quietly(lambda: cli.run(_command, PROGRAM))


def _command() -> None:
    if sys.argv[1:2] == ["serve"]:
        supervisor.log_from_the_start(PREFIX, sys.argv)
    args = parser().parse_args()
    args.run(args)


def parser() -> argparse.ArgumentParser:
    program = cli.Parser(PROGRAM, description="Photos to embeddings.")
    cli.add_version(program)
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="answer gRPC calls",
        description="Serves vmmr.embedder.v1.EmbedderService, and KServe v2.",
        allow_abbrev=False,
    )
    config.add_arguments(serve, EmbedderConfig, PREFIX)
    serve.set_defaults(run=lambda args: supervisor.serve(_serve, EmbedderConfig, PREFIX, args, PROGRAM))
    for command in (info_command, fetch_command, export_command, embed_command, train_command):
        command.add(commands)
    return program


async def _serve(settings: EmbedderConfig, worker: Worker | None) -> None:
    if not settings.model.is_dir():
        raise ConfigError(f"--model (VMMR_EMBEDDER_MODEL): there is no folder {settings.model.absolute()}")
    server = Server(settings, name="embedder", worker=worker)
    native = EmbedderService(settings)
    server.add(
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server,
        native,
        SERVICE,
        before=native.before,
    )
    open_inference = KServeService(lambda: server.ready)
    server.add(
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server,
        open_inference,
        kserve.SERVICE,
        always=kserve.ALWAYS,
        before={"ModelInfer": native.check_room},
    )
    resources = AsyncExitStack()

    async def warm_up() -> None:
        model = await asyncio.to_thread(_warm_model, settings)
        pipeline = await resources.enter_async_context(_pipeline(model, settings, server.metrics))
        native.open(pipeline)
        open_inference.open(pipeline)

    await server.run(warm_up, close=resources.aclose)


def _warm_model(settings: EmbedderConfig) -> Model:
    device = cast("Device", settings.device)
    precision = cast("PrecisionSetting", settings.precision)
    model = Model.open(
        choose_bundle(settings.model, precision, gpu=on_gpu(device)),
        device=device,
        threads=settings.threads,
        max_batch=settings.max_batch,
    )
    model.warm_up()
    return model


@asynccontextmanager
async def _pipeline(model: Model, settings: EmbedderConfig, metrics: Metrics) -> AsyncIterator[Pipeline]:
    """Yield the pipeline from photos to embeddings; afterwards, stop its threads."""
    threads = settings.decode_threads or cores()
    hit = metrics.counter("vmmr_cached_photos", "Photos whose embedding was kept from an earlier call")
    cache = Cache(settings.cache_photos, hit) if settings.cache_photos else None
    batcher: Batcher[Pixels, Embedding] = metrics.batcher(
        "embed",
        lambda pixels: list(model.embed_in_lane(pixels)),
        alone=lambda pixels: list(model.embed_alone(pixels)),
        lanes=model.lanes,
        max_batch=model.max_batch,
        max_queue=beyond(settings.max_queue),
        stage="network",
    )
    with closing(Decoder(model.info.resizing, settings.limits, threads=threads)) as decoder:
        async with batcher, _finder(model.detector, decoder, settings, metrics) as finder:
            yield Pipeline(
                model,
                decoder,
                batcher,
                max_images=settings.max_images,
                max_queue=settings.max_queue,
                finder=finder,
                cache=cache,
            )


@asynccontextmanager
async def _finder(
    detector: Detector | None, decoder: Decoder, settings: EmbedderConfig, metrics: Metrics
) -> AsyncIterator[Finder | None]:
    """Yield what finds the cars, if the model has a detector; afterwards, stop its threads."""
    if detector is None:
        yield None
        return
    if settings.max_queue < detector.info.max_cars:
        raise ConfigError(
            f"--max-queue must be >= {detector.info.max_cars}, the most cars of a photo, got {settings.max_queue}"
        )
    batcher: Batcher[View, list[Car]] = metrics.batcher(
        "detect",
        detector.find,
        lanes=detector.lanes,
        max_batch=detector.max_batch,
        max_queue=beyond(settings.max_queue),
    )
    without = metrics.counter("vmmr_photos_without_car", "Photos in which cars were looked for, and none was found")
    async with batcher:
        yield Finder(decoder, detector, batcher, without)


if __name__ == "__main__":
    main()
