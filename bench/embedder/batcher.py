"""What the batcher costs: `python -m bench.embedder.batcher`. Each figure is beside doing the same without it, in the same run.

- Overhead: CPU of one item, from submit to answer, with a backend that does nothing, against awaiting that backend
  directly in an executor of one thread. Callers call again as soon as they are answered.
- Gap: how long the backend idles between two batches while work waits, against an event loop that forms each batch and
  hands it to an executor.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from svckit.batcher import Batcher

ITEMS = 20_000
BATCHES = 200
BATCH = 32
BATCH_S = 0.002
REPEATS = 3


def main() -> None:
    print(f"{'callers':>8} {'batcher us/item':>16} {'executor us/item':>17} {'ratio':>6}")
    for callers in (1, 8, 32, 256):
        batched = best(partial(through_batcher, callers))
        direct = best(partial(through_executor, callers))
        print(f"{callers:8} {1e6 * batched:16.1f} {1e6 * direct:17.1f} {batched / direct:6.2f}")
    pulled, handed = asyncio.run(gap_of_batcher()), asyncio.run(gap_of_loop())
    print(f"\nmedian gap between batches of {BATCH}: batcher {1e6 * pulled:.0f} us, ", end="")
    print(f"event loop {1e6 * handed:.0f} us, ratio {pulled / handed:.2f}")


def best(measure: Callable[[], Coroutine[None, None, float]]) -> float:
    """Return the least of some measurements, since other work on the machine only ever adds to them."""
    return min(asyncio.run(measure()) for _ in range(REPEATS))


async def through_batcher(callers: int) -> float:
    async with Batcher(nothing, max_batch=BATCH, max_queue=ITEMS) as batcher:
        return await cpu_per_item(callers, lambda: batcher.submit([0]))


async def through_executor(callers: int) -> float:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        return await cpu_per_item(callers, lambda: loop.run_in_executor(executor, nothing, [0]))


async def cpu_per_item(callers: int, call: Callable[[], Awaitable[object]]) -> float:
    """Return the CPU seconds of one item."""

    async def caller() -> None:
        for _ in range(ITEMS // callers):
            await call()

    started = time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.process_time() - started) / ITEMS


def nothing(items: list[int]) -> list[int]:
    return items


class Device:
    """A backend that is busy for a while, as a GPU is, without using the CPU; keeps when each batch began and ended."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def __call__(self, items: list[int]) -> list[int]:
        began = time.perf_counter()
        time.sleep(BATCH_S)
        self.times.append((began, time.perf_counter()))
        return items

    def gap(self) -> float:
        """Return the median seconds from the end of a batch to the beginning of the next."""
        return statistics.median(self.times[i + 1][0] - self.times[i][1] for i in range(len(self.times) - 1))


async def gap_of_batcher() -> float:
    device = Device()
    async with Batcher(device, max_batch=BATCH, max_queue=BATCH * BATCHES) as batcher:
        await asyncio.gather(*(batcher.submit([0]) for _ in range(BATCH * BATCHES)))
    return device.gap()


async def gap_of_loop() -> float:
    """Measure the gap of the plain way: a coroutine takes a batch, awaits the executor, sets the futures, takes the next."""
    device, loop = Device(), asyncio.get_running_loop()
    waiting = [loop.create_future() for _ in range(BATCH * BATCHES)]
    with ThreadPoolExecutor(1) as executor:
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            for future, output in zip(batch, await loop.run_in_executor(executor, device, [0] * BATCH), strict=True):
                future.set_result(output)
    return device.gap()


if __name__ == "__main__":
    main()
