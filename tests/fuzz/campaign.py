"""How much is tried: little and always the same with every change, much and always other inputs on demand."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# The same inputs each time: a change that has nothing to do with a reader must not fail for a fault that was there
# before it. A failing input is not made smaller, which takes minutes: it is valid but for a place or two.
FEW = settings(deadline=None, max_examples=150, derandomize=True, database=None,
               phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
_MANY = settings(FEW, derandomize=False, max_examples=25)

# Seconds of the processor for one input.
_TOO_LONG = 20

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))


def try_many(name: str, inputs: st.SearchStrategy[Any], feed: Callable[[Any], bool], kept: Path) -> None:
    """Feeds new inputs for FUZZ_SECONDS, and prints a line of a table.

    Its columns: inputs, those that were refused, faults, and seconds of the processor that the slowest took. A fault is
    an exception that is no MtframeError, a warning, or an input that takes too long.

    Args:
        name: In the table.
        inputs: What to draw from.
        feed: Takes one; whether it was refused. What it raises is a fault.
        kept: Folder for the first input of each kind of fault, to be looked at.
    """
    faults: Counter[str] = Counter()
    tried = refused = 0
    slowest = 0.0

    def once(data: Any) -> None:
        nonlocal tried, refused, slowest
        tried += 1
        # Of this process: a machine that others use as well makes everything wait.
        begun = time.process_time()
        try:
            refused += feed(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            note(f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}", data)
            traceback.print_exception(error)
        if (took := time.process_time() - begun) > _TOO_LONG:
            note("took too long", data)
        slowest = max(slowest, took)

    def note(fault: str, data: Any) -> None:
        if fault not in faults:
            file = kept / f"fault-{len(faults)}"
            file.write_bytes(data if isinstance(data, bytes) else repr(data).encode("utf-8", "backslashreplace"))
            print(f"\n{name}: {fault}, by {file}")
        faults[fault] += 1

    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        _MANY(given(inputs)(once))()
    print(f"\n| {name} | {tried:,} | {refused:,} | {sum(faults.values())} | {slowest:.2f} |")
    assert not faults
