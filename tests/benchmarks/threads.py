"""How many predictions of a model that several threads call at once are wrong: none should be.

    python tests/benchmarks/threads.py [--predictions 1000] [--threads 4] [--batchnorm per-task] [--only NAME ...]

A model for a task of 64 pixels, one of 96, and a third that looks at the images of the first, with each sharing scheme
that is installed, over timm/test_resnet with weights and statistics that have moved. Each prediction is one of 30
different ones, drawn by chance, and wrong where it is not what one thread alone gets, or where it raises. Threads are
switched a thousand times as often as Python does, so that what can go wrong does. The exit code is 1 if anything did.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.kinds import HasExamples
from mtframe.model import MultiTaskModel
from mtframe.registry import discover
from mtframe_classification.heads import Classifier
from mtframe_timm.backbone import TimmBackbone

SIZES = {"small": 64, "large": 96}
LENDERS: dict[str, dict[str, str]] = {"small": {"viewer": "small"}, "large": {}}

Request = tuple[dict[str, Tensor], dict[str, str]]


def main() -> None:
    """Prints a line a scheme."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=1000, help="of each scheme")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--batchnorm", default="per-task", choices=("per-task", "shared", "frozen"))
    parser.add_argument("--only", nargs="+", help="names of sharing schemes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.setswitchinterval(5e-6)
    print(f"{'scheme':14}{'wrong':>8} of {options.predictions}   predictions/s   in one thread")
    total = 0
    for component in discover("sharing"):
        if options.only and component.name not in options.only:
            continue
        model = trained(component.load(), options.batchnorm)
        wrong, errors, rate, alone = compare(model, options.predictions, options.threads)
        total += wrong
        print(f"{component.name:14}{wrong:8}{'':12}{rate:9.0f}{alone:16.0f}   {', '.join(errors)}")
    print(f"wrong: {total}")
    print(f"{options.threads} threads, {os.cpu_count()} cores, batchnorm {options.batchnorm}, "
          f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}")  # fmt: skip
    sys.exit(total > 0)


@torch.no_grad()
def trained(scheme: Any, batchnorm: str) -> MultiTaskModel:
    """A model whose weights are shaken, and whose statistics are those of images as they come."""
    torch.manual_seed(0)
    options = next(iter(scheme.examples.values())) if isinstance(scheme, HasExamples) else {}
    backbone = TimmBackbone("test_resnet", max(SIZES.values()), pretrained=False)
    sharing = scheme(backbone, (("small", "viewer"), ("large",)), batchnorm=batchnorm, **options)
    info = DataInfo("label", tuple("abcdefgh"))
    heads = {task: Classifier(sharing.features, info) for task in ("small", "viewer", "large")}
    model = MultiTaskModel(sharing, heads, {task: nn.Identity() for task in heads}, mean=(0.5,) * 3, std=(0.25,) * 3)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    model.train()
    for seed in range(5):
        for task in SIZES:
            model(*request(task, 8, seed))
    return model.eval()


def request(task: str, count: int, seed: int) -> Request:
    """Images of a task, and who else looks at them; large ones are brighter."""
    side, floor = SIZES[task], 100 * (task == "large")
    generator = torch.Generator().manual_seed(seed)
    return {task: torch.randint(floor, floor + 155, (count, 3, side, side), generator=generator).byte()}, LENDERS[task]


def compare(model: MultiTaskModel, count: int, threads: int) -> tuple[int, list[str], float, float]:
    """How many of `count` predictions are wrong, what was raised, and predictions a second, in threads and in one."""
    requests = [request(task, images, seed) for seed in range(5) for images in (1, 2, 4) for task in SIZES]
    expected = [predicted(model, one) for one in requests]
    order = random.Random(0).choices(range(len(requests)), k=count)
    begun = time.perf_counter()
    for number in order[:100]:
        predicted(model, requests[number])
    alone = min(100, count) / (time.perf_counter() - begun)
    errors: Counter[str] = Counter()

    def right(number: int) -> bool:
        try:
            return same(predicted(model, requests[number]), expected[number])
        except Exception as error:  # whatever comes of shapes and names that do not fit
            errors[type(error).__name__] += 1
            return False

    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        wrong = count - sum(pool.map(right, order))
    rate = count / (time.perf_counter() - begun)
    return wrong, [f"{times} {name}" for name, times in errors.items()], rate, alone


@torch.no_grad()
def predicted(model: MultiTaskModel, asked: Request) -> Sequence[Tensor]:
    """The logits of every task of a request."""
    return [outputs["logits"] for outputs in model(*asked).values()]


def same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Up to the order of sums."""
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
