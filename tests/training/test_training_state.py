"""What a run goes on from, and what it refuses to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mtframe.assembly import Assembly
from mtframe.errors import CheckpointError, RecipeError
from mtframe.recipe import Recipe
from mtframe.training import Trainer
from mtframe.training._best import Bests
from mtframe.training._state import FORMAT, Evaluated, TrainingState
from sealed import reseal
from toy import toy_recipe

CPU = torch.device("cpu")

EVALUATED: Evaluated = {"step": 5, "gain": 0.0, "epochs": {"a": 1.5}, "tasks": {"a": {"top1": 0.5}}}


def saved_of(state: TrainingState) -> dict[str, Any]:
    return {**state.state_dict(), "model": {}, "optimizer": {}, "balancer": {}}


def state_of(**change: Any) -> TrainingState:
    state = TrainingState(step=7, teacher="abc", best=Bests({"a": 0.5}, {"a": 0.6}, {"best": 3, "best_a": 5}))
    state.history.append(EVALUATED)
    state.meter.add({"a": {"loss": torch.tensor(2.0)}})
    for name, value in change.items():
        setattr(state, name, value)
    return state


def test_it_survives_a_file_of_nothing_but_plain_values(tmp_path: Path) -> None:
    state = state_of()
    torch.save(saved_of(state), tmp_path / "state.pt")
    again = TrainingState(teacher="abc")
    saved = again.check(torch.load(tmp_path / "state.pt", weights_only=True), tmp_path, steps=10)
    again.load_state_dict(saved, CPU)
    assert (again.step, again.history, again.best, again.stopped) == (7, state.history, state.best, None)
    assert again.meter.take() == {"a/loss": 2.0}


@pytest.mark.parametrize(
    ("change", "steps", "error", "said"),
    [
        (
            {"step": 10, "history": [EVALUATED | {"step": 10}]},
            10,
            RecipeError,
            r"run: already trained to its end, step 10 of 10",
        ),
        (
            {"stopped": "enough", "history": [EVALUATED | {"step": 7}]},
            10,
            RecipeError,
            r"run: was ended at step 7 of 10: enough",
        ),
        ({"teacher": "xyz"}, 10, CheckpointError, r"run: the weights that train\.start names are not those"),
    ],
)
def test_what_a_run_does_not_go_on_from(change: dict[str, Any], steps: int, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        TrainingState(teacher="abc").check(saved_of(state_of(**change)), Path("run"), steps)


def test_without_distillation_no_teacher_is_asked_for() -> None:
    TrainingState().check(saved_of(state_of()), Path("run"), 10)


@pytest.mark.parametrize("format", [None, 1, FORMAT + 1])
def test_a_checkpoint_of_another_format_is_refused_with_what_can_be_done(tmp_path: Path, format: int | None) -> None:
    run = tmp_path / "run"
    Trainer(Assembly(Recipe.from_plain(toy_recipe(steps=2))), run).fit()
    file = run / "checkpoints" / "last" / "training.pt"
    saved = torch.load(file, weights_only=True)
    del saved["format"]
    # As before there was a number: other keys, too.
    torch.save({"step": 1, "model": {}} if format is None else saved | {"format": format}, file)
    reseal(file.parent)
    said = rf"its checkpoint is of format {format or 1}, .* reads format {FORMAT}.* mtframe train .*recipe\.yaml --from"
    with pytest.raises(CheckpointError, match=said):
        Trainer.resume(run)
