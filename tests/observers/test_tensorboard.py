"""What TensorBoard reads of a run is what the run wrote down."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from command import mtframe
from mtframe.errors import RecipeError
from mtframe.yaml import dump_yaml
from mtframe_observers.tensorboard_logger import TensorBoard
from toy import toy_recipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of protobuf and of tensorboard itself


def test_losses_and_metrics_are_those_of_the_run(here: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    Path("recipe.yaml").write_text(dump_yaml(toy_recipe(steps=6, log_every=2)), encoding="utf-8")
    result = mtframe("train", "recipe.yaml", "--with", "tensorboard", "--out", "run")
    assert (result.code, result.err) == (0, "")
    found = events.EventAccumulator("run/tensorboard")
    found.Reload()
    with Path("run/metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [(int(row["step"]), float(row["one/cross_entropy"])) for row in csv.DictReader(file)]
    logged = [(event.step, event.value) for event in found.Scalars("loss/one/cross_entropy")]
    assert logged == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in rows]
    accuracy = json.loads(Path("run/metrics.json").read_text(encoding="utf-8"))["evaluations"][-1]["tasks"]["two"][
        "accuracy"
    ]
    assert found.Scalars("two/accuracy")[-1].value == pytest.approx(accuracy)
    assert {"train/lr", "train/epoch", "train/images_per_second"} <= set(found.Tags()["scalars"])


def test_a_step_that_is_made_by_hand_is_not_logged() -> None:
    pytest.importorskip("tensorboard")
    TensorBoard().metrics_logged(step=1, values={"lr": 0.1})


def test_without_tensorboard_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RecipeError, match=r"pip install 'mtframe\[tensorboard\]'"):
        TensorBoard()
    with pytest.raises(RecipeError, match="flush_secs: must be 1 or more, got 0"):
        TensorBoard(flush_secs=0)
