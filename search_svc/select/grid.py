"""The indexes that are tried, sized to the gallery, the most promising first."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from search_svc.building import faiss_index
from search_svc.index.version import Metric, SearchParams
from svckit.cli import CommandError

POINTS_A_LIST = 39
"""Photos needed to train an inverted list: with fewer, faiss warns of poor centroids."""
POINTS_A_CODEWORD = 10
"""Photos needed to train a codeword of a quantizer."""
_BLOG_LISTS = 4096
_PLAIN = SearchParams()


@dataclass(frozen=True)
class Setting:
    """An index, and the parameters that it is searched with."""

    factory: str
    metric: Metric
    params: SearchParams

    def __str__(self) -> str:
        asked = {"nprobe": self.params.nprobe, "ef_search": self.params.ef_search, "rerank": self.params.rerank}
        named = [f"{name} {value}" for name, value in asked.items() if value is not None]
        return " ".join([self.factory, *(["l2"] if self.metric == "l2" else []), *named])


@dataclass(frozen=True)
class Grid:
    settings: tuple[Setting, ...]
    """The settings in the order in which they are tried; those of one index follow each other."""
    notes: Mapping[Setting, str]
    """Remarks on some of the settings."""
    skipped: Mapping[str, str]
    """Indexes that cannot be built, with the reason."""


def grid(items: int, dimension: int, metric: Metric) -> Grid:
    """Return the settings to try for `items` photos. `metric` is the one that the embeddings are meant to be compared by.

    The flat index comes first, and then the three of the blog post "Building a Car Model Classifier, Part 1".
    """
    notes = dict(_blog(items))
    settings = dict.fromkeys([Setting("Flat", metric, _PLAIN), *notes, *_family(items, dimension, metric)])
    indexes = dict.fromkeys((setting.factory, setting.metric) for setting in settings)
    skipped = {name: why for name, of in indexes if (why := _problem(name, of, items, dimension))}
    kept = [setting for setting in settings if setting.factory not in skipped]
    order = {index: place for place, index in enumerate(indexes)}
    kept.sort(key=lambda setting: order[setting.factory, setting.metric])
    return Grid(tuple(kept), notes, skipped)


def _blog(items: int) -> Iterator[tuple[Setting, str]]:
    """Yield the three indexes of the blog post, on L2 distances, with as many lists as the gallery can train."""
    lists = max(1, min(_BLOG_LISTS, items // POINTS_A_LIST))
    fewer = f"; {lists} lists, for {_BLOG_LISTS} take {_BLOG_LISTS * POINTS_A_LIST:,} photos"
    yield Setting("Flat", "l2", _PLAIN), "the blog's Flat"
    yield (
        Setting(f"IVF{lists},Flat", "l2", SearchParams(nprobe=1)),
        f"the blog's IVF{_BLOG_LISTS}{fewer if lists < _BLOG_LISTS else ''}",
    )
    yield Setting("HNSW32,Flat", "l2", SearchParams(ef_search=16)), "the blog's HNSW32"


def _family(items: int, dimension: int, metric: Metric) -> Iterator[Setting]:
    few, many = _lists(items)
    sq8, ivf_sq8, hnsw_sq8 = "SQ8", f"IVF{many},SQ8", "HNSW32,SQ8"
    yield from _each([ivf_sq8, f"IVF{few},SQ8"], metric, rerank=(None, 2))
    yield from _each([hnsw_sq8, "HNSW16,SQ8", sq8], metric, rerank=(None, 2))
    yield from _each(["SQfp16", "SQ4", f"IVF{many},SQ4"], metric, rerank=(None, 4))
    yield from _each([f"IVF{many},Flat", f"IVF{few},Flat", "HNSW32,Flat"], metric)
    inner = [sq8, ivf_sq8, hnsw_sq8, "Flat", f"IVF{many},Flat", "HNSW32,Flat"]
    for prefix, of in _reductions(dimension, metric):
        yield from _each([f"{prefix},{kind}" for kind in inner], of, rerank=(None, 4))
    yield from _each(_rabitq(many, dimension), metric, rerank=(None, 4, 16))
    yield from _each(_products(many, dimension), metric, rerank=(None, 4, 16))


def _lists(items: int) -> tuple[int, int]:
    """Return two numbers of lists: about the square root of the photos, and four times that, if so many can be trained."""
    most = max(1, items // POINTS_A_LIST)
    return tuple(min(_power_of_two(factor * items**0.5), _power_below(most)) for factor in (1, 4))  # type: ignore[return-value]


def _reductions(dimension: int, metric: Metric) -> list[tuple[str, Metric]]:
    """Return reductions by PCA, each with its metric.

    PCA moves the centre, which keeps distances but changes inner products. So it is tried with L2 distance, and with inner
    products of vectors scaled to length 1 again. Whitening (PCAW) stretches directions, and is tried with the latter only.
    """
    half, quarter = dimension // 2, dimension // 4
    return [
        (f"PCA{half}", "l2"),
        (f"PCA{quarter}", "l2"),
        (f"PCA{half},L2norm", metric),
        (f"PCAW{quarter},L2norm", metric),
    ]


def _rabitq(lists: int, dimension: int) -> list[str]:
    """Return codes of one or four bits a dimension, after a random rotation that spreads information over the dimensions."""
    kinds = ("RaBitQ4", "RaBitQ", f"IVF{lists},RaBitQ4", f"IVF{lists},RaBitQ", f"IVF{lists},RaBitQfs")
    return [f"RR{dimension},{kind}" for kind in kinds]


def _products(lists: int, dimension: int) -> list[str]:
    """Return product quantizers whose sizes divide the dimension, and two indexes that faiss itself refines."""
    sizes = [dimension // width for width in (8, 16) if dimension % width == 0]
    fast = [f"IVF{lists},PQ{dimension // 2}x4fs"] if dimension % 2 == 0 else []
    first = [f"IVF{lists},PQ{size}" for size in sizes]
    reduced = [f"PCA{dimension // 2},{first[-1]}", f"OPQ{sizes[-1]}_{dimension // 2},{first[-1]}"] if first else []
    refined = [f"IVF{lists},RaBitQ,Refine(SQ8)", *(f"{kind},RFlat" for kind in fast)]
    return [*fast, *refined, *first, *reduced]


def _each(factories: Iterable[str], metric: Metric, rerank: Sequence[int | None] = (None,)) -> Iterator[Setting]:
    for factory in factories:
        for more in rerank if "Refine" not in factory and "RFlat" not in factory else (None,):
            yield from (Setting(factory, metric, params) for params in _ladder(factory, more))


def _ladder(factory: str, rerank: int | None) -> Iterator[SearchParams]:
    """Yield the search parameters to try for an index, from the quickest search to the most thorough."""
    part = next((part for part in factory.split(",") if part.startswith(("IVF", "HNSW"))), "")
    if part.startswith("IVF"):
        lists = int(part.removeprefix("IVF"))
        numbers = _powers(1, max(1, lists // 2), by=4 if rerank else 2)
        yield from (SearchParams(nprobe=number, rerank=rerank) for number in numbers)
    elif part:
        yield from (SearchParams(ef_search=number, rerank=rerank) for number in _powers(16, 128, by=4 if rerank else 2))
    else:
        yield SearchParams(rerank=rerank)


def _powers(first: int, last: int, *, by: int) -> Iterator[int]:
    return itertools.takewhile(lambda number: number <= last, (first * by**power for power in itertools.count()))


def _problem(factory: str, metric: Metric, items: int, dimension: int) -> str | None:
    """Return why an index cannot be built of so many photos; None if it can."""
    try:
        index = faiss_index.create(factory, dimension, metric)
    except CommandError:
        return "this version of faiss does not have it"
    least = faiss_index.least_training_points(index)
    words = faiss_index.codewords(index)
    needed = max(POINTS_A_CODEWORD * words if words > (faiss_index.lists(index) or 1) else least, least, 1)
    return f"takes {needed:,} photos to train, there are {items:,}" if items < needed else None


def _power_of_two(number: float) -> int:
    """Return the power of two that is nearest by ratio."""
    below = _power_below(int(number))
    return below if number / below < 2**0.5 else 2 * below


def _power_below(number: int) -> int:
    """Return the largest power of two that is not above the number."""
    return 1 << (max(1, number).bit_length() - 1)
