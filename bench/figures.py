"""Figures in the documentation, and the stored results that they come from: `python -m bench.figures [--write]`.

A figure is a number that was measured: one with a unit of measure (`3.5 ms`, `89 %`), one with its interval (`0.97 [0.86, 1.11]`), or one
in a cell of a table that has nothing but numbers. Behind the paragraph, list or table that has it, a comment that readers do not see says for
each where it is from, a line a figure:

    <!-- figures
    86.1 [83.8, 88.3] = 100 x shipped.json > scores > level=label & measure=nearest, top-1
    0.97 [0.86, 1.11] = chain.json > figures > identify_many / the slower service alone
    3.5 = waterfall.json > stages_ms > decoding
    1.9 = peers.json > a > p99 over peers.json > b > p99
    95 is fixed
    -->

The path leads through a file of bench/results, by keys, numbers of a list, or what an item of a list is. With an interval it ends at an object
with `value`, `low` and `high`, or at a list, of which the figure is the median and the interval the least and the most. Of a list without an
interval it is the median; `min of`, `max of`, `sum of` and `count of` take another. Other numbers may have a line, too. What was not measured `is` one of KINDS.

Without --write this prints what is wrong: figures that are not what is stored, and those without a line. With it the documentation gets the stored ones.
"""

import argparse
import functools
import json
import operator
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lib.paths import RESULTS, ROOT

KINDS = {
    "fixed": "a setting, a limit, a format or a definition of ours",
    "wanted": "what was aimed at",
    "cited": "measured by others, who are named",
    "example": "a number to explain something by",
}
"""Kinds of numbers that look like figures, and are none."""

NUMBER = r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.])\d+(?:\.\d+)?"
_UNIT = r"(?:%|ms|µs|ns|s|[kKMG]i?B|[a-z]+/s|/s)(?![\w/-])"
_NEXT = r"\s*(?:/|,|-|to|and|or|of)\s*"
_WITH_UNIT = re.compile(rf"(?:{NUMBER})(?:{_NEXT}[+-]?(?:{NUMBER}))*(?:\s|\*\*)*{_UNIT}")
_WITH_INTERVAL = re.compile(rf"(?:{NUMBER})\s*\[[+-]?(?:{NUMBER}),\s*[+-]?(?:{NUMBER})\]")
_CELL = re.compile(rf"[\s*+~<>=x/,\[\]()-]*(?:{NUMBER})(?:[\s*+x/,%\[\]()-]|{NUMBER}|{_UNIT})*")
_NUMBER = re.compile(NUMBER)
_COMMENT = re.compile(r"<!-- figures\n(.*?)-->", re.DOTALL)
_NOT_TEXT = re.compile(r"`[^`\n]*`|\]\([^)]*\)|<!--.*?-->|https?://\S+", re.DOTALL)
_FUNCTIONS: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "sum": sum, "count": len}
_OPERATORS = {" over ": operator.truediv, " less ": operator.sub}


class WrongError(Exception):
    """Raised where a line cannot be read, or leads to nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the stored figures into the documentation")
    args = parser.parse_args()
    if args.write:
        for page in pages():
            page.write_text(rewritten(page.read_text()))
    wrong = [f"{page.relative_to(ROOT)}: {each}" for page in pages() for each in check(page.read_text())]
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


def pages() -> list[Path]:
    """Return the pages whose figures are checked."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "models").glob("*/README.md"))]


def check(text: str) -> Iterator[str]:
    """Yield what is wrong with the figures of a page."""
    for block, comment in _blocks(text):
        free = list(_NUMBER.finditer(_text_of(block)))
        for line in comment:
            try:
                source = Source.read(line)
                _taken(source, free)
                if (now := source.now()) != source.figure:
                    yield f"`{source.figure}` is {now} in {source.path}"
            except WrongError as error:
                yield f"{error}: {line}"
        wanted = _places_of_figures(block)
        for each in free:
            if each.start() in wanted:
                yield f"`{each[0]}` has no line: {_around(block, each.start())}"


