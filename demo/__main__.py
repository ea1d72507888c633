"""The demo: goes from a folder of photos to answers over gRPC, through every part of vmmr.

`python -m demo` asks the two servers as they ship, then draws cars, makes a gallery of them and recognises others.
`python -m demo --photos DIR` does the second part with real photos.
"""

import argparse
import signal
import sys
from pathlib import Path

import vmmr

from demo import answers, direct, shipped
from demo.chain import Chain
from demo.commands import ROOT
from demo.screen import say, style
from demo.servers import serving
from svckit import cli

_WORK = ROOT / ".cache" / "demo"
_CLASSES, _PHOTOS = 36, 20
_MOST_ASKED = 200
_TIMEOUT_S = 60.0
_IN_OTHER_WORDS = """
The rows are by the class of the nearest gallery photo, of any of the 5 nearest, of the 5 nearest classes, and by a vote
of the nearest photos. Next: a page to ask with, `vmmr-web serve` ("In a browser" in README.md), and "Your own photos" there.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo", description="From a folder of photos to answers over gRPC.")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="real photos, DIR/<label>/<file>, instead of drawn ones"
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", default=_WORK, help="folder for everything it makes (default: .cache/demo)"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the servers are stopped, too
    try:
        if args.photos:
            _real(args.photos.resolve(), args.work.resolve())
        else:
            _drawn(args.work.resolve())
    except vmmr.VmmrError as error:
        raise cli.CommandError(f"{type(error).__name__}: {error}") from error


def _drawn(work: Path) -> None:
    say(style("bold", "\nvmmr, from a folder of photos to answers over gRPC\n"))
    chain = Chain(work / "drawn/photos", work / "drawn")
    chain.clear()
    chain.draw(classes=_CLASSES, photos=_PHOTOS)
    shipped.ask(chain, Chain(shipped.REAL.resolve(), work / "shipped"))
    say(style("bold", "\nAnd with photos of your own: the drawn cars become the gallery\n"))
    chain.split("stratified")
    _embed_and_ask(chain)


def _real(photos: Path, work: Path) -> None:
    say(style("bold", f"\nvmmr on the photos in {photos}\n"))
    chain = Chain(photos, work / photos.name)
    chain.clear()
    chain.split("blog")
    _embed_and_ask(chain)


def _embed_and_ask(chain: Chain) -> None:
    chain.embed()
    chain.build()
    accuracy = chain.evaluate()
    with (
        serving(chain.work, chain.index) as pair,
        vmmr.Client(pair.embedder, pair.search, timeout_s=_TIMEOUT_S) as client,
    ):
        answered = answers.identify(client, chain.photos, answers.spread(chain.held_out(), _MOST_ASKED))
        direct.compare(client, chain, answered)
    say()
    answers.show(answered)
    say(f"\n{accuracy}")
    say(_IN_OTHER_WORDS)


if __name__ == "__main__":
    cli.run(main, "demo")
