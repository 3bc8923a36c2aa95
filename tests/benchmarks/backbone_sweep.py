"""Which backbones work: every family of timm and of torchvision, trained, evaluated, saved and loaded with both heads.

    python tests/benchmarks/backbone_sweep.py --out docs/backbones.md [--workers 2]
    python tests/benchmarks/backbone_sweep.py --only 'timm/conv*'

The first writes the page, the second tries some models and writes nothing.

It takes the smallest model of each module of `timm.models` (counted on the meta device), also of each first word of the
models' names where a module has several architectures and that model is small, and the smallest of each module of
torchvision. None is fetched: weights are random. Each model runs in a process of its own, forked from one that has
everything imported, on one thread and within a time limit. Takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import os
import platform
import re
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from mtframe.assembly import Assembly
from mtframe.errors import MtframeError
from mtframe.inference import load_run
from mtframe.recipe import assemble_recipe
from mtframe.registry import resolve
from mtframe.run import RunFolder
from mtframe.training import Trainer

# Sides in pixels: the first that a model takes. If it says which it takes, the next of these.
SIZES = (64, 96, 128, 224, 256, 384)

# Parameters below which further models of a module are taken: architectures are what counts, not sizes.
FURTHER = 16_000_000

# Seconds of the wall clock.
TIMEOUT = 600

HEAD = """# Which backbones work

Written by `python tests/benchmarks/backbone_sweep.py --out docs/backbones.md`; do not edit. {worked} of {all} models,
of {families} families of timm and torchvision, trained one step with both heads (`embedding` on faces, `dense` on
objects), were evaluated and saved, and gave the same outputs after loading. A family is a module of `timm.models` or
`torchvision.models`. The smallest model of each family was tried, and of families with several architectures the
smallest of each. Their relatives should work as well, since the code has no list of models.

