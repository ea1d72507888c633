"""BentoML: uvicorn workers. POST /embed, a photo in, float32 bytes out.

No adaptive batching: it is for runs that are cheaper together, which a CPU's are not, and wants lists in the request.
"""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from work import WORKERS, Work


@bentoml.service(workers=WORKERS, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Embed:
    def __init__(self) -> None:
        self._work = Work()

    @bentoml.api
    def embed(self, photo: Annotated[Path, ContentType("image/jpeg")], /) -> bytes:
        return self._work.answers([photo.read_bytes()])[0]
