from types import SimpleNamespace

from search_svc.select.choice import Limits
from search_svc.select.grid import Grid
from search_svc.select.sweep import FINALISTS, Sweep


def test_finalists_are_the_cheapest_of_those_that_may_be_chosen(point):
    within = [point(f"A{number}", memory=1000.0 - number) for number in range(FINALISTS + 2)]
    beyond, worse = point("B", memory=1.0, p99=4.0), point("C", memory=1.0, top_1=0.7)
    points = {each.setting: each for each in [*within, beyond, worse]}
    sweep = Sweep(
        SimpleNamespace(items=range(100)),
        Grid(tuple(points), {}, {}),
        SimpleNamespace(points=points),
        Limits(max_p99_ms=3.0),
        queries=None,
        truth=None,
    )
    assert sweep._finalists() == within[: -FINALISTS - 1 : -1]
