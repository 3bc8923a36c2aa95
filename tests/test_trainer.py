from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtframe.assembly import Assembly
from mtframe.errors import CheckpointError, RecipeError, TrainingError
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Interrupted, Trainer
from sealed import reseal
from toy import ToyBackbone, ToyLoss, toy_recipe

HERE = Path(__file__).resolve()


def make(path: Path, plain: dict[str, Any] | None = None, **train: Any) -> Trainer:
    recipe = Recipe.from_plain(plain or toy_recipe(**train))
    assembly = Assembly(recipe)
    return Trainer(assembly, RunFolder(path).create(recipe, assembly.infos))


def resumed(path: Path) -> Trainer:
    run = RunFolder.open(path)
    return Trainer(Assembly(run.recipe(), run.infos()), run, resume=True)


def trace(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]


class StopAt:
    """Presses Ctrl-C after a step."""

    def __init__(self, trainer: Trainer, step: int) -> None:
        train_step = trainer.train_step

        def stopping(group: Any) -> None:
            train_step(group)
            if trainer.step == step:
                os.kill(os.getpid(), signal.SIGINT)

        trainer.train_step = stopping  # type: ignore[method-assign]


def test_training_learns_and_leaves_a_complete_run(tmp_path: Path) -> None:
    results = make(tmp_path / "run", steps=80, lr=0.01, ema=None).fit()
    assert results["one"].score >= 0.9
    assert results["two"].score >= 0.9
    run = tmp_path / "run"
    expected = {"recipe.yaml", "environment.json", "labels.json", "metrics.csv", "metrics.json", "log.txt"}
    assert expected <= {file.name for file in run.iterdir()}
    assert {"last", "previous", "best", "best_one", "best_two"} == {
        file.name for file in (run / "checkpoints").iterdir()
    }
    assert (run / "plots" / "losses.png").stat().st_size > 1000
    rows = trace(run)
    assert [int(row["step"]) for row in rows] == list(range(1, 81))
    assert float(rows[-1]["one/cross_entropy"]) < float(rows[0]["one/cross_entropy"])
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert {"mtframe", "torch", "timm"} <= set(environment["distributions"])
    assert "each seen 16.0 times" in (run / "log.txt").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make(tmp_path / name, seed=seed).fit()
    assert trace(tmp_path / "a") == trace(tmp_path / "b")
    assert trace(tmp_path / "a") != trace(tmp_path / "c")


def test_ctrl_c_saves_says_how_to_go_on_and_resuming_gives_the_same_losses(tmp_path: Path) -> None:
    make(tmp_path / "whole", accumulate=2, ema=0.9).fit()
    stopped = make(tmp_path / "stopped", accumulate=2, ema=0.9)
    StopAt(stopped, 5)
    message = rf"stopped at step 5 of 12.*mtframe train --resume {tmp_path / 'stopped'}"
    with pytest.raises(Interrupted, match=message) as caught:
        stopped.fit()
    assert caught.value.exit_code == 130
    resumed(tmp_path / "stopped").fit()
    assert trace(tmp_path / "stopped") == trace(tmp_path / "whole")
    whole, again = (
        json.loads((tmp_path / n / "metrics.json").read_text(encoding="utf-8")) for n in ("whole", "stopped")
    )
    assert whole == again
    weights = [torch.load(tmp_path / n / "checkpoints/last/training.pt") for n in ("whole", "stopped")]
    assert all(torch.equal(weights[0]["model"][key], weights[1]["model"][key]) for key in weights[0]["model"])


def test_a_meter_in_the_middle_of_its_interval_is_resumed(tmp_path: Path) -> None:
    make(tmp_path / "whole", log_every=4).fit()
    stopped = make(tmp_path / "stopped", log_every=4)
    StopAt(stopped, 6)
    with pytest.raises(Interrupted):
        stopped.fit()
    resumed(tmp_path / "stopped").fit()
    assert trace(tmp_path / "stopped") == trace(tmp_path / "whole")


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_trainer import make, resumed
path = Path(sys.argv[1])
(resumed(path) if (path / "recipe.yaml").exists() else
 make(path, steps=60, workers=2, save_every_steps=7, ema=0.9)).fit()
