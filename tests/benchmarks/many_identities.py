"""Memory and time of a training step's last part, over a thousand to a hundred thousand identities.

    python tests/benchmarks/many_identities.py [--classes 1000 10000 100000] [--sample 1.0 0.1] [--steps 8]

A step is what grows with the number of people and nothing else: embeddings of one batch, the loss, its backward pass,
clipping the gradient's norm, AdamW as the trainer makes it, and the average of the weights. The backbone is left out.
Every setting runs in a process of its own. `peak` is what the process held at most (resident memory), less what it held
with torch imported; `kept` is what stays between steps: centres, gradient, AdamW's two moments and the average, 4 bytes
a number each, the gradient set to None excepted. Times are medians of the processor's
time in one thread, which a busy machine does not change much.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch

from mtframe.data import DataInfo
from mtframe.kinds import FeatureSpec
from mtframe.recipe import TrainOptions
from mtframe.registry import resolve
from mtframe.training._optim import make_average, make_optimizer


def main() -> None:
    """Prints a line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--sample", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--loss", default="cosface")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--one", action="store_true", help="measure the first setting in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    print(f"{platform.machine()}, torch {torch.__version__}, {arguments.loss}, "
          f"batch {arguments.batch}, dim {arguments.dim}")  # fmt: skip
    print(f"{'classes':>9} {'sample':>7} {'peak MB':>9} {'kept MB':>9} {'loss ms':>9} {'update ms':>10}")
    for classes in arguments.classes:
        for sample in arguments.sample:
            options = {**vars(arguments), "classes": classes, "sample": sample}
            words = [word for name in ("classes", "sample", "loss", "batch", "dim", "steps")
                     for word in (f"--{name}", str(options[name]))]  # fmt: skip
            run = subprocess.run(
                [sys.executable, __file__, "--one", *words], capture_output=True, encoding="utf-8", check=True
            )  # fmt: skip
            found = json.loads(run.stdout)
            print(f"{classes:9} {sample:7g} {found['peak']:9.0f} {found['kept']:9.0f} {found['loss'] * 1e3:9.1f} "
                  f"{found['update'] * 1e3:10.1f}", flush=True)  # fmt: skip


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Megabytes and seconds of one setting."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    (classes,), (sample,) = arguments.classes, arguments.sample
    head = resolve("head", "embedding").component([FeatureSpec("last", 8, 32)], dim=arguments.dim)
    info = DataInfo("identity", tuple(map(str, range(classes))))
    before = resident()
    loss = resolve("loss", arguments.loss).component(head, info, sample=sample)
    options = TrainOptions()
    optimizer, average = make_optimizer(loss, None, options), make_average(loss, options)
    losses, updates = [], []
    for step in range(arguments.steps):
        embeddings = torch.randn(arguments.batch, arguments.dim, requires_grad=True)
        labels = torch.randint(classes, (arguments.batch,))
        start = time.process_time()
        loss({"embedding": embeddings}, {"label": labels})["identity"].backward()
        middle = time.process_time()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), options.clip_grad or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update(loss, step=step)
        losses.append(middle - start)
        updates.append(time.process_time() - middle)
    numbers = sum(parameter.numel() for parameter in loss.parameters())
    return {
        "peak": peak() - before,
        "kept": numbers * 4 * 4 / 1e6,
        "loss": statistics.median(losses[1:]),
        "update": statistics.median(updates[1:]),
    }


def resident() -> float:
    """Megabytes that this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def peak() -> float:
    """Megabytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