*Parameters* are those of the backbone with its pyramid. *Size* is the smallest of {sizes} pixels that the model takes,
or one that it names. *Strides* are those of the maps that heads get. *Seconds* are processor time from building to
comparing. {versions}.
"""


@dataclass
class Result:
    """What became of one model; `reason` is empty if everything worked."""

    name: str
    family: str
    parameters: int = 0
    size: int = 0
    strides: tuple[int, ...] = ()
    seconds: float = 0.0
    reason: str = ""

    def row(self) -> str:
        """A row of the table."""
        cells = [f"`{self.name}`", self.family.rpartition(".")[2], f"{self.parameters / 1e6:.1f} M", str(self.size)]
        cells += [", ".join(map(str, self.strides)), f"{self.seconds:.0f}", *([self.reason] if self.reason else [])]
        return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Chooses, runs, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="Shell pattern of names such as 'timm/conv*'")
    parser.add_argument("--out", type=Path, help="Where the page is written (default: nowhere)")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    models = choose(arguments.only, arguments.workers)
    families = len(set(models.values()))
    print(f"{len(models)} models of {families} families chosen in {time.monotonic() - start:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        # Imports and caches whatever is needed, once and not in each process.
        run_model(Result("timm/test_resnet", ""), SIZES[0], Path(folder))
        jobs: dict[tuple[str, ...], Callable[[], Any]] = {
            (name, family): partial(try_model, name, family, Path(folder)) for name, family in models.items()
        }
        results = []
        for (name, family), found in in_processes(jobs, arguments.workers, TIMEOUT):
            result = found if isinstance(found, Result) else Result(name, family, reason=found)
            results.append(result)
            print(f"{len(results):4} {result.row()}", flush=True)
    page = describe(sorted(results, key=lambda result: (result.family, result.name)))
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")
    print(f"{sum(not r.reason for r in results)} of {len(results)} work; {time.monotonic() - start:.0f} s")


def choose(only: str, workers: int) -> dict[str, str]:
    """The models to try, each with the module that is its family."""
    named = fnmatch.filter(all_members(), only)
    families = {name: family_of(name) for name in named}
    by_family: dict[str, list[str]] = {}
    for name in named:
        # timm's own tiny models for tests are nobody's backbone.
        if not name.startswith("timm/test_"):
            by_family.setdefault(families[name], []).append(name)
    jobs: dict[tuple[str, ...], Callable[[], Any]] = {
        (family,): partial(count_all, members) for family, members in by_family.items()
    }
    chosen: dict[str, str] = {}
    for (family,), counts in in_processes(jobs, workers, TIMEOUT):
        assert isinstance(counts, dict), f"{family}: {counts}"
        smallest = min(counts, key=lambda name: (counts[name], name))
        words: dict[str, str] = {}
        for name in sorted(counts, key=lambda name: (counts[name], name)):
            words.setdefault(first_word(name), name)
        several = [name for name in words.values() if counts[name] < FURTHER] if family.startswith("timm.") else []
        chosen |= dict.fromkeys([smallest, *several], family)
    return dict(sorted(chosen.items()))


def all_members() -> list[str]:
    """Every member of both families of backbones."""
    return [f"{family}/{member}" for family in ("timm", "torchvision")
            for member in resolve("backbone", f"{family}/resnet18").component.members("*")]  # fmt: skip


def family_of(name: str) -> str:
    """The module that a model comes from."""
    library, _, member = name.partition("/")
    if library == "timm":
        return timm.model_entrypoint(member).__module__
    return torchvision.models.get_model_builder(member).__module__


def first_word(name: str) -> str:
    """`timm/mobilenetv2_100` and `timm/mobilenetv2_140` begin alike: with `mobilenetv2`."""
    found = re.match(r"(tf_)?[a-z]+(v\d+)?", name.partition("/")[2])
    return found[0] if found else name


def count_all(names: Sequence[str]) -> dict[str, int]:
    """Parameters of each."""
    return {name: count(name) for name in names}


def count(name: str) -> int:
    """Parameters of the whole model, found without memory."""
    library, _, member = name.partition("/")
    if library == "timm":
        try:
            with torch.device("meta"):
                model = timm.create_model(member, pretrained=False)
        except (RuntimeError, NotImplementedError):
            model = timm.create_model(member, pretrained=False)
        return sum(parameter.numel() for parameter in model.parameters())
    weights = torchvision.models.get_model_weights(member)
    return min(entry.meta["num_params"] for entry in weights)


def make_data(folder: Path) -> None:
    """A few faces and scenes."""
    resolve("dataset", "lfw").component.synthesize(
        folder / "faces", people=3, images=3, test_people=4, pairs=10, size=64, workers=1
    )
    resolve("dataset", "coco").component.synthesize(folder / "objects", train=4, val=3, size=64, workers=1)


def try_model(name: str, family: str, data: Path) -> Result:
    """Everything that one model is put through."""
    result = Result(name, family)
    size: int | None = SIZES[0]
    while size is not None:
        result.size = size
        try:
            run_model(result, size, data)
            result.reason = ""
            break
        except MtframeError as error:
            result.reason = result.reason or one_line(error)
            size = larger_size(size, str(error))
    result.seconds = time.process_time()
    return result


def larger_size(size: int, message: str) -> int | None:
    """The next side to try after a model has refused one; None if that was not what it refused."""
    if "cannot take images of" not in message:
        return None
    found = re.search(r"; it takes ([\d or]+), for example", message)
    named = [int(number) for number in found[1].split(" or ")] if found else []
    return min((side for side in named or SIZES if size < side <= SIZES[-1]), default=None)


def run_model(result: Result, size: int, data: Path) -> None:
    """Trains a step, evaluates, saves, loads, compares."""
    settings = ["backbone.pretrained=false", f"tasks.faces.size={size}", f"tasks.objects.size={size}",
                "tasks.faces.batch_size=4", "tasks.faces.head.dim=16", "tasks.objects.batch_size=2",
                "tasks.objects.head.width=32", "train.steps=1", "train.workers=0", "train.precision=fp32",
                "train.ema=null", "train.log_every=1", "train.optimizer=sgd", "train.warmup=0",
                "train.evaluate_every=null", "train.device=cpu"]  # fmt: skip
    tasks = [f"faces=face-recognition:{data}/faces", f"objects=object-detection:{data}/objects"]
    recipe = assemble_recipe(result.name, tasks, settings)
    with tempfile.TemporaryDirectory(dir=data) as folder:
        assembly = Assembly(recipe)
        trainer = Trainer(assembly, RunFolder(Path(folder) / "run").create(recipe, assembly.infos))
        backbone: Any = trainer.model.sharing.backbone
        result.parameters = sum(parameter.numel() for parameter in backbone.parameters())
        result.strides = tuple(feature.stride for feature in backbone.features)
        trainer.fit()
        for number in range(len(backbone.stages)):
            check_learned(backbone, number, trainer.optimizer)
        images = {task: torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8) for task in assembly.tasks}
        compare(outputs(trainer.model, images), outputs(load_run(Path(folder) / "run", "last", "cpu").model, images))


def check_learned(backbone: Any, number: int, optimizer: torch.optim.Optimizer) -> None:
    """Raises AssertionError if no weight of a stage has had a gradient."""
    prefixes = tuple(f"{prefix}." for prefix in backbone.stages[number])
    weights = [p for name, p in backbone.named_parameters() if f"{name}.".startswith(prefixes) and p.requires_grad]
    # What SGD keeps for its momentum is, after one step, the gradient.
    learned = [bool(optimizer.state[weight].get("momentum_buffer", torch.zeros(1)).any()) for weight in weights]
    assert any(learned) or not weights, f"no gradient reaches stage {number + 1} of {len(backbone.stages)}"


@torch.inference_mode()
def outputs(model: torch.nn.Module, images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All tensors that the heads give, by task and name."""
    given = model.eval()(images)
    return {f"{task}.{name}": tensor for task, named in given.items() for name, tensor in named.items()}


