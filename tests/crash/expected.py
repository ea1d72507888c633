"""What the gallery must be: a dict, and what queries must find in it: by numpy, one by one."""

from dataclasses import dataclass, field

import numpy as np

D = 16
MODEL = "c0ffee" + 58 * "0"


@dataclass(frozen=True)
class Item:
    label: str
    uri: str
    batch_id: str
    attributes: tuple
    embedding: bytes
    """float16."""


@dataclass
class Expected:
    """The items of one writer, whose ids nobody else writes."""

    items: dict = field(default_factory=dict)
    sequence: int = 0
    """Of its last acknowledged write."""
    ever: dict = field(default_factory=dict)
    """By item id, all that it ever was; None: not there."""

    def __post_init__(self) -> None:
        self.ever = {item_id: [item] for item_id, item in self.items.items()}

    def become(self, after: dict) -> None:
        for item_id in self.items.keys() | after.keys():
            if self.items.get(item_id) != after.get(item_id):
                self.ever.setdefault(item_id, [None]).append(after.get(item_id))
        self.items = after


def vector(number: int) -> np.ndarray:
    found = np.random.default_rng(number).standard_normal(D).astype(np.float32)
    return found / np.linalg.norm(found)


def half(number: int) -> bytes:
    return vector(number).astype("<f2").tobytes()


def same(found, item: Item | None) -> bool:
    """Whether the item of a reply, or None, is what it must be, as far as replies tell."""
    if found is None or item is None:
        return found is item
    there = (found.label, found.uri, found.batch_id, tuple(sorted(found.attributes.items())))
    return there == (item.label, item.uri, item.batch_id, tuple(sorted(item.attributes)))


def right(neighbours, items: dict, query: np.ndarray, k: int, own: str = "") -> bool:
    """Whether neighbours are what numpy finds, and the item whose vector was asked for, if any, is the first of them."""
    scores, best = best_scores(items, query, k)
    found = [each.score for each in neighbours]
    return (
        len(found) == len(best)
        and np.allclose(found, best, atol=1e-5)
        and all(abs(scores.get(each.item_id, np.inf) - each.score) < 1e-5 for each in neighbours)
        and (not own or neighbours[0].item_id == own)
    )


def best_scores(items: dict, query: np.ndarray, k: int) -> tuple[dict, np.ndarray]:
    """The score of every item, and the k best scores in order."""
    ids = list(items)
    matrix = np.stack([np.frombuffer(items[item_id].embedding, "<f2") for item_id in ids]).astype(np.float32)
    scores = matrix @ query
    return dict(zip(ids, scores.tolist(), strict=True)), np.sort(scores)[::-1][:k]
