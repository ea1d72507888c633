"""Asks the two servers as they ship, with the model and the gallery in `models/`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import vmmr

from demo import answers
from demo.chain import Chain, held_out
from demo.screen import say, step
from demo.servers import serving

REAL = Path("../shared/data/stanford_cars/train")
"""The photos that the gallery was made from, on a machine that has them."""

_DRAWN, _REAL = 36, 24
_TIMEOUT_S = 60.0


def ask(drawn: Chain, real: Chain) -> None:
    """Ask for drawn cars, which the gallery lacks, and for real ones that were held out of it, if their photos are there."""
    with serving(drawn.work) as pair, vmmr.Client(pair.embedder, pair.search, timeout_s=_TIMEOUT_S) as client:
        _ask_for_unknown(client, drawn.photos)
        answered = _ask_for_known(client, real) if real.photos.is_dir() else []
    if answered:
        say()
        answers.show(answered)


def _ask_for_unknown(client: vmmr.Client, folder: Path) -> None:
    with step("unknown") as asking:
        photos = answers.spread(sorted(folder.glob("*/*.jpg")), _DRAWN)
        found = [outcome.result() for outcome in client.identify_many(photos)]
        verdicts = Counter(each.verdict for each in found)
        asking.result = (
            f"{len(photos)} drawn cars, which the gallery lacks: {verdicts['unknown']} got the verdict unknown"
        )


def _ask_for_known(client: vmmr.Client, real: Chain) -> Sequence[answers.Answered]:
    real.work.mkdir(parents=True, exist_ok=True)
    real.split("blog")
    return answers.identify(client, real.photos, answers.spread(held_out(real.manifest), _REAL))
