"""What it costs to measure the tasks' gradients during training (`train.gradients_every`).

    python tests/benchmarks/gradient_stats.py [--tasks 2 3 5] [--backbone resnet18 convnext_atto] [--rounds 15]

A whole step of training (forward, backward, AdamW) of a model as in `gradient_step.py`, with the plain sum of losses
(`sum`) and with a balancer of gradients (`engine`), measured and not, by turns. To a measured step belongs all that it
takes: Gram matrices by stage, the update's share, the rows of the file. The ratio is the median of each round's own
ratio, which the load of another program disturbs least. One measured step in N makes a training (ratio - 1) / N longer:
the table has this for some N, and the least N that keeps it within 3 %. Reading images costs nothing here.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from gradient_step import BATCH, SIZE, Case, total

from mtframe.balance import Sum, UPGrad
from mtframe.device import keep_freed_memory
from mtframe.training._gradient_log import GradientLog

EVERY = (20, 50, 100)


class Every:
    """In place of a schedule: all tasks meet in every step."""

    def due(self, step: int, every: int) -> bool:
        """Always."""
        return True


class Timed:
    """Steps of one model, measured or not."""

    def __init__(self, backbone: str, count: int, file: Path) -> None:
        self.case = case = Case(backbone, count, "batch")
        # A stage a module, as backbones of recipes have several.
        trunk: Any = case.model.sharing.backbone
        trunk.stages = tuple((f"net.{name}",) for name, _ in trunk.net.named_children())
        everything: Any = Every()
        self.optimizer = torch.optim.AdamW(case.model.parameters(), fused=True)
        self.log = GradientLog(case.engine, everything, 1, 1)
        self.log.begin(file, 0)
        self.balancers: dict[str, Sum | UPGrad] = {"sum": Sum(case.tasks), "engine": UPGrad()}

    def step(self, side: str, *, measured: bool) -> float:
        """Seconds."""
        case, balancer = self.case, self.balancers[side]
        begun = time.perf_counter()
        measurement = self.log.measurement(1) if measured else None
        if measurement is not None:
            case.engine.backward(case.images, {}, case.losses, balancer, observer=measurement)
            measurement.before_update()
        elif side == "engine":
            case.engine.backward(case.images, {}, case.losses, balancer)
        else:
            total(case.losses()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if measurement is not None:
            self.log.write(1, measurement)
        return time.perf_counter() - begun


def main() -> None:
    """Prints a line for each backbone, number of tasks and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--backbone", nargs="+", default=["resnet18", "convnext_atto"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(
        f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, timm {timm.__version__}, "
        f"{BATCH} images a task of {SIZE} pixels, fp32, {arguments.rounds} rounds"
    )
    costs = "".join(f"{f'1 in {every}':>10}" for every in EVERY)
    print(f"{'backbone':16}{'tasks':>6}{'':>8}{'ms':>8}{'measured':>10}{'ratio':>8}{costs}{'within 3 %':>14}")
    for backbone in arguments.backbone:
        for count in arguments.tasks:
            with tempfile.TemporaryDirectory() as folder:
                timed = Timed(backbone, count, Path(folder) / "gradients.csv")
                for side in timed.balancers:
                    print(f"{backbone:16}{count:6}{side:>8}{line(timed, side, arguments.rounds)}", flush=True)


def line(timed: Timed, side: str, rounds: int) -> str:
    """Milliseconds of both steps, their ratio and what follows from it."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        # The first, which also has the trial run, does not count; who goes first changes.
        for measured in (False, True) if number % 2 else (True, False):
            seconds = timed.step(side, measured=measured)
            if number:
                times[measured].append(seconds)
    ratio = statistics.median(a / b for a, b in zip(times[True], times[False], strict=True))
    plain, observed = (statistics.median(times[which]) * 1e3 for which in (False, True))
    costs = "".join(f"{(ratio - 1) / every:10.2%}" for every in EVERY)
    return f"{plain:8.0f}{observed:10.0f}{ratio:8.2f}{costs}{f'1 in {max(1, math.ceil((ratio - 1) / 0.03))}':>14}"


if __name__ == "__main__":
    main()
