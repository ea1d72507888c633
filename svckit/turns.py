"""A queue whose callers take turns: whoever sends much waits behind its own, and not before others."""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Generic, Protocol, TypeVar


def beyond(limit: int) -> int:
    """Return how many items there may be where the last of them are of owners who have little: a quarter more than the limit.

    So nobody who sends much keeps all others out.
    """
    return limit + limit // 4


def limit_for(limit: int, own: int, owners: int) -> int:
    """Return how many items there may be in all, if one of so many owners would have `own` of them.

    That is the limit; and beyond it, if these are no more than an equal share of the limit.
    """
    return beyond(limit) if own * owners <= limit else limit


class Owned(Protocol):
    @property
    def owner(self) -> str:
        """Who it is of."""


Item = TypeVar("Item", bound=Owned)


class Turns(Generic[Item]):
    """Items of owners. Next is the oldest of the owner whose turn it is: after `pass_on`, the turn is that of the next owner."""

    def __init__(self) -> None:
        self._owned: OrderedDict[str, OrderedDict[Item, None]] = OrderedDict()
        """The items of each owner who has some, the oldest first; the owner whose turn it is first."""

    def __bool__(self) -> bool:
        return bool(self._owned)

    def __contains__(self, item: Item) -> bool:
        return item in self._owned.get(item.owner, ())

    def __iter__(self) -> Iterator[Item]:
        """Yield all items, those of an owner together."""
        for items in self._owned.values():
            yield from items

    def of(self, owner: str) -> Collection[Item]:
        """Return the items of this owner."""
        return self._owned.get(owner, {}).keys()

    def owners(self, owner: str) -> int:
        """Return how many owners have items, this one included, whether it has some or not."""
        return len(self._owned) + (owner not in self._owned)

    def oldest_of_each(self) -> Iterator[Item]:
        """Yield the oldest item of each owner."""
        return (next(iter(items)) for items in self._owned.values())

    def add(self, item: Item) -> None:
        """Put an item behind the others of its owner. An owner who had none comes after all who have some."""
        self._owned.setdefault(item.owner, OrderedDict())[item] = None

    def next(self) -> Item:
        """Return the item that is next, and leave it where it is. There must be one."""
        return next(self.oldest_of_each())

    def pass_on(self) -> None:
        """End the turn of the owner whose turn it is."""
        self._owned.move_to_end(next(iter(self._owned)))

    def remove(self, item: Item) -> None:
        """Remove an item, which must be there."""
        items = self._owned[item.owner]
        del items[item]
        if not items:
            del self._owned[item.owner]
