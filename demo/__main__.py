"""The demo: from a folder of photos to answers over gRPC, through everything that vmmr is made of.

`python -m demo` draws cars and recognises them; `python -m demo --photos DIR` does the same with real photos.
"""

import argparse
from pathlib import Path

import vmmr

from demo import answers, direct
from demo.chain import Chain
from demo.commands import ROOT
from demo.screen import say, style
from demo.servers import serving
from svckit import cli

_WORK = ROOT / ".cache" / "demo"
_CLASSES, _PHOTOS = 36, 20
_MOST_ASKED = 200
_TIMEOUT_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo", description="From a folder of photos to answers over gRPC.")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="real photos, DIR/<label>/<file>, instead of drawn ones"
    )
    args = parser.parse_args()
    try:
        _real(args.photos.resolve()) if args.photos else _drawn()
    except vmmr.VmmrError as error:
        raise cli.CommandError(f"{type(error).__name__}: {error}") from error


def _drawn() -> None:
    say(style("bold", "\nvmmr, from a folder of photos to answers over gRPC\n"))
    chain = Chain(_WORK / "drawn" / "photos", _WORK / "drawn")
    chain.clear()
    chain.draw(classes=_CLASSES, photos=_PHOTOS)
    chain.split("stratified")
    _rest(chain)


def _real(photos: Path) -> None:
    say(style("bold", f"\nvmmr on the photos in {photos}\n"))
    chain = Chain(photos, _WORK / photos.name)
    chain.clear()
    chain.split("blog")
    _rest(chain)


def _rest(chain: Chain) -> None:
    chain.embed()
    chain.build()
    accuracy = chain.evaluate()
    with (
        serving(chain.index, chain.work) as pair,
        vmmr.Client(pair.embedder, pair.search, timeout_s=_TIMEOUT_S) as client,
    ):
        answered = answers.identify(client, chain.photos, answers.spread(chain.held_out(), _MOST_ASKED))
        direct.compare(client, chain, answered)
    say()
    answers.show(answered)
    say(f"\n{accuracy}")


if __name__ == "__main__":
    cli.run(main, "demo")
