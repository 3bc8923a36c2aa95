"""A run that is being written belongs to one process."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtframe.assembly import Assembly
from mtframe.errors import RecipeError, TrainingError
from mtframe.files import partial_beside
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from toy import toy_recipe

HOLDS = """
import os, sys, time
from mtframe.run import RunFolder
with RunFolder(sys.argv[1]).writing():
    if sys.argv[2] == "worker" and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("holds", flush=True)
    time.sleep(60)
"""


def holder(run: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, run, *(more or ("alone",))], stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def refused(run: Path) -> str:
    with pytest.raises(RecipeError) as caught, RunFolder(run).writing():
        pass
    return str(caught.value)


def test_a_second_process_is_refused_with_who_holds_the_run(run: Path) -> None:
    process = holder(run)
    try:
        said = refused(run)
        assert f"process {process.pid} of " in said
        assert f"on {platform.node()!r} has been writing there since" in said
        assert f"kill {process.pid}" in said
        with pytest.raises(RecipeError, match=f"process {process.pid} of"):
            Trainer.resume(run).fit()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["alone", "worker"])
def test_a_killed_holder_frees_the_run_at_once_even_if_its_workers_live_on(run: Path, kind: str) -> None:
    process = holder(run, kind)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    with RunFolder(run).writing():
        pass


def test_two_objects_of_one_process_exclude_each_other_and_one_does_not_exclude_itself(run: Path) -> None:
    first = RunFolder(run)
    with first.writing():
        with first.writing():
            pass
        assert refused(run) == f"{run}: this process is writing there already"
    with RunFolder(run).writing():
        pass


def test_a_holder_on_another_machine_is_named_with_its_machine(run: Path) -> None:
    process = holder(run)
    try:
        file = run / ".writer.json"
        file.write_text(
            json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"host": "node\x1b[31m7"}), encoding="utf-8"
        )
        assert rf"on 'node\x1b[31m7': kill {process.pid}" in refused(run)
        file.write_text("torn{", encoding="utf-8")
        assert refused(run).startswith(f"{run}: another process is writing there.")
    finally:
        process.kill()
        process.communicate()


def test_default_names_are_reserved_before_anything_is_built(tmp_path: Path) -> None:
    runs = []
    for expected in ("run", "run-2", "run-3"):
        run = RunFolder.reserve(tmp_path / "run", numbered=True)
        assert run.path.name == expected
        runs.append(run)
    with (
        runs[0].writing(),
        pytest.raises(RecipeError, match="this process is writing there already"),
        RunFolder(runs[0].path).writing(),
    ):
        pass
    # Nothing became of it.
    assert not runs[0].path.exists()
    assert RunFolder.reserve(tmp_path / "run", numbered=True).path.name == "run"


def test_a_folder_whose_first_file_was_cut_off_by_a_kill_is_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    partial_beside(tmp_path / "run" / ".writer.json").touch()
    RunFolder.reserve(tmp_path / "run")
    (tmp_path / "run" / "mine.partial").touch()
    with pytest.raises(RecipeError, match="already exists and is not empty"):
        RunFolder.reserve(tmp_path / "run")


def test_a_named_folder_that_holds_something_is_refused_and_an_empty_one_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with RunFolder.reserve(tmp_path / "empty").writing():
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(RecipeError, match="full already exists and is not empty"):
        RunFolder.reserve(tmp_path / "full")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_says_so(run: Path) -> None:
    run.chmod(0o500)
    try:
        assert "cannot be written (Permission denied)" in refused(run)
    finally:
        run.chmod(0o700)


def test_three_trainings_started_together_with_the_default_name_give_three_runs(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(Recipe.from_plain(toy_recipe(steps=2)).to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "mtframe", "train", "toy.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    started = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    for name in ("toy", "toy-2", "toy-3"):
        assert RunFolder.open(tmp_path / "runs" / name).last().manifest.step == 2


def test_of_two_that_resume_one_goes_on_and_the_other_is_refused_at_once(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mtframe", "train", "--resume", str(run)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    started = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
        for _ in range(2)
    ]
    out = [process.communicate(timeout=240) for process in started]
    codes = sorted(process.returncode for process in started)
    # The second one may come when the first is done.
    assert codes == [0, 2], out
    refused = next(err for process, (_, err) in zip(started, out, strict=True) if process.returncode == 2)
    assert "has been writing there since" in refused or "already trained to its end" in refused
    steps = [line.split(",")[0] for line in (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]]
    assert steps == [str(step) for step in range(1, 13)]


def test_what_another_process_has_trained_since_is_not_trained_over(run: Path) -> None:
    first, second = Trainer.resume(run), Trainer.resume(run)
    first.fit()
    with pytest.raises(RecipeError, match=r"has been trained further since it was loaded\. Load it again"):
        second.fit()


def test_reading_changes_nothing_in_a_run(run: Path) -> None:
    checkpoints = run / "checkpoints"
    # As a kill between two renames leaves it.
    (checkpoints / "best").rename(checkpoints / ".best.old")
    before = {file: file.stat().st_mtime_ns for file in [run, *run.rglob("*")]}
    found = RunFolder.open(run)
    model = Assembly(found.recipe(), found.infos()).model(restoring=True)
    assert found.load_weights(model) == ("best", {})
    assert {file: file.stat().st_mtime_ns for file in [run, *run.rglob("*")]} == before


def test_a_reader_always_sees_a_whole_checkpoint_of_a_training_that_saves(run: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", SAVES, run], stdout=subprocess.PIPE, encoding="utf-8")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "saves\n"
    found = RunFolder.open(run)
    model = Assembly(found.recipe(), found.infos()).model(restoring=True)
    end, reads = time.monotonic() + 3, 0
    try:
        while time.monotonic() < end:
            for name in ("best", "last"):
                found.load_weights(model, name)
                state = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
                values = {float(value) for tensor in state for value in tensor.unique()}
                assert len(values) == 1
                reads += 1
    finally:
        writer.kill()
        writer.communicate()
    assert reads > 20


SAVES = """
import sys
import torch
from mtframe.assembly import Assembly
from mtframe.run import RunFolder
run = RunFolder.open(sys.argv[1])
state = Assembly(run.recipe(), run.infos()).model(restoring=True).state_dict()
with run.writing():
    for step in range(100000):
        filled = {n: torch.full_like(t, step) if t.is_floating_point() else t for n, t in state.items()}
        run.save_checkpoint("best", filled, step)
        run.save_checkpoint("last", filled, step, {})
        if step == 0:
            print("saves", flush=True)
"""


def test_a_reserved_folder_that_cannot_be_written_is_not_left(tmp_path: Path) -> None:
    project, disk = tmp_path / "project", tmp_path / "disk"
    project.mkdir()
    disk.mkdir()
    for name in ("recipe.yaml", "environment.json", "labels.json"):
        (project / name).touch()
    (project / "runs").symlink_to(disk)
    run = RunFolder.reserve(project / "runs" / "deep" / "recipe")
    with pytest.raises(TrainingError, match="is a link out of the run"), run.writing():
        pass
    assert list(disk.iterdir()) == []
