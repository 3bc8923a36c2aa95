"""What the hooks of a training step cost, in microseconds, with no observer and with those that ship.

    python tests/benchmarks/hooks_cost.py

The call that the trainer makes after every step, made in a loop; of several rounds the median, interleaved. For scale,
the same with observers that ask for both arguments and do nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import version

import torch

from mtframe.hooks import Hooks, hookimpl
from mtframe_observers.csv_logger import CsvLogger
from mtframe_observers.early_stopping import EarlyStopping
from mtframe_observers.tensorboard_logger import TensorBoard


class Idle:
    """Asks for everything and does nothing."""

    @hookimpl
    def step_ended(self, step: int, losses: object) -> None:
        """Nothing."""


def registered(*observers: object) -> Hooks:
    """Hooks with these observers."""
    hooks = Hooks()
    for number, observer in enumerate(observers):
        hooks.register(observer, str(number))
    return hooks


def microseconds(hooks: Hooks, calls: int) -> float:
    """Of one call."""
    losses = {"faces": {"loss": torch.zeros(())}, "objects": {"class": torch.zeros(()), "box": torch.zeros(())}}
    begun = time.perf_counter()
    for step in range(calls):
        hooks.call.step_ended(step=step, losses=losses)
    return (time.perf_counter() - begun) / calls * 1e6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    cases = {
        "none": registered(),
        "csv-logger, tensorboard, early-stopping": registered(CsvLogger(), TensorBoard(), EarlyStopping()),
        "one idle observer": registered(Idle()),
        "ten idle observers": registered(*(Idle() for _ in range(10))),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, hooks in cases.items():
            found[name].append(microseconds(hooks, options.calls))
    for name, times in found.items():
        print(f"{name:42}{statistics.median(times):8.2f} µs a step ({min(times):.2f} to {max(times):.2f})")
    print(f"Python {platform.python_version()}, pluggy {version('pluggy')}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