"""


def test_a_run_killed_with_sigkill_and_resumed_gives_the_same_loss_trace_with_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT.format(here=str(HERE.parent))]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    killed = tmp_path / "killed"
    with subprocess.Popen([*command, str(killed)]) as process:
        metrics = killed / "metrics.csv"
        while not (metrics.exists() and metrics.read_text(encoding="utf-8").count("\n") > 12):
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(trace(killed)) < 60
    subprocess.run([*command, str(killed)], check=True)
    assert trace(killed) == trace(tmp_path / "whole")


@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGTERM, signal.SIGTERM)])
def test_a_signal_to_the_whole_group_saves_and_ends(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """As Ctrl-C in a terminal does, and `timeout` and job schedulers, some of them twice."""
    command = [sys.executable, "-c", SCRIPT.format(here=str(HERE.parent)).replace("steps=60", "steps=100000")]
    run = tmp_path / "run"
    with subprocess.Popen(
        [*command, str(run)], start_new_session=True, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        while not (run / "metrics.csv").exists():
            assert process.poll() is None, "ended before it could be stopped"
            time.sleep(0.005)
        for number in numbers:
            os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=100)
    assert "Interrupted: stopped at step" in stderr
    assert "DataLoader worker" not in stderr
    assert RunFolder.open(run).last().manifest.step == len(trace(run))


def test_accumulating_two_batches_is_one_step_of_twice_the_batch(tmp_path: Path) -> None:
    def gradient(batch_size: int, accumulate: int) -> torch.Tensor:
        plain = toy_recipe({"one": {"batch_size": batch_size, "transform": f"{HERE.parent}/toy.py:ToyTransform"}})
        plain["backbone"] = f"{HERE}:NormFree"
        plain["train"] |= {"accumulate": accumulate, "steps": 1, "clip_grad": None}
        trainer = make(tmp_path / f"{batch_size}-{accumulate}", plain)
        kept: list[torch.Tensor] = []
        trainer.optimizer.step = lambda: kept.append(trainer.model.sharing.backbone.body.weight.grad.clone())
        # The same four images without noise, in one batch or in two.
        source = trainer.batches.sources["one"]
        source.transform.train = False
        source._order = (0, torch.arange(20).numpy())
        group = [trainer.batches[number] for number in range(accumulate)]
        trainer.train_step(group)
        return kept[0]

    torch.testing.assert_close(gradient(4, 1), gradient(2, 2))


class NormFree(torch.nn.Module):
    """No BatchNorm, so that gradients of parts add up."""

    mean, std, stages = (0.5,) * 3, (0.25,) * 3, (("body",),)

    def __init__(self) -> None:
        super().__init__()
        from mtframe.kinds import FeatureSpec

        self.body = torch.nn.Conv2d(3, 4, 3, 4, 1)
        self.features = (FeatureSpec("body", 4, 4),)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.body(images)]


def test_a_loss_that_is_not_finite_stops_with_task_step_and_checkpoint_named(tmp_path: Path) -> None:
    exploding = {"name": f"{HERE.parent}/toy.py:ToyLoss", "explode_after": 0.5}
    plain = toy_recipe({"calm": {}, "wild": {"loss": exploding}})
    trainer = make(tmp_path / "run", plain)
    before = r"task wild: loss 'cross_entropy' is nan at step 7\. The last checkpoint is .*checkpoints/last"
    with pytest.raises(TrainingError, match=before):
        trainer.fit()
    weights = trainer.model.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())
    assert ToyLoss.target == "label"


def test_too_many_unreadable_images_stop_training_and_are_named(tmp_path: Path) -> None:
    plain = toy_recipe({"one": {"dataset": {"name": f"{HERE.parent}/toy.py:ToyData", "bad": 3}}}, max_unreadable=0)
    with pytest.raises(TrainingError, match=r"1 images cannot be read.*max_unreadable=0:\n  toy/3\.jpg"):
        make(tmp_path / "run", plain).fit()
    plain["train"]["max_unreadable"] = 1
    make(tmp_path / "tolerant", plain).fit()
    assert "skipped an unreadable image: toy/3.jpg" in (tmp_path / "tolerant" / "log.txt").read_text(encoding="utf-8")


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path / "run", save_every_steps=4)
    real, calls = torch.save, []

    def full(state: Any, path: Any) -> None:
        calls.append(state["step"])
        if state["step"] == 8:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"could not be written.*No space left.*before it is kept.*--resume"):
        trainer.fit()
    monkeypatch.undo()
    assert calls == [0, 4, 8]
    assert resumed(tmp_path / "run").step == 4
    assert sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir()) == ["last", "previous"]


def test_a_checkpoint_of_another_architecture_is_named_with_the_first_differences(tmp_path: Path) -> None:
    make(tmp_path / "run").fit()
    run = RunFolder.open(tmp_path / "run")
    plain = toy_recipe()
    plain["backbone"] = {"name": plain["backbone"], "width": 16}
    other = Assembly(Recipe.from_plain(plain)).model()
    with pytest.raises(CheckpointError, match=r"(?s)another architecture:.*stem\.0\.weight: the model has \(16, 3"):
        run.load_weights(other)
    with pytest.raises(CheckpointError, match=r"no such checkpoint; there are best, best_one, best_two, last"):
        run.load_weights(other, "best_three")


def test_a_checkpoint_that_was_saved_damaged_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    make(tmp_path / "run").fit()
    run = RunFolder.open(tmp_path / "run")
    (run.checkpoints / "best" / "weights.safetensors").write_bytes(b"not safetensors")
    reseal(run.checkpoints / "best")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        run.load_weights(Assembly(run.recipe(), run.infos()).model())
    for name in ("last", "previous"):
        (run.checkpoints / name / "training.pt").write_bytes(b"\x80\x04cos\nsystem\n")
        reseal(run.checkpoints / name)
    with pytest.raises(CheckpointError, match=r"training\.pt: cannot be read"):
        resumed(run.path)


@pytest.mark.parametrize("at", ["the end", "the middle"])
def test_an_evaluation_that_failed_is_made_up_for_on_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    options = {"evaluate_every": None if at == "the end" else 1.0, "steps": 12}
    make(tmp_path / "whole", **options).fit()
    trainer = make(tmp_path / "run", **options)
    save = RunFolder.save_checkpoint

    def full(run: RunFolder, name: str, *rest: Any, **more: Any) -> Path:
        if name == "best":
            raise TrainingError("No space left on device")
        return save(run, name, *rest, **more)

    monkeypatch.setattr(RunFolder, "save_checkpoint", full)
    with pytest.raises(TrainingError, match="No space left"):
        trainer.fit()
    monkeypatch.undo()
    assert resumed(tmp_path / "run").fit()["one"].score >= 0
    assert trace(tmp_path / "run") == trace(tmp_path / "whole")
    whole, again = (json.loads((tmp_path / n / "metrics.json").read_text(encoding="utf-8")) for n in ("whole", "run"))
    assert whole == again
    assert (tmp_path / "run" / "checkpoints" / "best").is_dir()


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_a_schedule_of_milestones_takes_both_whatever_the_warm_up(tmp_path: Path, warmup: float) -> None:
    make(tmp_path / "run", steps=40, warmup=warmup, lr=0.1, lr_schedule="multistep", min_lr=0.0).fit()
    assert float(trace(tmp_path / "run")[-1]["lr"]) == pytest.approx(0.001)


def test_runs_are_not_overwritten_and_finished_ones_not_resumed(tmp_path: Path) -> None:
    make(tmp_path / "run").fit()
    with pytest.raises(RecipeError, match=r"already exists and is not empty.*--resume"):
        make(tmp_path / "run")
    with pytest.raises(RecipeError, match="already trained to its end, step 12 of 12"):
        resumed(tmp_path / "run")
    with pytest.raises(RecipeError, match="no such folder"):
        RunFolder.open(tmp_path / "nowhere")


def test_the_average_of_weights_is_what_is_saved_for_use(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", ema=0.99)
    trainer.fit()
    kept = Assembly(trainer.recipe, trainer.assembly.infos).model()
    trainer.run.load_weights(kept, "last")
    assert trainer.parts.average is not None
    average, now = trainer.parts.average.module.state_dict(), trainer.model.state_dict()
    assert all(torch.equal(value, average[key]) for key, value in kept.state_dict().items())
    assert any(not torch.equal(value, now[key]) for key, value in average.items())


@pytest.mark.parametrize("schedule", ["cosine", "poly", "tanh", "step", "multistep", "constant"])
def test_the_learning_rate_warms_up_and_follows_the_schedule(tmp_path: Path, schedule: str) -> None:
    make(tmp_path / "run", steps=20, warmup=0.25, lr=0.1, lr_schedule=schedule, min_lr=0.001).fit()
    rates = [float(row["lr"]) for row in trace(tmp_path / "run")]
    assert rates[0] < rates[1] < rates[4] <= rates[5] == pytest.approx(0.1, rel=1e-4)
    assert (rates[-1] < 0.1) == (schedule != "constant")


@pytest.mark.parametrize(("key", "value", "said"), [
    ("optimizer", "adamwww", "has no 'adamwww'; did you mean 'adamw'"),
    ("lr_schedule", "cosin", "has no 'cosin'; did you mean 'cosine'.*; it has cosine, constant, multistep"),
    ("device", "cuda:99", "'cuda:99' cannot be used here"),
])  # fmt: skip
def test_names_that_timm_or_torch_do_not_know_are_named(tmp_path: Path, key: str, value: str, said: str) -> None:
    with pytest.raises(RecipeError, match=rf"train\.{key}: .*{said}"):
        make(tmp_path / "run", **{key: value})


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_too_little_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def one_pass(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("mtframe.training._step.one_pass", one_pass)
    said = r"out of memory on cpu at step 1\. Lower a task's batch_size or size \(one: 4 of 32 pixels, two: 4 of 32"
    with pytest.raises(TrainingError, match=said):
        make(tmp_path / "run").fit()


def test_another_error_of_torch_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_pass(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("mtframe.training._step.one_pass", one_pass)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        make(tmp_path / "run").fit()


class Odd(ToyBackbone):
    """One weight under two names, and one of five dimensions."""

    stages = (("stem",), ("body", "again", "volume"))

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.ParameterList([self.stem[0].weight])
        self.volume = nn.Conv3d(1, 1, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        stem, body = super().forward(images)
        return [stem, self.volume(body[:, None])[:, 0]]


def test_models_with_tied_and_five_dimensional_weights_train_and_are_loaded_again(tmp_path: Path) -> None:
    plain = toy_recipe(steps=1, channels_last=True)
    plain["backbone"] = f"{HERE}:Odd"
    trainer = make(tmp_path / "run", plain)
    trainer.fit()
    assert trainer.model.sharing.backbone.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    loaded = Assembly(trainer.recipe, trainer.run.infos()).model(restoring=True)
    trainer.run.load_weights(loaded, "last")
    for name, tensor in trainer.parts.evaluated_model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor)
