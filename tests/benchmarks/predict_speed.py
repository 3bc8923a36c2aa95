"""Pictures per second of `mtframe predict RUN FOLDER`, the whole command and what is left of it once the run is loaded.

    python tests/benchmarks/predict_speed.py [--rounds 3] [--count 200] [--pictures DIR]
    python tests/benchmarks/predict_speed.py --baseline PYTHON

A run of two tasks, faces of 112 and objects of 320 pixels, predicts 200 pictures: synthetic scenes of 640 x 480, or
those of a folder. It was trained for some steps on synthetic data, after which it finds as many boxes as it may, for
the head to suppress; hardly one is sure enough to be drawn. Each command is a process of its own; it reads, predicts,
draws and writes as a user's does.

inside     The command's time without start-up: from the run's weights being loaded to the end.
processor  Processor time of the whole command, all threads together, in place of the clock's: what to look at where
           other programs run, with `--threads 1`, since threads that wait for each other count too.

`--baseline` is the Python of another installation of mtframe, an older one: it trains a run of its own on the same
data and predicts the same pictures in turn with this one. Goal: 2.5 times as many pictures a second. Rates are
medians over interleaved rounds; the ratio is the median of each round's own, which another program's load disturbs
least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from PIL import Image

from mtframe.folders import images_below
from mtframe.registry import resolve

GOAL = 2.5

# `mtframe ARGUMENTS`, which tells at its end how long ago the run was loaded.
COMMAND = """
import sys, time
from mtframe import inference
from mtframe.cli import main

loaded, load_run = [], inference.load_run

def noted(*arguments, **options):
    predictor = load_run(*arguments, **options)
    loaded.append(time.perf_counter())
    return predictor

inference.load_run = noted
try:
    main()
finally:
    if loaded:
        print(time.perf_counter() - loaded[0], file=sys.stderr)
"""
ABOUT = """
import mtframe, torch
print(f"{mtframe.__path__[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads")
"""


def main() -> None:
    """Prints a line an installation and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=200, help="how many pictures; fewer if DIR has fewer")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="predict these, not synthetic ones")
    parser.add_argument("--steps", type=int, default=20, help="of the run's training")
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--baseline", type=os.path.abspath, metavar="PYTHON", help="of another installation")
    parser.add_argument("--threads", type=int, help="of torch; a core each if not given")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    pythons = {"here": sys.executable} | ({"baseline": arguments.baseline} if arguments.baseline else {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = make_pictures(folder / "pictures", arguments.count, arguments.pictures)
        resolve("dataset", "lfw").component.synthesize(folder / "faces", people=20, images=4, test_people=4, pairs=8)
        resolve("dataset", "coco").component.synthesize(folder / "objects", train=160, val=8, size=320)
        for name, python in pythons.items():
            print(f"{name:9} {called([python, '-c', ABOUT], folder).stdout.strip()}", flush=True)
            train(python, folder, name, arguments)
            boxes = boxes_of(python, folder, name)
            print(f"{'':9} {boxes / count:.1f} boxes a picture", flush=True)
        seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in pythons}
        for _ in range(arguments.rounds):
            for name, python in pythons.items():
                seconds[name].append(predict(python, folder, name))
    print(f"{count} pictures {'of ' + str(arguments.pictures) if arguments.pictures else '(synthetic)'}, "
          f"{arguments.backbone}, {arguments.rounds} rounds")  # fmt: skip
    for position, what in enumerate(("whole command", "inside", "processor")):
        for name, times in seconds.items():
            rates = [count / of[position] for of in times]
            print(f"{what:14} {name:9} {median(rates):7.2f} pictures/s ({min(rates):.2f} to {max(rates):.2f})")
        if "baseline" in seconds:
            pairs = zip(seconds["baseline"], seconds["here"], strict=True)
            ratios = [theirs[position] / ours[position] for theirs, ours in pairs]
            print(f"{what:14} ratio     {median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f}; goal {GOAL})")


def make_pictures(folder: Path, count: int, source: Path | None) -> int:
    """Fills a folder with pictures to predict, and says how many there are."""
    folder.mkdir()
    if source is not None:
        found = [source / file for file in images_below(source).files][:count]
        if not found:
            raise SystemExit(f"--pictures: no image in {source}")
        for number, file in enumerate(found):
            (folder / f"{number:04d}{file.suffix}").symlink_to(file.resolve())
        return len(found)
    scenes = folder.with_name("scenes")
    resolve("dataset", "coco").component.synthesize(scenes, train=count, val=1, size=640, seed=1)
    for file in sorted((scenes / "train2017").iterdir()):
        with Image.open(file) as scene:
            scene.crop((0, 80, 640, 560)).save(folder / file.name, quality=90)
    return count


def train(python: str, folder: Path, name: str, arguments: argparse.Namespace) -> None:
    """A run of one installation, named after it."""
    mtframe(python, folder, [
        "train", "-b", arguments.backbone, "backbone.pretrained=false",
        "-t", "faces=face-recognition:faces", "tasks.faces.size=112", "tasks.faces.batch_size=8",
        "-t", "objects=object-detection:objects", "tasks.objects.size=320", "tasks.objects.batch_size=4",
        f"train.steps={arguments.steps}", "train.workers=0", "train.ema=null", "train.evaluate_every=null",
        "--out", name,
    ])  # fmt: skip


def predict(python: str, folder: Path, name: str) -> tuple[float, float, float]:
    """Seconds of one command: all of them, those after the run was loaded, and those of the processor."""
    out = folder / f"{name}-seen"
    begun, used = time.perf_counter(), processor()
    result = mtframe(python, folder, ["predict", name, "pictures", "--out", out.name])
    whole, busy = time.perf_counter() - begun, processor() - used
    shutil.rmtree(out)
    if not result.stderr:
        raise SystemExit(
            f"{python}: expected `mtframe predict` to call mtframe.inference.load_run, where `inside` begins"
        )
    return whole, float(result.stderr.split()[-1]), busy


def processor() -> float:
    """Seconds of processor time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def boxes_of(python: str, folder: Path, name: str) -> int:
    """How many boxes the run finds on all pictures; it warms the file cache as well."""
    result = mtframe(python, folder, ["predict", name, "pictures", "--json", "-t", "objects", "--out", "described"])
    shutil.rmtree(folder / "described")
    return sum(len(picture["tasks"]["objects"]) for picture in json.loads(result.stdout))


def mtframe(python: str, folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """One command of an installation."""
    return called([python, "-c", COMMAND, *arguments], folder)


def called(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A process in a folder; ends the program with what it said if it fails."""
    # With PYTHONPATH both sides could import one mtframe, and so they could from the current folder.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    if result.returncode:
        raise SystemExit(f"{command[0]} failed:\n{result.stderr}")
    return result


if __name__ == "__main__":
    main()
