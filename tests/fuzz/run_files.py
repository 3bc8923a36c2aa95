"""Readers of what a run holds, and of what mtframe keeps for the user."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
from mutations import JSON, SAFETENSORS, TEXT, TORCH, YAML
from reader import Reader

from command import mtframe
from mtframe import _notes, _trust
from mtframe.assembly import Assembly
from mtframe.errors import MtframeError
from mtframe.inference import load_run
from mtframe.recipe import Recipe, load_recipe
from mtframe.run import RunFolder, write_learned
from mtframe.run._files import digest
from mtframe.run._writer import Writer
from mtframe.synthesis import MARKER, open_root
from mtframe.training import Trainer
from mtframe.training._gradient_log import plot_gradients, read_rows, summary
from mtframe.yaml import dump_yaml
from mtframe_observers.csv_logger import append_row, logged_steps, plot_losses, truncate
from sealed import reseal
from stopped import train_until
from toy import toy_recipe

_KEPT: list[tempfile.TemporaryDirectory[str]] = []
LAST, BEST = "run/checkpoints/last", "run/checkpoints/best"


@cache
def _stopped() -> Path:
    """A run of two tasks, stopped in the 4th of 5 steps, with evaluations, a last checkpoint and one before it."""
    _KEPT.append(tempfile.TemporaryDirectory())
    path = Path(_KEPT[-1].name) / "run"
    plain = toy_recipe(steps=5, save_every_steps=1, evaluate_every=0.4, log_every=2)
    for task in plain["tasks"].values():
        task["dataset"] = {"name": f"{Path(toy_recipe.__code__.co_filename).resolve()}:ToyData", "count": 6}
    train_until(Trainer(Assembly(Recipe.from_plain(plain)), path), 4)
    return path


def write_run(home: Path) -> None:
    shutil.copytree(_stopped(), home / "run")


def write_thresholds(home: Path) -> None:
    """A run with thresholds beside its best weights."""
    write_run(home)
    manifest = home / BEST / "checkpoint.json"
    plain = json.loads(manifest.read_text(encoding="utf-8"))
    plain["files"]["thresholds.json"] = ""
    manifest.write_text(json.dumps(plain), encoding="utf-8")
    kept = {"one": {"chosen": "accuracy", "values": {"accuracy": 0.5, "far=1e-1": 0.75}, "data": "4 pairs"}}
    (home / BEST / "thresholds.json").write_text(json.dumps(kept), encoding="utf-8")
    reseal(home / BEST)


def write_images(home: Path) -> None:
    write_run(home)
    write_learned(home / "run", {"task one (toy)": np.arange(5), "runs/gone": np.zeros(0, np.int64)})


def evaluated(home: Path) -> None:
    load_run(home / "run").evaluate_many()


def resumed(home: Path) -> None:
    """Goes on in a copy."""
    shutil.rmtree(home / "copy", ignore_errors=True)
    shutil.copytree(home / "run", home / "copy")
    Trainer.resume(home / "copy").fit()


def resealed(read: Callable[[Path], object], home: Path) -> None:
    """With digests that fit: of somebody who can write the whole run."""
    reseal(home / LAST)
    reseal(home / BEST)
    for manifest in (home / "run/checkpoints").glob("*/checkpoint.json"):
        plain = json.loads(manifest.read_text(encoding="utf-8"))
        plain["labels"] = digest((home / "run/labels.json").read_bytes())
        manifest.write_text(json.dumps(plain), encoding="utf-8")
    read(home)


def evaluated_and_resumed(home: Path) -> None:
    with suppress(MtframeError):
        evaluated(home)
    resumed(home)


def opened(home: Path) -> None:
    """All that is read before anything is built: what a changed recipe builds may be as large as it says."""
    run = RunFolder.open(home / "run")
    run.infos()
    run.checked_recipe()
    run.take_up()


def commanded(home: Path, *, command: tuple[str, ...]) -> None:
    """The same through the command line, in a copy."""
    shutil.rmtree(home / "copy", ignore_errors=True)
    shutil.copytree(home / "run", home / "copy")
    result = mtframe(*command, home / "copy")
    assert result.code in (0, 1, 2)
    assert "Traceback" not in result.err
    if result.code:
        raise MtframeError(result.err)


def write_recipe(home: Path) -> None:
    (home / "recipe.yaml").write_text(dump_yaml(toy_recipe()), encoding="utf-8")


def recipe(home: Path) -> None:
    load_recipe(home / "recipe.yaml").check()


def logged(home: Path) -> None:
    """What resuming does with `metrics.csv`."""
    file = home / "run/metrics.csv"
    truncate(file, 3)
    logged_steps(file, 1)
    append_row(file, {"step": 4, "one/new": 1.0})
    plot_losses(file, home / "losses.png")


def write_gradients(home: Path) -> None:
    head = "step,stage,task,other,cosine,norm,weight,effective_lr\n"
    rows = "2,all,one,two,0.25,,,\n2,all,one,,,1.5,0.5,0.001\n2,all,two,,,2.5,0.5,0.002\n4,all,one,two,-0.25,,,\n"
    (home / "gradients.csv").write_text(head + rows, encoding="utf-8")


def gradients(home: Path) -> None:
    rows = read_rows(home / "gradients.csv")
    summary([row for row in rows if int(row["step"]) <= 3])
    plot_gradients(rows, home / "gradients.png")


def write_holder(home: Path) -> None:
    writer = Writer(home)
    writer.acquire()
    (home / "held.json").write_bytes((home / ".writer.json").read_bytes())
    writer.release()


def held(home: Path) -> None:
    first = Writer(home)
    first.acquire()
    try:
        shutil.copyfile(home / "held.json", home / ".writer.json")
        with suppress(MtframeError):
            Writer(home).acquire()
    finally:
        first.release()


def write_notes(home: Path) -> None:
    (home / "plugins.json").write_text(json.dumps({_notes._key("head 'x'"): "broken (2026-01-01)"}), encoding="utf-8")


def notes(home: Path) -> None:
    with mock.patch.dict(os.environ, {"MTFRAME_CACHE": str(home)}):
        _notes._read.cache_clear()
        _notes.noted("head 'x'")
        kept = (home / "plugins.json").read_bytes()
        _notes.note("head 'y'", "broken")
        (home / "plugins.json").write_bytes(kept)
    _notes._read.cache_clear()


def write_trusted(home: Path) -> None:
    (home / "trusted.json").write_text(json.dumps(["0" * 64, "1" * 64]), encoding="utf-8")


def trusted(home: Path) -> None:
    with mock.patch.dict(os.environ, {"MTFRAME_STATE": str(home)}):
        _trust.check_trusted([], home)
        _trust.agree([], for_good=True)


def write_marker(home: Path) -> None:
    open_root(home / "data", "faces", [], {"seed": 0})


def marked(home: Path) -> None:
    kept = (home / "data" / MARKER).read_bytes()
    try:
        open_root(home / "data", "faces", [], {"seed": 0})
    finally:
        (home / "data" / MARKER).write_bytes(kept)


READERS = [
    Reader("recipe to train: yaml", write_recipe, "recipe.yaml", YAML, recipe, 2),
    Reader("recipe to train: text", write_recipe, "recipe.yaml", TEXT, recipe, 2),
    Reader("run: recipe.yaml", write_run, "run/recipe.yaml", YAML, opened, 2),
    Reader("run: environment.json", write_run, "run/environment.json", JSON, evaluated, 3),
    Reader("run: labels.json", write_run, "run/labels.json", JSON, evaluated),
    Reader("run: labels.json, resealed", write_run, "run/labels.json", JSON, partial(resealed, evaluated), 3),
    Reader("run: metrics.json", write_run, "run/metrics.json", JSON, evaluated_and_resumed, 6),
    Reader("run: metrics.csv", write_run, "run/metrics.csv", TEXT, logged, 6),
    Reader("run: metrics.csv, resumed", write_run, "run/metrics.csv", TEXT, resumed, 6),
    Reader("run: gradients.csv", write_gradients, "gradients.csv", TEXT, gradients, 4),
    Reader("run: .writer.json", write_holder, "held.json", JSON, held),
    Reader("run: checkpoint.json of last", write_run, f"{LAST}/checkpoint.json", JSON, evaluated_and_resumed, 3),
    Reader("run: checkpoint.json of best", write_run, "run/checkpoints/best/checkpoint.json", JSON, evaluated, 2),
    Reader("run: thresholds.json", write_thresholds, f"{BEST}/thresholds.json", JSON, evaluated, 3),
    Reader("run: thresholds.json, resealed", write_thresholds, f"{BEST}/thresholds.json", JSON,
           partial(resealed, evaluated), 3),
    Reader("run: images.safetensors", write_images, "run/images.safetensors", SAFETENSORS, evaluated, 6),
    Reader("run: weights", write_run, f"{LAST}/weights.safetensors", SAFETENSORS, evaluated_and_resumed, 6),
    Reader("run: weights, resealed", write_run, f"{LAST}/weights.safetensors", SAFETENSORS,
           partial(resealed, resumed), 3),
    Reader("run: training.pt", write_run, f"{LAST}/training.pt", TORCH, resumed, 6),
    Reader("run: training.pt, resealed", write_run, f"{LAST}/training.pt", TORCH, partial(resealed, resumed), 3),
    Reader("command evaluate: environment.json", write_run, "run/environment.json", JSON,
           partial(commanded, command=("evaluate",)), 6),
    Reader("command evaluate: recipe.yaml", write_run, "run/recipe.yaml", TEXT,
           partial(commanded, command=("evaluate",)), 6),
    Reader("command train --resume: checkpoint.json", write_run, f"{LAST}/checkpoint.json", JSON,
           partial(commanded, command=("train", "--resume")), 6),
    Reader("user: plugins.json", write_notes, "plugins.json", JSON, notes),
    Reader("user: trusted.json", write_trusted, "trusted.json", JSON, trusted),
    Reader("user: synthesized.json", write_marker, f"data/{MARKER}", JSON, marked),
]  # fmt: skip
