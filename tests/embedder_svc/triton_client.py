"""Asks a server with NVIDIA's own client, and prints the answers as JSON: `python triton_client.py PORT PHOTO...`.

It is a program of its own, because tritonclient wants another protobuf than ours, and registers the same messages.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

PORT, *PATHS = sys.argv[1:]
MODEL = "tiny"


def tensor(photos, *columns):
    values = np.array(photos, np.object_).reshape(len(photos), *columns)
    given = triton.InferInput("images", values.shape, "BYTES")
    given.set_data_from_numpy(values)
    return given


def pixels():
    given = triton.InferInput("images", [1, 32, 32, 3], "UINT8")
    given.set_data_from_numpy(np.zeros((1, 32, 32, 3), np.uint8))
    return given


def rows(answer):
    return answer.as_numpy("embeddings").tolist()


def refusal(client, model, given, **options):
    try:
        client.infer(model, [given], **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]


def heard(client, photos):
    one = triton.InferRequestedOutput("embeddings")
    named = client.infer(MODEL, [tensor(photos, 1)], request_id="seven", outputs=[one])
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(MODEL, as_json=True),
        "config": client.get_model_config(MODEL, as_json=True)["config"],
        "flat": rows(client.infer(MODEL, [tensor(photos)])),
        "column": rows(named),
        "id": named.get_response().id,
        "one": rows(client.infer(MODEL, [tensor(photos[:1])], compression_algorithm="gzip")),
        "unknown_model": refusal(client, "resnet50", tensor(photos)),
        "unknown_version": refusal(client, MODEL, tensor(photos), model_version="7"),
        "pixels": refusal(client, MODEL, pixels()),
        "bad_photo": refusal(client, MODEL, tensor([*photos, b"text"])),
        "no_output": refusal(client, MODEL, tensor(photos), outputs=[triton.InferRequestedOutput("logits")]),
        "classes": refusal(
            client, MODEL, tensor(photos), outputs=[triton.InferRequestedOutput("embeddings", class_count=3)]
        ),
    }


with triton.InferenceServerClient(f"127.0.0.1:{PORT}") as server:
    contents = []
    for path in PATHS:
        with open(path, "rb") as file:  # noqa: PTH123
            contents.append(file.read())
    print(json.dumps(heard(server, contents)))
