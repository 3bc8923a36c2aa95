"""Inter-task affinity: by hand in float64, and what the command finds where the answer is known."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from constructed import constructed
from torch import Tensor, nn

from command import mtframe
from mtframe.affinity import lookahead
from mtframe.data import Batch
from mtframe.gradients import GradientEngine
from mtframe.yaml import dump_yaml
from test_gradients import Staged, Step
from toy import toy_recipe

NORMS: dict[str, Any] = {"group": lambda width: nn.GroupNorm(2, width), "batch": nn.BatchNorm2d}


def batches(step: Step) -> dict[str, Batch]:
    viewers = {task: [task, *(o for o, lender in step.lenders.items() if lender == task)] for task in step.images}
    return {
        task: Batch(images, {viewer: step.targets[viewer] for viewer in viewers[task]})
        for task, images in step.images.items()
    }


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lenders", [{}, {"attributes": "faces"}])
def test_affinity_is_one_less_the_loss_after_a_lookahead_over_the_loss_before(
    norm: str, lenders: dict[str, str]
) -> None:
    step = Step(Staged(NORMS[norm]), lenders=lenders)
    step.model.sharing.backbone.body.append(nn.Dropout(0.3))
    before = deepcopy(step.model.state_dict())
    found, gradients = lookahead(step.model, GradientEngine(step.model, exact=True), batches(step), 0.05, seed=7)
    after = step.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in step.model.parameters())

    def losses(shared: dict[str, Tensor]) -> dict[str, Tensor]:
        torch.manual_seed(7)
        values = {f"sharing.{name}": value for name, value in shared.items()}
        outputs = torch.func.functional_call(deepcopy(step.model), values, (step.images, step.lenders))
        return {task: (outputs[task]["values"] - step.targets[task]["values"]).square().mean() for task in outputs}

    tasks = step.model.tasks
    theta = {name: p.detach().clone().requires_grad_() for name, p in step.shared.items()}
    plain = losses(theta)
    for i, task in enumerate(tasks):
        gradient = torch.autograd.grad(plain[task], list(theta.values()), retain_graph=True, materialize_grads=True)
        moved = {name: value - 0.05 * g for (name, value), g in zip(theta.items(), gradient, strict=True)}
        for j, other in enumerate(tasks):
            wanted = 1 - losses(moved)[other].item() / plain[other].item()
            assert found[i, j].item() == pytest.approx(wanted, rel=1e-8), (task, other)
        for name, g in zip(theta, gradient, strict=True):
            torch.testing.assert_close(gradients[task][name], g, rtol=1e-8, atol=1e-12)


def test_a_loss_that_is_not_above_0_and_a_task_that_rests_have_no_affinity() -> None:
    step = Step(Staged())
    del step.images["objects"]
    step.model.losses["faces"].forward = lambda outputs, targets: {"loss": -outputs["values"].square().mean()}
    found, _ = lookahead(step.model, GradientEngine(step.model, exact=True), batches(step), 0.01)
    assert found.isnan().tolist() == [[True, True, False], [True, True, True], [True, True, False]]


@pytest.fixture
def recipe(here: Path) -> Path:
    (here / "recipe.yaml").write_text(dump_yaml(constructed()), encoding="utf-8")
    return here / "recipe.yaml"


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_it_finds_what_the_constructed_tasks_are_to_each_other(recipe: Path, norm: str) -> None:
    call = ("affinity", recipe, f"backbone.norm={norm}", "--steps", 60, "--every", 3)
    result = mtframe(*call, "--json", "--out", "found")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert report == json.loads(Path("found/affinity.json").read_text(encoding="utf-8"))
    assert report["measured_steps"] == 20
    affinity = {i: {j: cell["mean"] for j, cell in row.items()} for i, row in report["affinity"].items()}
    assert affinity["duplicate"]["original"] > 0.5 * affinity["original"]["original"] > 0
    assert affinity["adversarial"]["original"] < -0.5 * affinity["original"]["original"]
    assert abs(affinity["unrelated"]["original"]) < 0.1 * affinity["original"]["original"]
    cosines = {tuple(pair["tasks"]): pair["stages"]["all"] for pair in report["cosines"]}
    assert cosines["original", "duplicate"]["mean"] > 0.8
    assert cosines["original", "duplicate"]["negative"] == 0
    assert cosines["original", "adversarial"]["mean"] < -0.8
    assert cosines["original", "adversarial"]["negative"] == 1
    assert abs(cosines["original", "unrelated"]["mean"]) < 0.2
    groups = [set(group["tasks"]) for group in report["proposal"]["groups"]]
    together = next(group for group in groups if "original" in group)
    assert "duplicate" in together
    assert "adversarial" not in together
    assert report["groupings"][0]["score"] < 0 < report["proposal"]["score"]


def test_tables_have_every_task_and_a_proposal(recipe: Path) -> None:
    result = mtframe("affinity", recipe, "--steps", 12, "--every", 3, "--networks", 1)
    assert (result.code, result.err) == (0, "")
    assert "± standard error of 4 measured steps" in result.out
    assert "of adversarial  " in result.out
    assert "original, duplicate     +0." in result.out
    # They are opposed from the first stage on.
    assert "Proposed\n  original, duplicate, unrelated, adversarial: " in result.out
    assert "with no stage to share" in result.out
    assert "are opposed in stage 1, cosine -0.9" in result.out
    assert not (recipe.parent / "runs").exists()


def test_one_measured_step_proposes_nothing(recipe: Path) -> None:
    call = ("affinity", recipe, "--steps", 3, "--every", 3)
    result = mtframe(*call)
    assert (result.code, result.err) == (0, "")
    assert "in thousandths of their loss, of 1 measured step\n" in result.out
    assert "nan" not in result.out
    assert "speaks against" not in result.out
    assert result.out.endswith(
        "Proposed\n  nothing: not enough was measured, since a single step has no standard error; "
        "give more --steps, or a smaller --every\n"
    )
    report = json.loads(mtframe(*call, "--json").out)
    assert (report["measured_steps"], report["groupings"], report["proposal"]) == (1, [], None)
    assert report["affinity"]["original"]["original"]["error"] is None


@pytest.mark.parametrize(("change", "arguments", "said"), [
    ({"tasks": ["original"]}, (), "affinity: compares tasks, and 'original' is the only one"),
    ({}, ("sharing={name: layers, shared: 0}",),
     "affinity: tasks original, duplicate have no trained parameters in common, so there is nothing to compare"),
    ({}, ("train.schedule=round-robin",), "none has two of them; use train.schedule=joint"),
    ({}, ("--steps", 3, "--every", 4), "--every: must be at most the number of steps, 3, got 4"),
    ({}, ("train.lrr=1",), "train.lrr: unknown option; did you mean 'lr'?"),
])  # fmt: skip
def test_mistakes_are_one_message(here: Path, change: dict[str, Any], arguments: Any, said: str) -> None:
    tasks = change.get("tasks", ["original", "duplicate"])
    (here / "recipe.yaml").write_text(dump_yaml(constructed(*tasks)), encoding="utf-8")
    result = mtframe("affinity", "recipe.yaml", *arguments)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert said in result.err
    assert "Traceback" not in result.err
    assert list(here.iterdir()) == [here / "recipe.yaml"]


def test_a_loss_that_is_not_finite_fails_without_speaking_of_a_run(here: Path) -> None:
    plain = toy_recipe()
    plain["tasks"]["one"]["loss"] = {"name": plain["tasks"]["one"]["loss"], "explode_after": 0.5}
    (here / "recipe.yaml").write_text(dump_yaml(plain), encoding="utf-8")
    result = mtframe("affinity", "recipe.yaml", "--steps", 4, "--every", 2)
    assert result.code == 1
    assert "error: task one: loss 'cross_entropy' is nan at step 3. Try a lower train.lr" in result.err


def test_a_folder_that_cannot_be_made_is_told_before_training(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtframe.affinity.estimate_affinity", None)
    Path("found").write_text("a file", encoding="utf-8")
    result = mtframe("affinity", recipe, "--out", "found")
    assert (result.code, result.err) == (2, "error: --out: found cannot be made (File exists)\n")


def test_steps_of_accumulation_dropout_and_batchnorm_are_measured(here: Path) -> None:
    (here / "recipe.yaml").write_text(dump_yaml(toy_recipe(accumulate=2)), encoding="utf-8")
    result = mtframe("affinity", "recipe.yaml", "--steps", 4, "--every", 2, "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["affinity"]["one"]["one"]["mean"] > 0
