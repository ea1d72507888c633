import pytest

from search_svc.select.choice import Limits, by_chance, choose, contenders, front, human, nearest_miss, reason

ITEMS = 1000
LARGE = 100_000
NO_LIMITS = Limits()


def test_the_most_accurate_is_chosen_if_others_are_worse_than_by_noise(point):
    best, cheap = point("A", top_1=0.875), point("B", top_1=0.8725, memory=1, p50=0.01)
    assert choose([cheap, best], NO_LIMITS, ITEMS) == best


def test_of_points_within_noise_the_least_memory_times_latency_is_chosen(point):
    best, within = point("A", top_1=0.875), point("B", top_1=0.873, memory=400, p50=2.0)
    assert choose([best, within], NO_LIMITS, ITEMS) == within, "800 against 1000, and exactly 0.2 points less"
    assert choose([best, point("C", top_1=0.873, memory=600, p50=2.0)], NO_LIMITS, ITEMS) == best
    assert contenders([best, within], NO_LIMITS, ITEMS) == [best, within]


def test_noise_is_counted_from_the_best_within_the_limits(point):
    large, small, smaller = point("A", top_1=0.9), point("B", top_1=0.8, memory=10), point("C", top_1=0.79, memory=1)
    assert choose([large, small, smaller], Limits(max_bytes=10 * ITEMS), ITEMS) == small


@pytest.mark.parametrize(
    "limits", [Limits(max_bytes=500 * ITEMS), Limits(max_p99_ms=1.5), Limits(min_recall=0.99)], ids=str
)
def test_a_point_beyond_a_limit_is_not_chosen(point, limits):
    best = point("A", top_1=0.9, memory=501, p99=1.51, recall=0.989)
    within = point("B", memory=500, p99=1.5, recall=0.99)
    assert choose([best, within], limits, ITEMS) == within
    assert choose([best], limits, ITEMS) is None


def test_a_point_that_finds_other_photos_than_exact_search_is_luck_unless_it_is_asked_for(point):
    lucky, honest = point("A", top_1=0.9, recall=0.979), point("B", top_1=0.87, recall=0.98)
    assert choose([lucky, honest], NO_LIMITS, ITEMS) == honest
    assert choose([lucky, honest], Limits(min_recall=0), ITEMS) == lucky


def test_what_fails_is_told_of_the_point_that_comes_nearest(point):
    far, near = point("Far", memory=100 * 1024, p99=9.0), point("Near", memory=2048.0, p99=1.25)
    told = nearest_miss([far, near], Limits(max_bytes=1024 * ITEMS, max_p99_ms=1.0, min_recall=0.5), ITEMS)
    assert told == (
        "no index meets the limits; Near comes nearest, with 1.953 MiB, 1,000 KiB more than --max-memory 1,000 KiB;"
        " 1.25 ms, 0.25 ms more than --max-p99-ms 1"
    )
    short = nearest_miss([point(recall=0.9)], Limits(min_recall=0.95), ITEMS)
    assert short.endswith("with 0.9000, 0.0500 less than --min-recall 0.95")


def test_the_reason_compares_with_exact_search(point):
    exact = point("Flat", top_1=0.875, memory=2048, p50=1.0)
    chosen = point("IVF64,SQ8", top_1=0.874, memory=512, p50=0.2)
    assert reason(chosen, [exact, chosen, point("C", top_1=0.5)], exact, NO_LIMITS, items=LARGE, photos=784) == (
        "0.1 points below exact's 87.5 % of 784 dev photos (top-1), 4.0 times less memory (512 bytes a photo),"
        " 5.0 times faster (p50 0.2 ms). Of 2 points that dev photos cannot tell from the best within the limits (87.5 %), the"
        " one with the least memory times latency."
    )
    alone = point("Big", top_1=0.9, memory=4096, p50=2.0)
    told = reason(alone, [exact, alone], exact, NO_LIMITS, items=LARGE, photos=784)
    assert told.startswith("2.5 points above exact's 87.5 %")
    assert "2.0 times more memory (4 KiB a photo), 2.0 times slower (p50 2 ms). The only point that dev" in told
    same = reason(exact, [exact, chosen], exact, NO_LIMITS, items=ITEMS, photos=784)
    assert same.startswith("As exact's 87.5 %")
    assert same.endswith(
        "Exact search stays, since all of it takes 1.953 MiB, and dev photos cannot tell it from the best within the limits"
        " (87.5 %)."
    )


def test_one_photo_more_or_what_chance_does_is_no_difference(point):
    exact, lucky = (
        point("IVF8,Flat", memory=400, right="1" * 110 + "0" * 15),
        point("HNSW32", right="1" * 111 + "0" * 14),
    )
    assert choose([lucky, exact], NO_LIMITS, LARGE) == exact, "one of 125 photos, 0.8 points"
    for lost, won, is_chance in ((5, 0, True), (6, 0, False), (9, 2, True), (11, 2, False)):
        best = point("A", right="1" * lost + "0" * won + "1" * 200)
        cheap = point("B", memory=400, right="0" * lost + "1" * won + "1" * 200)
        assert (choose([best, cheap], NO_LIMITS, LARGE) == cheap) == is_chance, (lost, won)


def test_the_sign_test_is_that_of_the_binomial_distribution():
    assert by_chance(0, 0) == 1
    assert by_chance(6, 0) == by_chance(0, 6) == pytest.approx(2 / 64)
    assert by_chance(9, 2) == pytest.approx(2 * (1 + 11 + 55) / 2**11)


def test_a_small_gallery_stays_flat_unless_something_is_better_beyond_chance_or_a_limit_forbids_it(point):
    flat, graph = point(right="1" * 110 + "0" * 15), point("HNSW32,SQ8", memory=1, p50=0.1, right="1" * 111 + "0" * 14)
    assert choose([flat, graph], NO_LIMITS, ITEMS) == flat
    assert choose([flat, graph], NO_LIMITS, LARGE) == graph, "cheaper, and no worse"
    assert choose([flat, graph], Limits(max_bytes=999 * ITEMS), ITEMS) == graph
    better = point("PCAW8,L2norm,SQ8", right="1" * 120 + "0" * 5)
    assert choose([flat, better], NO_LIMITS, ITEMS) == better


def test_the_front_holds_what_nothing_equals_or_beats_at_both(point):
    a, b = point("A", top_1=0.5, p50=1.0), point("B", top_1=0.7, p50=2.0)
    beaten, equal = point("C", top_1=0.6, p50=2.5), point("D", top_1=0.7, p50=3.0)
    found = front([equal, beaten, b, a], lambda each: each.timing.p50_ms, lambda each: each.top_1)
    assert found == [a, b]
    assert front([a, point("E", top_1=0.9, p50=1.0)], lambda each: each.timing.p50_ms, lambda each: each.top_1) != [a]


def test_sizes_are_told_in_units():
    assert [human(size) for size in (0, 1023, 1024, 3.5 * 2**20, 5000 * 2**30)] == [
        "0 bytes",
        "1,023 bytes",
        "1 KiB",
        "3.5 MiB",
        "5,000 GiB",
    ]
