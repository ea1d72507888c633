"""Writes to a journal until it is killed: `python -m tests.search_svc.journal_program INDEX NAME`. Prints each item once it is acknowledged."""

import itertools
import sys
from pathlib import Path

from search_svc.index.writes import Add
from tests.search_svc.journals import stored, writer

journal, name = writer(Path(sys.argv[1])), sys.argv[2]
for number in itertools.count():
    items = {f"{name} {number} {part}": stored(number=number) for part in range(3)}
    (outcome,) = journal.commit([Add(items)])
    if isinstance(outcome, Exception):
        raise outcome
    print(number, outcome.sequence, flush=True)
