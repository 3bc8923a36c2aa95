"""What gradients per task cost: a step of the engine against the plain sum of losses, and against others.

    python tests/benchmarks/gradient_step.py [--tasks 2 3 5] [--rounds 9] [--threads 2] [--norm group] [--only engine]
    python tests/benchmarks/gradient_step.py --same

Every side runs the same model on the same images, 16 a task, or 16 that all tasks look at (`--same`); a step is forward
and backward, to the shared parameters' balanced gradient:

    plain     one backward pass of the summed losses of one concatenated forward pass
    engine    mtframe: gradients per task, their Gram matrix, UPGrad's weights
    maps      mtframe, likewise at the feature maps
    naive     a backward pass a task through the joint graph, then the same Gram matrix and weights
    torchjd   TorchJD: `mtl_backward`, one task at a time, and its UPGrad
    autogram  TorchJD: the Gram matrix by its autogram engine, its UPGrad's weights, a backward pass with these
    libmtl    LibMTL's PCGrad: a forward pass a task, losses in one tensor, as its trainer does

The last three need `pip install 'mtframe[peers]'`, and are left out without. Autogram wants a trunk without BatchNorm:
it is there with `--norm group`, which gives all sides GroupNorm.

Times are medians over interleaved rounds, so that the machine's drift meets all sides; the ratio is that of the
medians, and beside it the median of each round's own ratio, which another program's load disturbs least. FLOPs are
FlopCounterMode's. Memory is the highest resident size of a fresh process during three steps, less that before the
first (`VmHWM` of Linux, which counts all that tracemalloc does not see). All sides keep the memory that they free, as
mtframe's commands do on a CPU.
"""

# Shapes: T tasks, P shared parameters.

from __future__ import annotations

import argparse
import gc
import importlib.util
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import GroupNorm
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtframe.balance import UPGrad
from mtframe.device import keep_freed_memory
from mtframe.gradients import GradientEngine
from mtframe.gradients._gram import gram_matrix, weighted_sum
from mtframe.kinds import FeatureSpec
from mtframe.model import MultiTaskModel, Network

BATCH, SIZE = 16, 96


class Trunk(nn.Module):
    """The last map of a timm model."""

    def __init__(self, name: str, norm: str) -> None:
        super().__init__()
        layer = {} if norm == "batch" else {"norm_layer": GroupNorm}
        self.net = timm.create_model(name, num_classes=0, global_pool="", **layer)
        self.features = (FeatureSpec("last", self.net.num_features, 32),)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.net(images)]


class Head(nn.Module):
    """Ten classes of the map's mean."""

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__()
        self.linear = nn.Linear(features[-1].channels, 10)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"logits": self.linear(maps[-1].mean((2, 3)))}


class Loss(nn.Module):
    """Cross-entropy."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(outputs["logits"], targets["label"])}


class Case:
    """A model with its batches, and the steps that are compared."""

    def __init__(self, backbone: str, count: int, norm: str, *, same: bool = False) -> None:
        torch.manual_seed(0)
        self.tasks = [f"task{i}" for i in range(count)]
        trunk = Trunk(backbone, norm)
        heads = {task: Head(trunk.features) for task in self.tasks}
        losses = {task: Loss() for task in self.tasks}
        self.model = MultiTaskModel(Network(trunk, [self.tasks]), heads, losses, mean=(0.5,) * 3, std=(0.3,) * 3)
        self.model.train()
        self.lenders = dict.fromkeys(self.tasks[1:], self.tasks[0]) if same else {}
        self.images = {task: torch.rand(BATCH, 3, SIZE, SIZE) * 255 for task in self.tasks if task not in self.lenders}
        self.targets = {task: {"label": torch.randint(10, (BATCH,))} for task in self.tasks}
        self.shared = list(trunk.parameters())
        self.engine = GradientEngine(self.model)
        self.steps: dict[str, Callable[[], None]] = {
            "plain": lambda: total(self.losses()).backward(),
            "engine": lambda: self.engine.backward(self.images, self.lenders, self.losses, UPGrad()),
            "maps": lambda: self.engine.backward(self.images, self.lenders, self.losses, UPGrad(), at="maps"),
            "naive": self.naive,
        }
        if importlib.util.find_spec("torchjd"):
            self.steps["torchjd"] = self.torchjd
        if importlib.util.find_spec("torchjd") and norm == "group" and not same:
            from torchjd.aggregation import UPGradWeighting
            from torchjd.autogram import Engine

            # A model of its own: the engine's hooks do not bear passes that it is not asked of.
            self.hooked = deepcopy(self.model)
            self.autogram_engine = Engine(self.hooked.sharing.backbone, batch_dim=None)
            self.weighting = UPGradWeighting()
            self.steps["autogram"] = self.autogram
        if importlib.util.find_spec("LibMTL") and not same:
            self.peer = libmtl_balancer(self)
            self.steps["libmtl"] = self.libmtl

    def losses(self, model: MultiTaskModel | None = None) -> dict[str, Tensor]:
        model = model or self.model
        outputs = model(self.images, self.lenders)
        return {task: model.loss(task, outputs[task], self.targets[task])["loss"] for task in self.tasks}

    def naive(self) -> None:
        losses = list(self.losses().values())
        heads = [list(self.model.heads[task].parameters()) for task in self.tasks]
        rows = []
        for loss, own in zip(losses, heads, strict=True):
            found = torch.autograd.grad(loss, [*self.shared, *own], retain_graph=loss is not losses[-1])
            rows.append(list(found[: len(self.shared)]))
            for parameter, gradient in zip(own, found[len(self.shared) :], strict=True):
                parameter.grad = gradient
        self._balance(rows)

    def torchjd(self) -> None:
        from torchjd.aggregation import UPGrad as TheirUPGrad
        from torchjd.autojac import jac_to_grad, mtl_backward

        maps: list[Tensor] = []
        trunk: Any = self.model.sharing.backbone
        handle = trunk.register_forward_hook(lambda module, inputs, output: maps.extend(output))
        losses = list(self.losses().values())
        handle.remove()
        mtl_backward(losses, features=maps, parallel_chunk_size=1)
        jac_to_grad(self.shared, TheirUPGrad())

    def autogram(self) -> None:
        self.hooked.zero_grad()
        losses = torch.stack(list(self.losses(self.hooked).values()))
        losses.backward(self.weighting(self.autogram_engine.compute_gramian(losses)))

    def libmtl(self) -> None:
        losses = torch.zeros(len(self.tasks))
        for row, task in enumerate(self.tasks):
            outputs = self.model({task: self.images[task]})
            losses[row] = self.model.loss(task, outputs[task], self.targets[task])["loss"]
        self.peer.backward(losses)

    def _balance(self, rows: list[list[Tensor]]) -> None:
        gram = gram_matrix([{str(i): gradient for i, gradient in enumerate(row)} for row in rows])
        weights = UPGrad().weigh(gram, torch.ones(len(rows), dtype=torch.float64)).tolist()
        for i, parameter in enumerate(self.shared):
            parameter.grad = weighted_sum([(row[i], weight) for row, weight in zip(rows, weights, strict=True)])


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The plain sum."""
    first, *rest = losses.values()
    return sum(rest, first)


