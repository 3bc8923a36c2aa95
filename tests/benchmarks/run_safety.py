"""What becomes of runs that are killed, damaged, or wanted by two: outcomes counted, and what digests cost.

    python tests/benchmarks/run_safety.py [--kills 100] [--pairs 10] [--mutations 200] [--seed 0]
    python tests/benchmarks/run_safety.py --only cost

kills      A small training is killed by SIGKILL, at its n-th write, flush or rename, for n over all of them, and at
           random moments; with `sum` and `upgrad`, one and two tasks, with and without workers. Then it is resumed.
           Right: the weights at the end and the losses of all steps are those of a training that was not killed, bit
           for bit; or, where nothing had been saved, a message that says so.
damage     Each file of a stopped run is deleted, emptied, cut in half, and has a bit flipped at several places. Then it
           is evaluated and resumed. Right: a message, a warning, or what the undamaged run gives.
pairs      Two processes resume one run at once. Right: one goes on exactly, the other is refused.
mutations  Values in `training.pt` are removed, or become another type or shape, with digests that fit. Right: a message
           (or a training, where the value has no such shape to keep); never any other exception.
cost       Milliseconds of saving and loading a checkpoint of ResNet-50, and of that for digests.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from mtframe.assembly import Assembly
from mtframe.errors import MtframeError
from mtframe.inference import load_run
from mtframe.recipe import Recipe
from mtframe.run import RunFolder, read_weights
from mtframe.run._checkpoint import write
from mtframe.run._files import file_digest
from mtframe.training import Trainer
from mtframe_observers import csv_logger
from sealed import reseal
from stopped import train_until
from toy import toy_recipe

# Options of the trainings that are killed.
TRAININGS: dict[str, dict[str, Any]] = {
    "sum, 1 task": {"tasks": ["one"]},
    "sum, 2 tasks, 2 workers": {"tasks": ["one", "two"], "workers": 2},
    "upgrad, 2 tasks": {"tasks": ["one", "two"], "balancer": "upgrad"},
}

Wrong = list[str]


def main() -> None:
    """Prints a table of outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--mutations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("kills", "damage", "pairs", "mutations", "cost"))
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MTFRAME_STATE"] = str(folder / "state")
        parts: dict[str, Callable[[], None]] = {
            "kills": lambda: report("kills", kills(folder, arguments.kills, chance)),
            "damage": lambda: report("damage", damage(folder)),
            "pairs": lambda: report("pairs", pairs(folder, arguments.pairs)),
            "mutations": lambda: report("mutations", mutations(folder, arguments.mutations, chance)),
            "cost": cost,
        }
        for part, run in parts.items():
            if arguments.only in (None, part):
                run()


def report(name: str, outcomes: Iterator[tuple[str, str]]) -> None:
    """Counts outcomes, a line a kind, and names each wrong one."""
    counts: Counter[str] = Counter()
    for outcome, what in outcomes:
        counts[outcome] += 1
        if outcome == "WRONG":
            print(f"{name:10} WRONG: {what}")
    print(f"{name:10} {counts.total()}: {counts['WRONG']} wrong; " + ", ".join(
        f"{count} {outcome}" for outcome, count in counts.most_common() if outcome != "WRONG"), flush=True)  # fmt: skip


def recipe(tasks: list[str], balancer: str = "sum", workers: int = 0, steps: int = 8) -> Recipe:
    """A small training that saves and evaluates often."""
    plain = toy_recipe({task: {} for task in tasks}, steps=steps, workers=workers, save_every_steps=2, log_every=1,
                       evaluate_every=0.6)  # fmt: skip
    return Recipe.from_plain({**plain, "balancer": balancer})


