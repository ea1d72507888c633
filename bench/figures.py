"""Figures in the documentation, and the stored results that they come from: `python -m bench.figures [--write]`.

A figure is a number that was measured: one with a unit of measure (`3.5 ms`, `89 %`), one with its interval (`0.97 [0.86, 1.11]`), or one
in a cell of a table that has nothing but numbers. Behind the paragraph, list or table that has it, a comment that readers do not see says for
each where it is from, a line a figure:

    <!-- figures
    86.1 [83.8, 88.3] = 100 x shipped.json > scores > level=label & measure=nearest, top-1
    0.97 [0.86, 1.11] = chain.json > figures > identify_many / the slower service alone
    3.5 = waterfall.json > stages_ms > decoding
    13 = 1000 divided by chain.json > figures > identify_many: CPU ms a photo, embedder
    95 is fixed
    60, 1,024 are fixed
    rows of bench.search.index:tables
    -->

The path leads through a file of bench/results, by keys, numbers of a list, or what an item of a list is. With an interval it ends at an object
with `value`, `low` and `high` (or `least` and `most`), or at a list, of which the figure is the median and the interval the least and the most. Of a list without an
interval it is the median; `min of`, `max of`, `sum of` and `count of` take another, of an object's values, too. `divided by`, `minus` and `plus` are
worked out from the left to the right. Other numbers may have a line, too. What was not measured `is` one of KINDS. Rows of tables may be those that a function of
a bench prints.

Without --write this prints what is wrong: figures that are not what is stored, and those without a line. With it the documentation gets the stored ones.
"""

import argparse
import contextlib
import functools
import importlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.lib.paths import ROOT
from bench.lib.stored import WrongError, values

KINDS = {
    "fixed": "a setting, a limit, a format or a definition of ours",
    "wanted": "what was aimed at",
    "cited": "measured by others, who are named",
    "calculated": "worked out from figures of the page, as it says",
    "example": "a number to explain something by",
}
"""Kinds of numbers that look like figures, and are none."""

NUMBER = r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.])\d+(?:\.\d+)?"
_UNIT = r"(?:%|ms|µs|ns|s|[kKMG]i?B|[a-z]+/s|/s)(?![\w/-])"
_NEXT = r"\s*(?:/|,|-|to|and|or|of)\s*"
_WITH_UNIT = re.compile(rf"(?:{NUMBER})(?:{_NEXT}[+-]?(?:{NUMBER}))*(?:\s|\*\*)*{_UNIT}")
_WITH_INTERVAL = re.compile(rf"(?:{NUMBER})\s*\[[+-]?(?:{NUMBER}),\s*[+-]?(?:{NUMBER})\]")
_CELL = re.compile(rf"[\s*+~<>=x/,\[\]()-]*(?:{NUMBER})(?:[\s*+x/,%\[\]()-]|{NUMBER}|{_UNIT})*")
_YEAR = re.compile(r"(19|20)\d\d")
_NUMBER = re.compile(NUMBER)
_COMMENT = re.compile(r"<!-- figures\n(.*?)-->", re.DOTALL)
_NOT_TEXT = re.compile(r"`[^`\n]*`|\]\([^)]*\)|<!--.*?-->|https?://\S+", re.DOTALL)
_ROWS = "rows of "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the stored figures into the documentation")
    args = parser.parse_args()
    if args.write:
        for page in pages():
            try:
                page.write_text(rewritten(page.read_text()))
            except WrongError as error:
                sys.exit(f"{page.relative_to(ROOT)}: {error}")
    wrong = [f"{page.relative_to(ROOT)}: {each}" for page in pages() for each in check(page.read_text())]
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


