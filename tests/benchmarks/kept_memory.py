"""What it brings on a CPU that freed memory is kept (`mtframe.device.keep_freed_memory`).

    python tests/benchmarks/kept_memory.py [--rounds 3] [--threads 2]

Steps of timm models from scratch, each in a process of its own, with and without in turn: evaluation is a forward pass,
training a step of SGD. Times are medians over processes of each one's median step; memory is the highest resident size
(`VmHWM` of Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = (
    ("resnet18", 32, 224, "evaluation"),
    ("resnet18", 32, 224, "training"),
    ("resnet50", 16, 224, "training"),
    ("resnet18", 48, 96, "training"),
    ("vit_small_patch16_224", 16, 224, "training"),
)
STEPS = 7


def main() -> None:
    """Prints a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(*measured(*CASES[arguments.case], arguments.threads))
        return
    print(f"{'':40} {'ms':>7} {'kept':>7} {'ratio':>6} {'MiB':>7} {'kept':>7}")
    for case, (name, batch, size, mode) in enumerate(CASES):
        found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(arguments.rounds):
            for kept in (False, True):
                found[kept].append(in_a_process(case, arguments.threads, kept=kept))
        (plain, most), (with_it, most_kept) = (
            [statistics.median(values) for values in zip(*found[kept], strict=True)] for kept in (False, True)
        )
        label = f"{name}, {batch} images of {size}, {mode}"
        print(f"{label:40} {plain:7.0f} {with_it:7.0f} {with_it / plain:6.2f} {most:7.0f} {most_kept:7.0f}", flush=True)


def in_a_process(case: int, threads: int, *, kept: bool) -> tuple[float, float]:
    """Milliseconds a step, MiB."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    if not kept:
        # A setting without effect, which says that the user sets malloc.
        environment["GLIBC_TUNABLES"] = "glibc.malloc.check=0"
    command = [sys.executable, __file__, "--case", str(case), "--threads", str(threads)]
    output = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=environment).stdout
    milliseconds, mebibytes = output.split()
    return float(milliseconds), float(mebibytes)


def measured(name: str, batch: int, size: int, mode: str, threads: int) -> tuple[float, float]:
    """Of this process."""
    import timm
    import torch

    from mtframe.device import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).train(mode == "training")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.rand(batch, 3, size, size)
    times = []
    for _ in range(STEPS + 2):
        start = time.perf_counter()
        if mode == "training":
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
        else:
            with torch.inference_mode():
                model(images)
        times.append(time.perf_counter() - start)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    most = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return statistics.median(times[2:]) * 1e3, most / 1024


if __name__ == "__main__":
    main()
