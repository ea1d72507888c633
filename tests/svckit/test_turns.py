from collections import defaultdict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from svckit.turns import Turns, beyond, limit_for


@dataclass(frozen=True)
class Item:
    owner: str
    number: int


def drained(turns):
    """The items in the order in which they come, with a turn for each."""
    while turns:
        item = turns.next()
        turns.pass_on()
        turns.remove(item)
        yield item


@given(st.lists(st.sampled_from("abc")))
def test_owners_take_turns_and_an_owners_items_come_in_their_order(owners):
    turns, mine = Turns(), defaultdict(list)
    for number, owner in enumerate(owners):
        turns.add(Item(owner, number))
        mine[owner].append(Item(owner, number))
    assert sorted(turns, key=lambda item: item.number) == [Item(owner, n) for n, owner in enumerate(owners)]
    came = list(drained(turns))
    for owner, items in mine.items():
        assert [item for item in came if item.owner == owner] == items
    # Until an owner's last item has come, it has had as many turns as any other, but for one.
    for place, item in enumerate(came):
        before = [each.owner for each in came[: place + 1]]
        assert all(before.count(other) <= before.count(item.owner) + 1 for other in mine)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=20))
def test_what_is_removed_is_not_there_and_nothing_else_goes(steps):
    turns, kept = Turns(), []
    for number, (owner, stays) in enumerate(steps):
        item = Item(owner, number)
        turns.add(item)
        if stays:
            kept.append(item)
        else:
            turns.remove(item)
            assert item not in turns
    assert all(item in turns for item in kept)
    assert sorted(drained(turns), key=lambda item: item.number) == kept


def test_the_oldest_of_each_are_those_that_came_first():
    turns = Turns()
    for number, owner in enumerate("abba"):
        turns.add(Item(owner, number))
    assert list(turns.oldest_of_each()) == [Item("a", 0), Item("b", 1)]


@given(st.integers(1, 100), st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 30)), max_size=60))
def test_items_are_never_more_than_a_quarter_beyond_the_limit_and_what_is_beyond_is_of_who_has_little(limit, calls):
    inside = defaultdict(int)
    for owner, items in calls:
        own = inside[owner] + items
        owners = len({each for each, count in inside.items() if count} | {owner})
        total = sum(inside.values()) + items
        if total <= limit_for(limit, own, owners):
            assert total <= limit or own * owners <= limit
            inside[owner] += items
        else:
            assert total > limit, "within the limit nobody is refused"
    assert sum(inside.values()) <= beyond(limit)


def test_one_who_is_alone_has_the_limit():
    assert [limit_for(8, own, 1) for own in (1, 8, 9)] == [10, 10, 8]
