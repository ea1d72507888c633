"""Writes the corpus anew, but for inputs that were found: `python -m tests.fuzz.seeds`. All of it is drawn or made up."""

import io
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.gallery.v1 import gallery_pb2
from vmmr.inference.v2 import inference_pb2
from vmmr.search.v1 import search_pb2

from tests.flips.scenes import MODEL, D
from tests.fuzz.files import Bundle, Index
from tests.fuzz.messages import METHODS

CORPUS = Path(__file__).parent / "corpus"
ITEMS = """\
path,label,make,model,year,split,no_car_found,cars,left,top,right,bottom,car_score
a/1.jpg,honda_civic_2005,honda,civic,2005,train,False,1,0.25,0.125,0.75,1.0,0.875
"b/2, ""x"".jpg",lada_niva,lada,niva,,dev,True,0,0.0,0.0,1.0,1.0,0.0
"""


def main() -> None:
    for target, name, content in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def seeds() -> Iterator[tuple[str, str, bytes]]:
    for name, content in photos().items():
        yield "photo", name, content
    yield "crop", "part", struct.pack("<4f", 0.25, 0.125, 0.75, 0.875)
    yield "crop", "outside", struct.pack("<4f", -1, 0, float("nan"), float("inf"))
    yield "crop", "thin", struct.pack("<4f", 0.5, 0, 0.5000001, 1)
    for method, message in messages():
        yield "message", method.partition("/")[2], bytes([METHODS.index(method)]) + message
    yield "csv", "items", ITEMS.encode()
    yield "csv", "excluded", b'\xef\xbb\xbfpath,why\r\na/1.jpg,copy\r\n"b,2.jpg",\r\n'
    with tempfile.TemporaryDirectory() as folder:
        index, bundle = Index(Path(folder) / "index"), Bundle(Path(folder) / "bundle")
        yield "calibration", "fitted", index.calibration
        yield "index manifest", "built", index.manifest
        yield "model.json", "tiny", bundle.description
    embeddings = {
        "kind": "embeddings",
        "count": 2,
        "dimension": D,
        "model": MODEL,
        "model_name": "x",
        "normalized": True,
    }
    yield "embeddings manifest", "two", json.dumps({**embeddings, "files": {}, "sha256": ""}).encode()
    for place in (0, 700, 4000):
        flip = bytes([5]) + place.to_bytes(3, "little") + b"\x03"
        yield "index", f"flip-{place}", bytes([place % 7]) + flip
        yield "journal", f"flip-{place}", bytes([place % 7]) + flip


def photos() -> dict[str, bytes]:
    y, x = np.mgrid[0:18, 0:24]
    pixels = np.stack([10 * x, 14 * y, 127 + 60 * np.sin(x)], axis=-1).astype(np.uint8)
    image = Image.fromarray(pixels)
    options = {"JPEG": {"quality": 60}, "PNG": {}, "WEBP": {}, "GIF": {}, "BMP": {}, "AVIF": {"speed": 10}}
    found = {form.lower(): _encoded(image, form, **kwargs) for form, kwargs in options.items()}
    found["progressive"] = _encoded(image, "JPEG", progressive=True, exif=_turned())
    found["cmyk"] = _encoded(image.convert("CMYK"), "JPEG")
    found["grey16"] = _encoded(Image.fromarray((pixels[..., 0].astype(np.uint16)) << 8), "PNG")
    found["palette"] = _encoded(image.quantize(8), "PNG", transparency=0)
    found["animated"] = _encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)])
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, enc_params={"preset": "ultrafast"})
    return found | {"heic": file.getvalue()}


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def messages() -> Iterator[tuple[str, bytes]]:
    """Messages that are answered, a method each."""
    photo = photos()["png"]
    images = [
        embedder_pb2.Image(content=photo, crop=embedder_pb2.Box(left=0, top=0, right=0.5, bottom=1)),
        embedder_pb2.Image(content=photo, subject=embedder_pb2.SUBJECT_EVERY_CAR),
    ]
    queries = wire.pack(MODEL, np.eye(D, dtype=np.float32)[:1])
    options = search_pb2.SearchOptions(k=3, exact=True)
    cut = embedding_pb2.Cut(left=0, top=0, right=1, bottom=1, car_score=0.5)
    item = gallery_pb2.Item(item_id="new", label="lada_niva_1999", uri="x", attributes={"a": "b"}, cut=cut)
    infer = inference_pb2.ModelInferRequest(model_name="tiny")
    tensor = infer.inputs.add(name="images", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(photo)
    made = {
        "Embed": embedder_pb2.EmbedRequest(images=images),
        "Detect": embedder_pb2.DetectRequest(images=[embedder_pb2.Image(content=photo)]),
        "ModelInfer": infer,
        "ModelReady": inference_pb2.ModelReadyRequest(name="tiny"),
        "ModelMetadata": inference_pb2.ModelMetadataRequest(name="tiny"),
        "ModelConfig": inference_pb2.ModelConfigRequest(name="tiny"),
        "Search": search_pb2.SearchRequest(queries=queries, options=options),
        "Classify": search_pb2.ClassifyRequest(queries=queries, options=options, cuts=[cut]),
        "ListLabels": search_pb2.ListLabelsRequest(page_size=2),
        "AddItems": gallery_pb2.AddItemsRequest(items=[item], embeddings=queries),
        "DeleteItems": gallery_pb2.DeleteItemsRequest(item_ids=gallery_pb2.ItemIds(item_ids=["photo 1"])),
        "GetItem": gallery_pb2.GetItemRequest(item_id="photo 2"),
        "ListItems": gallery_pb2.ListItemsRequest(page_size=2),
    }
    for method in METHODS:
        message = made.get(method.rpartition("/")[2])
        yield method, message.SerializeToString() if message is not None else b""


if __name__ == "__main__":
    main()