def compare(saved: dict[str, torch.Tensor], loaded: dict[str, torch.Tensor]) -> None:
    """Raises AssertionError if a loaded model gives other outputs than the one that was saved."""
    for name, tensor in saved.items():
        assert tensor.isfinite().all(), f"its {name} are not finite"
        # The trainer lays weights out NHWC, which adds up in another order.
        assert torch.allclose(tensor, loaded[name], rtol=1e-3, atol=1e-3), f"its {name} differ after loading"


def in_processes(
    jobs: dict[tuple[str, ...], Callable[[], Any]], workers: int, timeout: float
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Runs each job in a forked process; yields its key with what it returned, or with what went wrong."""
    context = multiprocessing.get_context("fork")
    waiting = list(jobs.items())
    running: dict[Connection, tuple[tuple[str, ...], Any, float]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            key, job = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=report, args=(theirs, job))
            process.start()
            theirs.close()
            running[ours] = (key, process, time.monotonic())
        ready = wait(list(running), timeout=1)
        for connection, (key, process, start) in list(running.items()):
            late = time.monotonic() - start > timeout
            if connection not in ready and not late:
                continue
            try:
                found = connection.recv() if connection in ready else f"took longer than {timeout:.0f} s"
            except EOFError:
                found = "its process was killed, perhaps for want of memory"
            process.kill()
            process.join()
            del running[connection]
            yield key, found


def report(connection: Connection, job: Callable[[], Any]) -> None:
    """In the forked process: sends what the job returns, or one line of what it raised."""
    try:
        # What libraries print about themselves is not about the model.
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        found = job()
    except AssertionError as error:
        found = one_line(error) or traceback.format_exc().splitlines()[-2].strip()
    except Exception as error:
        found = f"{type(error).__name__}: {one_line(error)}"
    connection.send(found)


def one_line(error: Exception) -> str:
    """An error's message for a table, without the folders of this run; whole sentences of it if it is long."""
    text = re.sub(r"\S*/tmp\S*/(\S+)", r"\1", re.sub(r"\s+", " ", str(error))).replace("|", "/").strip()
    # What follows such a bracket are names of tensors, by the hundred.
    kept, names, _ = text.partition(": [{")
    if len(kept) > 240:
        sentences = re.match(r".*[.;](?= )", kept[:240])
        kept = sentences[0] if sentences else kept[:240].rpartition(" ")[0]
    elif not names:
        return kept
    return f"{kept} ...{')' * (kept.count('(') - kept.count(')'))}"


def describe(results: Sequence[Result]) -> str:
    """The page."""
    worked = [result for result in results if not result.reason]
    versions = (f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}, "
                f"torchvision {torchvision.__version__}")  # fmt: skip
    head = HEAD.format(worked=len(worked), all=len(results), families=len({result.family for result in worked}),
                       sizes=", ".join(map(str, SIZES)), versions=versions)  # fmt: skip
    lines = ["\n\n".join(textwrap.fill(paragraph, 120) for paragraph in head.split("\n\n")), ""]
    if refused := [result for result in results if result.reason]:
        lines += ["## What does not work, and why\n"]
        lines += [f"- `{result.name}`: {result.reason}" for result in refused] + [""]
    for library in ("timm", "torchvision"):
        lines += [f"## {library}\n", "| model | family | parameters | size | strides | seconds |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [result.row() for result in worked if result.name.startswith(f"{library}/")]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
