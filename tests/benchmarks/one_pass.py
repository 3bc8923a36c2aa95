"""How often a picture passes the backbone, and what a model of several tasks costs in use beside one model a task.

    python tests/benchmarks/one_pass.py [--rounds 5] [--size 160] [--backbone timm/resnet18]
    python tests/benchmarks/one_pass.py --baseline PYTHON
    python tests/benchmarks/one_pass.py --only passes

Two and three tasks of one size look at the same pictures, as tasks that each have their data (`equal transforms`)
or with `images: OTHER`. All is made on the spot: pictures, labels, and runs of one step, since time does not depend on
what is learned.

passes  Calls of the backbone and images in them, for each picture that is predicted (`predict`, and `predict_many`
        where there is one) or evaluated (`mtframe evaluate`), with and without `flip_test`.
time    Predicting pixels that are in memory (`predict_many`, or `predict` one by one), with the joint run, over the
        sum of the times with the runs of its single tasks. Goals: at most 0.60 for two tasks, 0.45 for three. One pass
        for all tasks, and heads that cost nothing, would be 0.50 and 0.33.

`--baseline` is the Python of another installation of mtframe, an older one: it then makes runs of its own, and
is measured in turn with this one. Each installation answers from a process of its own. Times are medians over
interleaved rounds; a ratio is the median of each round's own, which another program's load disturbs least. Where
much else runs, look at processor time, with `--threads 1`: threads that wait for each other count too.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

# Preset of each task, and what of the table it learns.
TASKS = {
    "scene": ("image-classification", []),
    "things": ("multi-label-classification", ["tasks.things.dataset.labels=[near,bright]"]),
    "numbers": ("regression", ["tasks.numbers.dataset.values=[height,tilt]"]),
}
COUNTS = (2, 3)
OTHER = "other"
SHAPES = ("equal transforms", "images: OTHER")
USES = ("predict", "predict_many", "evaluate")
GOALS = {2: 0.60, 3: 0.45}


def main() -> None:
    """Prints a table of passes and one of times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--size", type=int, default=160, help="of the networks' input")
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--baseline", metavar="PYTHON", help="of another installation")
    parser.add_argument("--only", choices=("passes", "time"))
    parser.add_argument("--threads", type=int, help="of torch; a core each if not given")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer is not None:
        answer(arguments)
        return
    if arguments.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    pythons = {"here": sys.executable} | ({"baseline": arguments.baseline} if arguments.baseline else {})
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_data(folder / "data", arguments.pictures)
        sides = {}
        for name, python in pythons.items():
            sides[name] = Side(python, folder / name, arguments)
            stack.callback(sides[name].end)
            print(f"{name:9} {sides[name].ask('about')}", flush=True)
        print(f"{arguments.backbone}, {arguments.size} pixels, {arguments.pictures} pictures")
        if arguments.only != "time":
            print_passes(sides)
        if arguments.only != "passes":
            print_times(sides, arguments)