def libmtl_balancer(case: Case) -> Any:
    """LibMTL's PCGrad, with what its trainer's model gives it."""
    # LibMTL 1.1.5 imports a function from where torchvision no longer has it.
    sys.modules.setdefault("torchvision.models.utils", torch.hub)
    from LibMTL.weighting import PCGrad

    class Peer(PCGrad):
        task_num, rep_grad, device = len(case.tasks), False, torch.device("cpu")

        def get_share_params(self) -> list[nn.Parameter]:
            return case.shared

        def zero_grad_share_params(self) -> None:
            for parameter in case.shared:
                if parameter.grad is not None:
                    parameter.grad.zero_()

    return Peer()


def main() -> None:
    """Prints a table for each number of tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--norm", choices=("batch", "group"), default="batch")
    parser.add_argument("--same", action="store_true", help="all tasks look at the same images")
    parser.add_argument("--only", nargs="+", help="sides beside plain; all if not given")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    if arguments.memory_of is not None:
        case = Case(arguments.backbone, arguments.tasks[0], arguments.norm, same=arguments.same)
        print(peak_memory(case, arguments.memory_of))
        return
    images = f"{BATCH} images {'for all' if arguments.same else 'a task'}"
    print(
        f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, timm {timm.__version__}, "
        f"{versions()}{arguments.backbone}, {arguments.norm} norm, {images} of {SIZE} pixels, fp32, "
        f"{arguments.rounds} rounds"
    )
    for count in arguments.tasks:
        compare(Case(arguments.backbone, count, arguments.norm, same=arguments.same), arguments)


def versions() -> str:
    """Of the peers that are there."""
    there = {name: importlib.util.find_spec(name) for name in ("torchjd", "LibMTL")}
    return "".join(f"{name} {metadata.version(name)}, " for name, spec in there.items() if spec)


def compare(case: Case, arguments: argparse.Namespace) -> None:
    """Prints the table for one number of tasks."""
    sides = ["plain", *(name for name in case.steps if name != "plain" and name in (arguments.only or case.steps))]
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        for name in sides:
            case.model.zero_grad()
            start = time.perf_counter()
            case.steps[name]()
            if number:
                times[name].append(time.perf_counter() - start)
    buffer = len(case.tasks) * sum(p.numel() * p.element_size() for p in case.shared) / 2**20
    print(f"\n{len(case.tasks)} tasks; a buffer of T × shared parameters is {buffer:.0f} MiB")
    print(f"{'':8} {'ms':>8} {'ratio':>7} {'by round':>9} {'FLOPs':>7} {'MiB':>7} {'ratio':>7}")
    base = statistics.median(times["plain"])
    flops = {name: flops_of(case, name) for name in sides}
    memory = {name: memory_of(name, len(case.tasks), arguments) for name in sides}
    for name in sides:
        median = statistics.median(times[name])
        paired = statistics.median(a / b for a, b in zip(times[name], times["plain"], strict=True))
        print(
            f"{name:8} {median * 1e3:8.0f} {median / base:7.3f} {paired:9.3f} {flops[name] / flops['plain']:7.3f} "
            f"{memory[name]:7.0f} {memory[name] / memory['plain']:7.2f}",
            flush=True,
        )


def flops_of(case: Case, name: str) -> int:
    """Of one step."""
    case.model.zero_grad()
    with FlopCounterMode(display=False) as counter:
        case.steps[name]()
    return counter.get_total_flops()


def memory_of(name: str, count: int, arguments: argparse.Namespace) -> float:
    """MiB that a step needs beside model and images, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--tasks", str(count), "--memory-of", name,
               "--threads", str(arguments.threads), "--backbone", arguments.backbone,
               "--norm", arguments.norm, *(["--same"] if arguments.same else [])]  # fmt: skip
    return float(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)


def peak_memory(case: Case, name: str) -> float:
    """MiB by which three steps raise this process's highest resident size."""
    gc.collect()
    before = _status("VmRSS")
    for _ in range(3):
        case.model.zero_grad()
        case.steps[name]()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
