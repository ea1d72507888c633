"""Ray Serve: an HTTP proxy, replicas behind it. POST /, a photo in, float32 bytes out."""

import asyncio
import os

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response
from work import BATCH, PORT, WAIT_MS, WORKERS, Work


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0})
class Embed:
    def __init__(self) -> None:
        self._work = Work()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_MS / 1e3)
    async def _answers(self, photos: list[bytes]) -> list[bytes]:
        return await asyncio.to_thread(self._work.answers, photos)

    async def __call__(self, request: Request) -> Response:
        photo = await request.body()
        answer = await self._answers(photo) if BATCH > 1 else await asyncio.to_thread(self._answer, photo)
        return Response(answer, media_type="application/octet-stream")

    def _answer(self, photo: bytes) -> bytes:
        return self._work.answers([photo])[0]


if __name__ == "__main__":
    ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, logging_level="warning")
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config=quiet)
    serve.run(Embed.bind(), blocking=True)
