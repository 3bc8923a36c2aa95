"""Balancers in a training: their weights are trained, their state is kept, their failures are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.errors import RecipeError, TrainingError
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Interrupted, Trainer
from test_trainer import StopAt, resumed, trace
from toy import toy_recipe


def make(path: Path, balancer: Any, **train: Any) -> Trainer:
    recipe = Recipe.from_plain({**toy_recipe(steps=8, log_every=1, save_every_steps=1, **train), "balancer": balancer})
    assembly = Assembly(recipe)
    return Trainer(assembly, RunFolder(path).create(recipe, assembly.infos))


class Hopeless:
    """Weighs all alike, and never finds what it seeks."""

    def __init__(self) -> None:
        self.failures = 0

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        self.failures += 1
        return torch.ones_like(losses)


@pytest.mark.parametrize(
    "balancer",
    [
        "random", "uncertainty", "imtl-l", {"name": "dwa", "period": 2}, "stch", "famo", "gradnorm", "pcgrad",
        {"name": "gradvac", "beta": 0.3}, "nash-mtl", "graddrop",
    ],
    ids=str,
)  # fmt: skip
def test_a_run_that_was_stopped_goes_on_exactly(tmp_path: Path, balancer: Any) -> None:
    make(tmp_path / "whole", balancer).fit()
    broken = make(tmp_path / "broken", balancer)
    StopAt(broken, 5)
    with pytest.raises(Interrupted):
        broken.fit()
    resumed(tmp_path / "broken").fit()
    assert trace(tmp_path / "broken") == trace(tmp_path / "whole")


def test_weights_that_are_parameters_are_trained_without_weight_decay(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", "uncertainty", lr=0.01, weight_decay=0.5)
    (own,) = trainer.parts.balancer.parameters()
    groups = {id(p): group for group in trainer.optimizer.param_groups for p in group["params"]}
    assert groups[id(own)]["weight_decay"] == 0
    assert groups[id(trainer.model.heads["one"].linear.weight)]["weight_decay"] == 0.5
    trainer.fit()
    # exp(s) goes towards the loss, which is below 1 from the first step.
    assert (own < -0.02).all()


def test_a_step_that_weighs_all_gradients_alike_is_that_of_the_sum(tmp_path: Path) -> None:
    make(tmp_path / "sum", "sum", precision="fp32").fit()
    make(tmp_path / "weighed", Hopeless, precision="fp32", exact_gradients=True).fit()
    for added, weighed in zip(trace(tmp_path / "sum"), trace(tmp_path / "weighed"), strict=True):
        for key, value in added.items():
            assert float(weighed[key]) == pytest.approx(float(value), rel=1e-4), key


def test_what_did_not_converge_is_told_at_the_end(tmp_path: Path) -> None:
    make(tmp_path / "run", Hopeless).fit()
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "Hopeless: its solver did not converge 8 times" in log


@pytest.mark.parametrize("balancer", ["log-sum", "geometric-mean", "famo", "stch"])
def test_a_loss_without_a_logarithm_stops_the_training(
    tmp_path: Path, balancer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path / "run", balancer, clip_grad=None)
    own = trainer.model.losses["two"].forward
    monkeypatch.setattr(
        trainer.model.losses["two"], "forward", lambda *given: {name: loss - 100 for name, loss in own(*given).items()}
    )
    with pytest.raises(TrainingError, match=r"of task (one, )?two \(losses: one .*, two -9.*\) is nan at step 1"):
        trainer.fit()
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_gradients_of_maps_are_for_balancers_that_weigh_gradients(tmp_path: Path) -> None:
    for balancer in ("sum", "graddrop"):
        with pytest.raises(RecipeError, match=f"^train.balance_at: maps is for .* which {balancer} does not"):
            make(tmp_path / balancer, balancer, balance_at="maps")
    make(tmp_path / "mgda", "mgda", balance_at="maps").fit()


def test_exact_gradients_are_for_balancers_that_weigh_gradients(tmp_path: Path) -> None:
    for balancer in ("sum", "famo"):
        # Measuring gradients takes exact ones in any case.
        with pytest.raises(RecipeError, match=f"^train.exact_gradients: true is for .* which {balancer} does not"):
            make(tmp_path / balancer, balancer, exact_gradients=True, gradients_every=2)
    for balancer in ("mgda", "graddrop"):
        make(tmp_path / balancer, balancer, exact_gradients=True)
