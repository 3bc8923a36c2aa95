"""Damage to a run is noticed: a message, or the result that it would have had."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtframe.errors import CheckpointError, MtframeError, RecipeError
from mtframe.inference import load_run
from mtframe.run import RunFolder, read_weights
from mtframe.run._checkpoint import Checkpoint
from mtframe.training import Trainer
from sealed import reseal


def flip(file: Path, at: float = 0.6) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x20
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "flipped early": lambda file: flip(file, 0.1),
    "truncated": truncate,
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": Path.unlink,
}


def scores(run: Path) -> dict[str, dict[str, float]]:
    return {name: dict(result.values) for name, result in load_run(run).evaluate_many().items()}


def trace(run: Path) -> list[str]:
    return [",".join(line.split(",")[:3]) for line in (run / "metrics.csv").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def whole(stopped_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bytes]:
    """What an undamaged run gives: scores, and the weights at its end."""
    run = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(stopped_run, run)
    before = scores(run)
    Trainer.resume(run).fit()
    return before, (run / "checkpoints" / "last" / "weights.safetensors").read_bytes()


FILES = [
    "recipe.yaml", "labels.json", "environment.json", "metrics.json", "metrics.csv", "log.txt", "components/toy.py",
    *(f"checkpoints/{name}/{file}" for name in ("last", "previous", "best", "best_one")
      for file in ("checkpoint.json", "weights.safetensors", "training.pt")
      if file != "training.pt" or not name.startswith("best")),
]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_gives_a_message_or_the_right_result(
    run: Path, file: str, damage: str, whole: tuple[Any, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGE[damage](run / file)
    caplog.set_level(logging.WARNING)
    with contextlib.suppress(MtframeError):
        assert scores(run) == whole[0] or caplog.records
    caplog.clear()
    with contextlib.suppress(MtframeError):
        Trainer.resume(run).fit()
        assert (run / "checkpoints" / "last" / "weights.safetensors").read_bytes() == whole[1]
        if file.startswith(("checkpoints/last/", "checkpoints/best")):
            assert caplog.records, "it went on without a word"


def test_a_flipped_byte_of_weights_is_named_with_what_else_there_is(run: Path) -> None:
    flip(run / "checkpoints" / "best" / "weights.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_run(run)
    said = str(caught.value)
    assert said.startswith(f"{run}/checkpoints/best/weights.safetensors: not the file that was saved: its SHA-256 is ")
    assert said.endswith("Other checkpoints of this run: best_one, best_two, last, previous")


def test_weights_of_another_checkpoint_beside_this_state_are_noticed(run: Path) -> None:
    last, best = run / "checkpoints" / "last", run / "checkpoints" / "previous"
    shutil.copyfile(best / "weights.safetensors", last / "weights.safetensors")
    if (last / "weights.safetensors").read_bytes() != (best / "weights.safetensors").read_bytes():
        pytest.fail("copied")
    shutil.copyfile(run / "checkpoints" / "previous" / "training.pt", last / "training.pt")
    assert RunFolder.open(run).last().folder.name == "previous"


def test_a_class_that_was_renamed_is_noticed(run: Path) -> None:
    file = run / "labels.json"
    file.write_text(file.read_text(encoding="utf-8").replace("dark", "dusk"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"labels\.json: not what the run was trained with"):
        load_run(run)
    with pytest.raises(CheckpointError, match=r"labels\.json: not what the run was trained with"):
        Trainer.resume(run)


def test_a_recipe_that_was_edited_is_named_in_evaluation_and_refused_in_training(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = run / "recipe.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("lr: 0.001", "lr: 0.002"), encoding="utf-8")
    load_run(run)
    assert caplog.messages == [f"{file} is not what was trained: train.lr 0.002 (was 0.001)"]
    with pytest.raises(RecipeError, match=r"would be another experiment with train\.lr 0\.002 \(was 0\.001\)"):
        Trainer.resume(run)


def test_nan_is_refused_although_it_was_saved_so(run: Path) -> None:
    folder = run / "checkpoints" / "best"
    weights = load_file(folder / "weights.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point() and tensor.numel() > 3)
    weights[name].flatten()[1] = torch.nan
    save_file(weights, folder / "weights.safetensors")
    reseal(folder)
    with pytest.raises(CheckpointError, match=rf"1 of \d+ values of {name} are NaN"):
        load_run(run)
    with pytest.raises(CheckpointError, match="are NaN"):
        read_weights(folder / "weights.safetensors")


def test_a_broken_last_goes_on_from_the_one_before_and_says_so(
    run: Path, caplog: pytest.LogCaptureFixture, whole: tuple[Any, bytes]
) -> None:
    checkpoints = run / "checkpoints"
    before = Checkpoint.open(checkpoints / "previous")
    truncate(checkpoints / "last" / "training.pt")
    trainer = Trainer.resume(run)
    assert trainer.step == before.manifest.step
    assert caplog.text.count(f"Going on from step {trainer.step}, of the checkpoint before") == 1
    trainer._save()
    # What is broken does not take the place of what is whole.
    assert Checkpoint.open(checkpoints / "previous").manifest.files == before.manifest.files
    trainer.fit()
    assert (checkpoints / "last" / "weights.safetensors").read_bytes() == whole[1]


def test_with_no_whole_checkpoint_left_every_one_is_named(run: Path) -> None:
    for name in ("last", "previous"):
        flip(run / "checkpoints" / name / "training.pt")
    with pytest.raises(
        CheckpointError, match=r"(?s)last/training\.pt: not the.*previous/training\.pt: not the.*--from"
    ):
        Trainer.resume(run)


def test_a_missing_state_is_called_missing(run: Path) -> None:
    for name in ("last", "previous"):
        (run / "checkpoints" / name / "training.pt").unlink()
    with pytest.raises(CheckpointError, match=r"last/training\.pt: missing"):
        Trainer.resume(run)


def test_a_kill_between_the_renames_of_a_save_goes_on_from_the_one_before(run: Path, whole: tuple[Any, bytes]) -> None:
    shutil.rmtree(run / "checkpoints" / "previous")
    (run / "checkpoints" / "last").rename(run / "checkpoints" / "previous")
    Trainer.resume(run).fit()
    assert (run / "checkpoints" / "last" / "weights.safetensors").read_bytes() == whole[1]


def test_a_broken_best_is_told_and_replaced(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(run / "checkpoints" / "best" / "weights.safetensors")
    trainer = Trainer.resume(run)
    assert list(trainer.forgotten) == ["best"]
    trainer.fit()
    assert "best is forgotten, and the next evaluation takes its place:" in caplog.text
    assert Checkpoint.open(run / "checkpoints" / "best").manifest.step == 12
    load_run(run)


def test_a_best_of_another_step_is_told(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "best")
    shutil.copytree(run / "checkpoints" / "last", run / "checkpoints" / "best")
    assert "best: of step 8, and the one that was saved there of step 6" in Trainer.resume(run).forgotten["best"]


def mutate(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the state in `last` and leaves nothing else to go on from."""
    shutil.rmtree(run / "checkpoints" / "previous")
    folder = run / "checkpoints" / "last"
    state = torch.load(folder / "training.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "training.pt")
    reseal(folder)


def bend(state: dict[str, Any]) -> None:
    moments = state["optimizer"]["state"][0]
    moments["exp_avg"] = torch.zeros(2, *moments["exp_avg"].shape[1:])


KEYS = ["step", "history", "best", "meter", "stopped", "teacher", "images", "model", "optimizer", "balancer"]
STATES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    **{f"without {key}": (lambda state, key=key: state.pop(key), f"{key}: required") for key in KEYS},
    "more": (lambda state: state.update(evil=1), "evil: unknown"),
    "another step": (lambda state: state.update(step=7, history=[]), r"of step 7, and its checkpoint of step \d"),
    "text for a step": (lambda state: state.update(step="8"), "step: expected a valid integer, got '8'"),
    "negative": (lambda state: state.update(step=-1), "step: "),
    "evaluated later": (lambda state: state["history"][-1].update(step=99), r"evaluated after step \d+"),
    "a moment of another shape": (bend, r"exp_avg of parameter 0 is float32 \(2,\), and float32 \(8,\) in this"),
    "no groups": (lambda state: state["optimizer"].pop("param_groups"), "not one of this recipe's optimiser"),
    "fewer groups": (lambda state: state["optimizer"]["param_groups"].pop(), "not one of this recipe's optimiser"),
    "strange groups": (
        lambda state: state["optimizer"]["param_groups"][0].update(params=[99]), "groups of parameters are not those",
    ),
    "a strange parameter": (
        lambda state: state["optimizer"]["state"].update({99: {}}), "has an unknown parameter 99",
    ),
    "other weights": (lambda state: state["model"].popitem(), "not in the checkpoint"),
    "numbers for weights": (
        lambda state: state["model"].update(dict.fromkeys(state["model"], 1.0)), "model.*an instance of Tensor",
    ),
    "sums of nothing": (lambda state: state["meter"].update(counts=None), r"meter\.counts: expected a mapping"),
    "a list of bests": (lambda state: state.update(best=[]), "best: expected a mapping"),
    "another option": (
        lambda state: state["optimizer"]["param_groups"][0].update(weight_decay=0.9), "weight_decay is 0.9, and ",
    ),
    "a switch": (lambda state: state["optimizer"]["param_groups"][0].update(amsgrad=True), "amsgrad is True, and Fals"),
    "a moment of NaN": (
        lambda state: state["optimizer"]["state"][0]["exp_avg"].fill_(torch.nan), "exp_avg of parameter 0 is not",
    ),
    "steps of the optimiser": (
        lambda state: state["optimizer"]["state"][0]["step"].fill_(1e30), r"step of parameter 0 is 1e\+30, of \d",
    ),
    "NaN": (lambda state: next(iter(state["model"].values())).fill_(torch.nan), r"\d+ of \d+ values of .* NaN"),
    "colours as numbers": (
        lambda state: state["model"].update(_extra_state=state["model"]["_extra_state"].double()), "_extra_state: the",
    ),
    "colours that are none": (lambda state: state["model"]["_extra_state"].fill_(255), "expected RGB or BGR"),
    "a best of the future": (lambda state: state["best"]["steps"].update(best=10**6), "evaluated after step"),
    "a best elsewhere": (lambda state: state["best"]["steps"].update({"../../evil": 2}), "it knows of '../../evil'"),
    "out of order": (lambda state: state["history"].insert(0, {**state["history"][-1], "step": 7}), "evaluated after"),
    "images": (lambda state: state["images"]["one"].update(count=21), "one had 21, has 20"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_state_is_checked_like_weights(run: Path, name: str) -> None:
    change, said = STATES[name]
    mutate(run, change)
    with pytest.raises(MtframeError, match=said):
        Trainer.resume(run)


def test_a_step_beyond_the_end_is_refused(run: Path) -> None:
    file = run / "checkpoints" / "last" / "checkpoint.json"
    mutate(run, lambda state: state.update(step=20))
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "step": 20}), encoding="utf-8")
    with pytest.raises(RecipeError, match="at step 20, beyond the 12 that its recipe asks for"):
        Trainer.resume(run)


def test_a_byte_that_is_no_text_does_not_silence_the_logger(run: Path, whole: tuple[Any, bytes]) -> None:
    file = run / "metrics.csv"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], lines[3].replace(b"0", b"\xff", 1), *lines[4:]]))
    Trainer.resume(run).fit()
    steps = [line.split(",")[0] for line in file.read_text(encoding="utf-8").splitlines()]
    assert steps[:3] == ["step", "1", "2"]
    assert steps[-3:] == ["10", "11", "12"]


def test_environment_that_is_damaged_is_told_and_no_obstacle(
    run: Path, whole: tuple[Any, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    for text in (
        "",
        "[]",
        '{"format": 3, "components": {"backbone": 3}}',
        '{"format": 3, "components": {"hooks.0": {}}}',
    ):
        (run / "environment.json").write_text(text, encoding="utf-8")
        caplog.clear()
        assert scores(run) == whole[0]
        assert "environment.json: damaged" in caplog.text