def forked(work: Callable[..., object], *arguments: object, **named: object) -> int:
    """A process of its own that does some work; returns its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        work(*arguments, **named)
        code = 0
    except MtframeError:
        code = 3
    except BaseException:
        code = 4
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Exit code of a forked process; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begin(run: Path, options: dict[str, Any], at: int | None = None, counted: Path | None = None) -> None:
    """Trains anew, and dies at the n-th write."""
    seen = 0

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return calling

    for holder, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (shutil, "rmtree"), (torch, "save"),
                         (Path, "write_bytes"), (Path, "write_text"), (Path, "rename"), (Path, "replace"),
                         (Path, "mkdir")):  # fmt: skip
        setattr(holder, name, watched(getattr(holder, name)))
    # Drawing takes longer than the training, and comes when all is saved.
    csv_logger.plot_losses = lambda *arguments: None
    Trainer(Assembly(recipe(**options)), run).fit()
    if counted is not None:
        os.write(os.open(counted, os.O_CREAT | os.O_WRONLY), str(seen).encode())


def result(run: Path) -> tuple[bytes, list[str]]:
    """What must be equal bit for bit: the last weights, and the losses of every step."""
    rows = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    # Images a second differ.
    speed = rows[0].split(",").index("images_per_second")
    kept = [",".join(cell for place, cell in enumerate(row.split(",")) if place != speed) for row in rows]
    return (run / "checkpoints" / "last" / "weights.safetensors").read_bytes(), kept


def kills(folder: Path, count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Kills trainings, resumes them, and compares."""
    share = -(-count // len(TRAININGS))
    for name, options in TRAININGS.items():
        whole, counted = folder / "whole", folder / "counted"
        begun = time.monotonic()
        assert ended(forked(begin, whole, options, counted=counted)) == 0
        took, writes = time.monotonic() - begun, int(counted.read_text(encoding="utf-8"))
        expected = result(whole)
        for number in range(share):
            run = folder / "run"
            if number % 2:
                child = forked(begin, run, options)
                time.sleep(chance.uniform(0, took))
                os.kill(child, signal.SIGKILL)
                where = "at random"
            else:
                at = 1 + number * writes // share
                child = forked(begin, run, options, at)
                where = f"at write {at} of {writes}"
            if ended(child) == 0:
                yield "ended before the kill", name
            else:
                yield resumed(run, expected), f"{name}, killed {where}"
            shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(whole)
        counted.unlink()


def resumed(run: Path, expected: tuple[bytes, list[str]]) -> str:
    """What resuming a killed run comes to."""
    saved = (run / "recipe.yaml").is_file() and any((run / "checkpoints").glob("[!.]*"))
    code = ended(forked(resume, run))
    if code == 0:
        return "resumed exactly" if result(run) == expected else "WRONG"
    finished = RunFolder(run).recipe_file.is_file() and (run / "metrics.json").is_file() and result(run) == expected
    if code == 3 and finished:
        return "had finished"
    return "nothing saved, said so" if code == 3 and not saved else "WRONG"


def stopped(folder: Path) -> Path:
    """A run that was stopped in the middle."""
    run = folder / "stopped"
    if not run.exists():
        train_until(Trainer(Assembly(recipe(["one", "two"])), run), 5)
    return run


def scores(run: Path) -> Any:
    """What evaluation gives."""
    return {name: dict(found.values) for name, found in load_run(run).evaluate_many().items()}


class Warned(logging.Handler):
    """Whether something was said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = False

    def emit(self, record: logging.LogRecord) -> None:
        """Notes it."""
        self.said = True


def damage(folder: Path) -> Iterator[tuple[str, str]]:
    """Damages each file of a run in several ways."""
    source = stopped(folder)
    whole = folder / "undamaged"
    shutil.copytree(source, whole)
    before = scores(whole)
    Trainer.resume(whole).fit()
    expected = result(whole)
    warned = Warned()
    logging.getLogger("mtframe").addHandler(warned)
    flips = [f"flipped at {place:.0%}" for place in (0, 0.1, 0.35, 0.6, 0.9, 1)]
    files = [file.relative_to(source) for file in sorted(source.rglob("*")) if file.is_file() and file.name != ".lock"]
    for file in files:
        for how in ("deleted", "emptied", "halved", *flips):
            run = folder / "damaged"
            shutil.copytree(source, run)
            harm(run / file, how)
            for use, work, right in (("evaluate", scores, before), ("resume", resume, expected)):
                warned.said = False
                try:
                    found = work(run)
                except MtframeError:
                    yield "a message", ""
                except Exception as error:
                    yield "WRONG", f"{use}, {file} {how}: {type(error).__name__}: {error}"
                else:
                    same = found == right
                    outcome = "as if undamaged" if same else "a warning" if warned.said else "WRONG"
                    yield outcome, f"{use}, {file} {how}: another result, and not a word"
            shutil.rmtree(run)


def resume(run: Path) -> tuple[bytes, list[str]]:
    """Resumes a run to its end."""
    Trainer.resume(run).fit()
    return result(run)


def harm(file: Path, how: str) -> None:
    """Damages a file."""
    data = bytearray(file.read_bytes())
    if how == "deleted":
        file.unlink()
    elif how == "emptied":
        file.write_bytes(b"")
    elif how == "halved":
        file.write_bytes(data[: len(data) // 2])
    elif data:
        place = int(float(how.split()[-1].rstrip("%")) / 100 * (len(data) - 1))
        data[place] ^= 0x10
        file.write_bytes(data)


def pairs(folder: Path, count: int) -> Iterator[tuple[str, str]]:
    """Resumes one run twice at once."""
    source, whole = stopped(folder), folder / "alone"
    shutil.copytree(source, whole)
    expected = resume(whole)
    for number in range(count):
        run = folder / "pair"
        shutil.copytree(source, run)
        children = [forked(resume, run) for _ in range(2)]
        codes = sorted(ended(child) for child in children)
        right = codes == [0, 3] and result(run) == expected
        yield "one went on, one was refused" if right else "WRONG", f"pair {number}: exit codes {codes}"
        shutil.rmtree(run)


def mutations(folder: Path, count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Changes values of a training's state."""
    source = stopped(folder)
    state = torch.load(source / "checkpoints" / "last" / "training.pt", weights_only=True)
    places = list(walk(state))
    for _ in range(count):
        run, changed = folder / "mutated", copy.deepcopy(state)
        shutil.copytree(source, run)
        shutil.rmtree(run / "checkpoints" / "previous", ignore_errors=True)
        place = chance.choice(places)
        how = mutate(changed, place, chance)
        torch.save(changed, run / "checkpoints" / "last" / "training.pt")
        reseal(run / "checkpoints" / "last")
        code = ended(forked(resume, run))
        outcome = {0: "trained", 3: "a message"}.get(code, "WRONG")
        yield outcome, f"{'.'.join(map(str, place))} {how}: exit code {code}"
        shutil.rmtree(run)


def walk(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all values within one."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from walk(inner, (*place, key))


def mutate(state: Any, place: tuple[Any, ...], chance: random.Random) -> str:
    """Changes the value at a place; returns how."""
    holder = state
    for key in place[:-1]:
        holder = holder[key]
    value, key = holder[place[-1]], place[-1]
    ways: dict[str, Callable[[], Any]] = {
        "null": lambda: None,
        "text": lambda: "x",
        "a list": list,
        "huge": lambda: 10**30,
    }
    if isinstance(value, torch.Tensor):
        ways |= {"longer": lambda: torch.zeros(3, *value.shape), "other shape": lambda: torch.zeros(7),
                 "int": lambda: value.to(torch.int8)}  # fmt: skip
    how = chance.choice(["removed", *ways])
    if how == "removed":
        del holder[key]
    else:
        holder[key] = ways[how]()
    return how


def cost() -> None:
    """What digests take when a checkpoint is written and read."""
    import timm

    model = timm.create_model("resnet50")
    weights = model.state_dict()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = {"model": weights, "optimizer": optimizer.state_dict()}
    rows: dict[str, list[float]] = {"save": [], "of that digests": [], "load weights": [], "of that digest": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "last"
        for _ in range(5):
            rows["save"].append(timed(write, folder, weights, state, step=1, labels="", recipe={}))
            one = timed(file_digest, folder / "weights.safetensors")
            rows["of that digests"].append(one + timed(file_digest, folder / "training.pt"))
            rows["load weights"].append(timed(read_weights, folder / "weights.safetensors"))
            rows["of that digest"].append(one)
        size = sum(file.stat().st_size for file in folder.iterdir())
    shown = ", ".join(f"{name} {median(taken):.0f} ms" for name, taken in rows.items())
    print(f"cost       ResNet-50, {size / 2**20:.0f} MiB: {shown}")


def timed(work: Callable[..., object], *arguments: object, **named: object) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    work(*arguments, **named)
    return 1000 * (time.perf_counter() - begun)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