def make_data(root: Path, pictures: int) -> None:
    """Scenes in a folder for each class, and a table beside them with more to say of the same files."""
    from mtframe.registry import resolve

    resolve("dataset", "image-folder").component.synthesize(root, train=16, val=pictures, size=240)
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.jpg"))
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", "near", "bright", "height", "tilt"])
        for number, name in enumerate(files):
            # Nothing that could be learned: the time does not depend on it.
            split = name.partition("/")[0]
            table.writerow([name, split, number % 2, number // 2 % 2, number % 5, number % 7])


class Times(NamedTuple):
    """Seconds, by the clock and of the processor."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> Times:
        """The times since some moment, those of the processor of all threads of this process."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, begun: Times) -> Times:
        """The times that have passed."""
        return Times(self.clock - begun.clock, self.processor - begun.processor)


class Side:
    """A process of one installation, which makes its runs and is asked for calls and times.

    Args:
        python: Its Python.
        folder: Where its runs go.
        arguments: Of this program.
    """

    def __init__(self, python: str, folder: Path, arguments: argparse.Namespace) -> None:
        command = [python, __file__, "--answer", str(folder), "--pictures", str(arguments.pictures),
                   "--size", str(arguments.size), "--backbone", arguments.backbone]  # fmt: skip
        # With PYTHONPATH both sides could import one mtframe.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment
        )

    def ask(self, what: str, *operands: object) -> Any:
        """The answer to one question, see `Answers`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([what, *operands]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended without an answer to {what!r}")
        return json.loads(line)

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def print_passes(sides: Mapping[str, Side]) -> None:
    """What each use of the backbone costs a picture, in calls and in images."""
    print("\nbackbone, a picture: calls / images")
    print(f"{'':48} " + " ".join(f"{use:>14}" for use in USES))
    for count, shape, flip in itertools.product(COUNTS, SHAPES, (False, True)):
        label = f"{count} tasks, {shape}{', flip_test' if flip else ''}"
        for name, side in sides.items():
            found = side.ask("passes", count, shape, flip)
            cells = ["{:.2f} / {:.2f}".format(*found[use]) if use in found else "-" for use in USES]
            print(f"{label:38} {name:9} " + " ".join(f"{cell:>14}" for cell in cells), flush=True)


def print_times(sides: Mapping[str, Side], arguments: argparse.Namespace) -> None:
    """The joint runs' times over the sums of their single tasks'."""
    joint = {(count, shape): run_name(list(TASKS)[:count], shape) for count in COUNTS for shape in SHAPES}
    single = {task: run_name([task]) for task in TASKS}
    rounds: dict[tuple[str, str], list[Times]] = {}
    # One round more, which warms up.
    for _ in range(arguments.rounds + 1):
        for run, (name, side) in itertools.product([*joint.values(), *single.values()], sides.items()):
            rounds.setdefault((name, run), []).append(Times(*side.ask("times", run)))
    times = {key: values[1:] for key, values in rounds.items()}
    print(
        f"\ntime of {arguments.rounds} rounds: ms a picture, joint and single; ratio by the clock and of processor time"
    )
    for (count, shape), run in joint.items():
        for name in sides:
            together, alone = times[name, run], [times[name, single[task]] for task in list(TASKS)[:count]]
            sums = [Times(*map(sum, zip(*parts, strict=True))) for parts in zip(*alone, strict=True)]
            ratios = sorted(ours.clock / theirs.clock for ours, theirs in zip(together, sums, strict=True))
            busy = median(ours.processor / theirs.processor for ours, theirs in zip(together, sums, strict=True))
            each, other = (median(one.clock for one in of) / arguments.pictures * 1e3 for of in (together, sums))
            print(
                f"{f'{count} tasks, {shape}':38} {name:9} {each:7.1f} {other:7.1f} {median(ratios):7.3f} {busy:7.3f} "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f}; goal {GOALS[count]:.2f})"
            )
        if len(sides) > 1:
            pairs = list(zip(times["baseline", run], times["here", run], strict=True))
            faster = median(theirs.clock / ours.clock for theirs, ours in pairs)
            less = median(theirs.processor / ours.processor for theirs, ours in pairs)
            print(f"{'':38} baseline over here {'':5} {faster:7.3f} {less:7.3f}")


def run_name(tasks: Sequence[str], shape: str = SHAPES[0]) -> str:
    """The folder of a run."""
    return "-".join([*tasks, *([OTHER] if shape == SHAPES[1] else [])])


def answer(arguments: argparse.Namespace) -> None:
    """Answers questions from the standard input, a line each, until it ends."""
    out = sys.stdout
    # What a training prints is no answer.
    with contextlib.redirect_stdout(sys.stderr):
        answers = Answers(arguments)
        for line in sys.stdin:
            what, *operands = json.loads(line)
            print(json.dumps(getattr(answers, what)(*operands)), file=out, flush=True)


class Answers:
    """One installation's runs, and what they are asked.

    Args:
        arguments: Of this program.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.folder: Path = arguments.answer
        self.data = self.folder.parent / "data"
        self.backbone, self.size, self.count = arguments.backbone, arguments.size, arguments.pictures
        self.predictors: dict[str, Any] = {}
        self._pixels: list[Any] = []

    def about(self) -> str:
        """Which installation it is."""
        import torch

        import mtframe

        return f"{Path(mtframe.__file__).parent}, torch {torch.__version__}, {torch.get_num_threads()} threads"

    def times(self, run: str) -> Times:
        """Of predicting all pictures."""
        predictor, pixels = self._loaded(run), self.pixels
        begun = Times.now()
        if hasattr(predictor, "predict_many"):
            list(predictor.predict_many(pixels))
        else:
            for picture in pixels:
                predictor.predict(picture)
        return Times.now().since(begun)

    def passes(self, count: int, shape: str, flip: bool) -> dict[str, tuple[float, float]]:
        """Calls of the backbone and images in them, for each picture, by use."""
        from mtframe.inference import load_run

        tasks = list(TASKS)[:count]
        run = self._made(run_name(tasks, shape))
        # Tasks on another's images have it from there.
        overrides = [f"tasks.{task}.flip_test={str(flip).lower()}" for task in (tasks[:1] if lends(run) else tasks)]
        predictor: Any = load_run(run, overrides=overrides)
        uses = {
            "predict": lambda: [predictor.predict(picture) for picture in self.pixels],
            "predict_many": lambda: list(predictor.predict_many(self.pixels)),
            "evaluate": lambda: evaluate(run, overrides),
        }
        if not hasattr(predictor, "predict_many"):
            del uses["predict_many"]
        backbone = type(next(part for name, part in predictor.model.named_modules() if name.endswith("backbone")))
        found = {}
        for name, use in uses.items():
            with counted(backbone) as images:
                use()
            found[name] = len(images) / self.count, sum(images) / self.count
        return found

    @property
    def pixels(self) -> list[Any]:
        """The validation pictures, (3, H, W) uint8."""
        if not self._pixels:
            from mtframe.data import read_image

            self._pixels = [read_image(file)[0] for file in sorted((self.data / "val").rglob("*.jpg"))]
        return self._pixels

    def _loaded(self, run: str) -> Any:
        from mtframe.inference import load_run

        if run not in self.predictors:
            self.predictors[run] = load_run(self._made(run))
        return self.predictors[run]

    def _made(self, name: str) -> Path:
        """A run of one step, without what only resuming needs."""
        from mtframe.assembly import assemble
        from mtframe.recipe import assemble_recipe
        from mtframe.training import Trainer

        folder = self.folder / name
        if folder.exists():
            return folder
        first, *others = tasks = [task for task in TASKS if task in name.split("-")]
        shared = [f"size={self.size}", "batch_size=8", "transform=image-crop", "transform.crop=1"]
        lent = [f"tasks.{task}.images={first}" for task in others] if lends(folder) else []
        own = [f"tasks.{task}.{setting}" for task in ([first] if lent else tasks) for setting in shared]
        recipe = assemble_recipe(
            self.backbone,
            [f"{task}={TASKS[task][0]}:{self.data}" for task in tasks],
            [*own, *lent, *(option for task in tasks for option in TASKS[task][1]),
             "backbone.pretrained=false", "train.steps=1", "train.workers=0"],
        )  # fmt: skip
        Trainer(assemble(recipe), folder).fit()
        for file in folder.glob("checkpoints/*/*"):
            if file.parent.name != "best":
                file.unlink()
        return folder


def lends(run: Path) -> bool:
    """Whether all tasks of a run look at the images of its first one."""
    return run.name.endswith(f"-{OTHER}")


def evaluate(run: Path, overrides: Sequence[str]) -> None:
    """`mtframe evaluate`, in this process."""
    from mtframe.cli import main as mtframe

    argv = ["mtframe", "evaluate", str(run), *overrides]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(io.StringIO()):
        try:
            mtframe()
        except SystemExit as stop:
            if stop.code:
                raise


@contextlib.contextmanager
def counted(kind: type) -> Iterator[list[int]]:
    """Notes the number of images of each call of a module of this class, whoever calls it."""
    from torch.nn.modules.module import register_module_forward_hook

    images: list[int] = []

    def note(module: Any, inputs: Any, outputs: Any) -> None:
        if type(module) is kind:
            images.append(len(inputs[0]))

    handle = register_module_forward_hook(note)
    try:
        yield images
    finally:
        handle.remove()


if __name__ == "__main__":
    main()