def rewritten(text: str) -> str:
    """Return the page with every figure that has a stored result as that is now."""
    parts = []
    for block, comment in _blocks(text):
        free, edits, lines = list(_NUMBER.finditer(_text_of(block))), [], []
        for line in comment:
            source = Source.read(line)
            now = _NUMBER.findall(source.now())
            edits += [(*old.span(), new) for old, new in zip(_taken(source, free), now, strict=True)]
            lines.append(line.replace(source.figure, source.now(), 1))
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
    def read(cls, line: str) -> "Source":
        for sign, is_kind in ((" = ", False), (" is ", True)):
            figure, found, path = line.partition(sign)
            if found and (not is_kind or path in KINDS):
                return cls(figure, path, is_kind)
        raise WrongError(f"neither `FIGURE = PATH` nor `FIGURE is {' | '.join(KINDS)}`")

    def now(self) -> str:
        """Return the figure as it should be, with as many decimals as it has."""
        if self.is_kind:
            return self.figure
        shown = _NUMBER.findall(self.figure)
        found = _values(self.path, interval=len(shown) > 1)
        if len(found) != len(shown):
            raise WrongError(f"{len(shown)} numbers, and {len(found)} are stored")
        signs = [sign for sign, _ in re.findall(rf"(?<![\w)])([+-]?)({NUMBER})", self.figure)]
        if any(value * float(f"{sign}1") < 0 for sign, value in zip(signs, found, strict=True) if sign):
            raise WrongError("the sign is another")
        values = iter(zip(shown, found, strict=True))
        return _NUMBER.sub(lambda _: _written(*next(values)), self.figure)


def _written(like: str, value: float) -> str:
    """Return the value with as many decimals as a number has, and that number itself if it is the value, rounded up or down."""
    decimals = len(like.partition(".")[2])
    if abs(float(like.replace(",", "")) - abs(value)) <= 0.5 * 10**-decimals * (1 + 1e-9):
        return like
    text = f"{abs(value):,.{decimals}f}"
    return text if "," in like else text.replace(",", "")


def _values(path: str, *, interval: bool) -> list[float]:
    for sign, of_two in _OPERATORS.items():
        if sign in path:
            return [of_two(*(_values(each, interval=False)[0] for each in path.split(sign)))]
    scale, _, rest = path.rpartition(" x ")
    name, _, rest = rest.rpartition(" of ") if re.match(r"(min|max|sum|count) of ", rest) else ("", "", rest)
    found = _found(rest)
    if isinstance(found, dict) and {"value", "low", "high"} <= found.keys():
        values = [found["value"], *((found["low"], found["high"]) if interval else ())]
    elif isinstance(found, list) and not name:
        values = [statistics.median(found), *((min(found), max(found)) if interval else ())]
    else:
        values = [_FUNCTIONS[name](found) if name else found]
    if not all(isinstance(value, (int, float)) for value in values):
        raise WrongError("leads to no number")
    return [float(scale or 1) * value for value in values]


def _found(path: str) -> Any:
    """Return what is stored at `FILE > KEY > ...`."""
    file, *keys = path.split(" > ")
    found = _stored(file)
    for key in keys:
        found = _step(found, key)
    return found


@functools.cache
def _stored(file: str) -> Any:
    if not (RESULTS / file).is_file():
        raise WrongError(f"there is no bench/results/{file}")
    return json.loads((RESULTS / file).read_text())


def _step(found: Any, key: str) -> Any:
    if isinstance(found, dict) and key in found:
        return found[key]
    if isinstance(found, list) and re.fullmatch(r"-?\d+", key) and -len(found) <= int(key) < len(found):
        return found[int(key)]
    if isinstance(found, list) and "=" in key:
        wanted = dict(each.split("=", 1) for each in key.split(" & "))
        fitting = [each for each in found if all(str(each.get(name)) == value for name, value in wanted.items())]
        if len(fitting) == 1:
            return fitting[0]
    raise WrongError(f"nothing, or not one thing, is stored at `{key}`")


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the text up to each comment, and the comment's lines; at last, what follows the last."""
    start = 0
    for comment in _COMMENT.finditer(text):
        yield text[start : comment.start()], comment[1].splitlines()
        start = comment.end()
    yield text[start:], []


def _taken(source: Source, free: list[re.Match[str]]) -> Sequence[re.Match[str]]:
    """Take the figure's numbers, which stand one after the other, out of those of a block that no line has named."""
    numbers = _NUMBER.findall(source.figure)
    for at in range(len(free) - len(numbers) + 1):
        if [each[0] for each in free[at : at + len(numbers)]] == numbers:
            taken = free[at : at + len(numbers)]
            del free[at : at + len(numbers)]
            return taken
    raise WrongError("there is no such figure, or no other one, in what precedes the comment")


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
            (row.start() + cell.start(), row.start() + cell.end()) for cell in cells if _CELL.fullmatch(cell[0].strip())
        )


def _around(text: str, place: int) -> str:
    line = text[text.rfind("\n", 0, place) + 1 :].splitlines()[0]
    return line[:90]


if __name__ == "__main__":
    main()
