"""LitServe: a FastAPI process, workers behind it. POST /predict, a photo as a form's file in, float32 bytes out."""

import litserve
from fastapi import Request, Response
from work import BATCH, PORT, WAIT_MS, WORKERS, Work


class Embed(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 (always the CPU)
        self._work = Work()

    def decode_request(self, request: Request) -> bytes:
        return request["photo"].file.read()

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def predict(self, photos):  # noqa: ANN001, ANN201 (one or a list of them, as LitServe has it)
        return self._work.answers(photos) if BATCH > 1 else self._work.answers([photos])[0]

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    batching = {"max_batch_size": BATCH, "batch_timeout": WAIT_MS / 1e3} if BATCH > 1 else {}
    server = litserve.LitServer(Embed(**batching), accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