def pages() -> list[Path]:
    """Return the pages whose figures are checked: README, docs and cards, but for docs/adr, which say what was known on their day."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "models").glob("*/README.md"))]


def check(text: str) -> Iterator[str]:
    """Yield what is wrong with the figures of a page."""
    for block, comment in _blocks(text):
        free = _numbers(block)
        for line in comment:
            try:
                yield from _check_line(line, block, free)
            except WrongError as error:
                yield f"{error}: {line}"
        for each in free:
            if each.is_figure:
                yield f"`{each.text}` has no line: {_around(block, each.start)}"


def _check_line(line: str, block: str, free: list["Number"]) -> Iterator[str]:
    """Take the numbers that the line is about out of the free ones; yield what is wrong with them."""
    if line.startswith(_ROWS):
        printed = _printed(line.removeprefix(_ROWS))
        free[:] = _without_rows(block, free, printed)
        return
    for source in Source.read(line):
        _taken(source, free)
        if (now := source.now()) != source.figure:
            yield f"`{source.figure}` is {now} in {source.path}"


def rewritten(text: str) -> str:
    """Return the page with every figure that has a stored result as that is now."""
    parts = []
    for block, comment in _blocks(text):
        free, edits, lines = _numbers(block), [], []
        for line in comment:
            now = line
            for source in [] if line.startswith(_ROWS) else Source.read(line):
                numbers = _NUMBER.findall(source.now())
                edits += [(old.start, old.end, new) for old, new in zip(_taken(source, free), numbers, strict=True)]
                now = now.replace(source.figure, source.now(), 1)
            lines.append(now)
        for start, end, new in sorted(edits, reverse=True):
            block = block[:start] + new + block[end:]  # noqa: PLW2901 (from its end on, so that places stay true)
        parts.append(block + ("<!-- figures\n" + "".join(f"{line}\n" for line in lines) + "-->" if comment else ""))
    return "".join(parts)


@dataclass(frozen=True)
class Source:
    """A line of a comment: a figure, as the page has it, and where it is from."""

    figure: str
    path: str
    is_kind: bool

    @classmethod
    def read(cls, line: str) -> list["Source"]:
        """Return what a line says: of one figure, or of several that are of a kind."""
        figure, found, path = line.partition(" = ")
        if found:
            return [cls(figure, path, is_kind=False)]
        figures, found, kind = re.fullmatch(r"(.*?)(?: (is|are) (\w+))?", line).groups()
        if not found or kind not in KINDS:
            raise WrongError(f"neither `FIGURE = PATH` nor `FIGURE is {' | '.join(KINDS)}`")
        return [cls(figure, kind, is_kind=True) for figure in (figures.split(", ") if found == "are" else [figures])]

    def now(self) -> str:
        """Return the figure as it should be, with as many decimals as it has."""
        if self.is_kind:
            return self.figure
        shown = _NUMBER.findall(self.figure)
        found = values(self.path, interval=len(shown) > 1)
        if len(found) != len(shown):
            raise WrongError(f"{len(shown)} numbers, and {len(found)} are stored")
        signs = [sign for sign, _ in re.findall(rf"(?<![\w)])([+-]?)({NUMBER})", self.figure)]
        if any(value * float(f"{sign}1") < 0 for sign, value in zip(signs, found, strict=True) if sign):
            raise WrongError("the sign is another")
        pairs = iter(zip(shown, found, strict=True))
        return _NUMBER.sub(lambda _: _written(*next(pairs)), self.figure)


def _written(like: str, value: float) -> str:
    """Return the value with as many decimals as a number has, and that number itself if it is the value, rounded up or down."""
    decimals = len(like.partition(".")[2])
    if abs(float(like.replace(",", "")) - abs(value)) <= 0.5 * 10**-decimals * (1 + 1e-9):
        return like
    text = f"{abs(value):,.{decimals}f}"
    return text if "," in like else text.replace(",", "")


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the text up to each comment, and the comment's lines; at last, what follows the last."""
    start = 0
    for comment in _COMMENT.finditer(text):
        yield text[start : comment.start()], comment[1].splitlines()
        start = comment.end()
    yield text[start:], []


@dataclass(frozen=True)
class Number:
    """A number in a block, and whether it is a figure, which must have a line."""

    text: str
    start: int
    end: int
    is_figure: bool


def _numbers(block: str) -> list[Number]:
    figures = _places_of_figures(block)
    return [Number(each[0], *each.span(), each.start() in figures) for each in _NUMBER.finditer(_text_of(block))]


def _taken(source: Source, free: list[Number]) -> list[Number]:
    """Take the figure's numbers, one behind the other, out of those of a block that no line has named: the first that are figures, or others."""
    texts = _NUMBER.findall(source.figure)
    places = [at for at in range(len(free)) if [each.text for each in free[at : at + len(texts)]] == texts]
    if not places:
        raise WrongError("there is no such figure, or no other one, in what precedes the comment")
    at = min(places, key=lambda place: (not free[place].is_figure, place))
    taken = free[at : at + len(texts)]
    del free[at : at + len(texts)]
    return taken


@functools.cache
def _printed(name: str) -> frozenset[str]:
    """Return the lines that a function of a bench, `MODULE:FUNCTION`, prints of the stored results."""
    module, _, function = name.partition(":")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        getattr(importlib.import_module(module), function)()
    return frozenset(printed.getvalue().splitlines())


def _without_rows(block: str, free: list[Number], printed: frozenset[str]) -> list[Number]:
    """Return the numbers that are in no row that is printed."""
    rows = [
        each.span() for each in re.finditer(r"^\|.*\|$", block, re.MULTILINE) if each[0].replace("**", "") in printed
    ]
    return [each for each in free if not any(start <= each.start < end for start, end in rows)]


def _text_of(block: str) -> str:
    """Return the block with all that is no text blotted out, place by place."""
    fenced = re.sub(r"^```.*?^```", _blot, block, flags=re.DOTALL | re.MULTILINE)
    return _NOT_TEXT.sub(_blot, fenced)


def _blot(match: re.Match[str]) -> str:
    return re.sub(r"[^\n|]", "_", match[0])


def _places_of_figures(block: str) -> set[int]:
    """Return where the numbers are that must have a line."""
    text = _text_of(block)
    spans = [each.span() for pattern in (_WITH_UNIT, _WITH_INTERVAL) for each in pattern.finditer(text)]
    spans += _cells_of_numbers(text, block)
    return {each.start() for start, end in spans for each in _NUMBER.finditer(text, start, end)}


def _cells_of_numbers(text: str, block: str) -> Iterator[tuple[int, int]]:
    """Yield the cells that have nothing but numbers, of tables of figures; the first of a row says what the others are of."""
    for row in re.finditer(r"^\|.*\|$", text, re.MULTILINE):
        if re.match(r"\| ?`(-|VMMR_|[a-z_]+`)", block[row.start() : row.end()]):
            continue  # of settings or of fields
        cells = list(re.finditer(r"(?<=\|)[^|]*(?=\|)", row[0]))[1:]
        yield from (
            (row.start() + cell.start(), row.start() + cell.end())
            for cell in cells
            if _CELL.fullmatch(cell[0].strip()) and not _YEAR.fullmatch(cell[0].strip())
        )


def _around(text: str, place: int) -> str:
    line = text[text.rfind("\n", 0, place) + 1 :].splitlines()[0]
    return line[:90]


if __name__ == "__main__":
    main()
