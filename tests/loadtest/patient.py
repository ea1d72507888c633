"""The generator's processes, but that they make every call, however late this machine is.

A generator leaves out what it has not come to when its time is over, as on a machine that is busy with something else.
"""

import math
from typing import Any

from loadtest import generator
from loadtest.workers import work as as_usual


def work(*arguments: Any) -> None:
    generator._GRACE_S = math.inf
    as_usual(*arguments)
