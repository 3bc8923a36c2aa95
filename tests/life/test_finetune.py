"""One more task with the whole network trained, while distillation keeps the old ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_tasks import HERE, THIRD, Trained, done, outputs, stop_at, trace, train_two

from command import mtframe
from mtframe.errors import RecipeError
from mtframe.training import Interrupted, Trainer, add_task
from mtframe.training._distillation import _unexplained

STEADY = f"{HERE}:SteadyBackbone"


def finetuned(old: Path, out: Path, *change: str) -> Trainer:
    trainer = Trainer(add_task(old, THIRD, ["train.steps=8", "train.lr=0.02", *change], finetune=True), out)
    trainer.fit()
    return trainer


def weights(run: Path, checkpoint: str = "last") -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / checkpoint / "weights.safetensors")


def drift(old: Path, new: Path, sizes: dict[str, int]) -> float:
    """How far the old tasks' outputs have moved."""
    before, after = outputs(old, sizes), outputs(new, sizes, "last")
    return max((after[task]["logits"] - before[task]["logits"]).abs().max().item() for task in sizes)


def test_the_loss_is_the_part_of_the_teachers_variance_that_is_missed() -> None:
    # Of 1, 3, 5, 7 the variance is 5; off by 1 each is 1/5 of it. Off by 2 each of 0, 0, 4, 4, with variance 4, is 1.
    answers = {"logits": torch.tensor([1.0, 3.0, 5.0, 7.0]), "boxes": torch.tensor([[0.0, 0.0], [4.0, 4.0]])}
    given = {"logits": answers["logits"] + 1, "boxes": answers["boxes"] - 2, "more": torch.zeros(1)}
    assert _unexplained(given, answers).item() == pytest.approx((1 / 5 + 1) / 2)
    assert _unexplained(answers, answers).item() == 0
    # Whatever the unit.
    scaled = {name: 1000 * value for name, value in answers.items()}
    assert _unexplained({name: 1000 * value for name, value in given.items()}, scaled).item() == pytest.approx(0.6)
    # An answer that never differs counts as if it did by 1 % of its size; what is no number has no part in it.
    flat = {"logits": torch.full((4,), 10.0), "index": torch.arange(4)}
    off = {"logits": torch.full((4,), 10.1), "index": torch.zeros(4, dtype=torch.long)}
    assert _unexplained(off, flat).item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("sharing", ["network", "layers", "cross-stitch"])
@pytest.mark.parametrize(("sizes", "size"), [((32, 32), 32), ((32, 64), 48)], ids=["one pass", "three passes"])
def test_before_the_first_step_the_old_tasks_answer_as_the_old_run_does(
    trained: Trained, tmp_path: Path, sharing: str, sizes: tuple[int, int], size: int
) -> None:
    old = trained(sizes, sharing, STEADY)
    change = (f"tasks.three.size={size}", "train.weight_decay=0.1")
    finetuned(old, tmp_path / "new", *change)
    rows = trace(tmp_path / "new")
    for task in ("one", "two"):
        assert float(rows[0][f"{task}/distillation"]) == pytest.approx(0.0, abs=1e-10)
        assert float(rows[2][f"{task}/distillation"]) > 1e-6
    before, after = weights(old, "best"), weights(tmp_path / "new")
    for name, tensor in before.items():
        kept = after[name]
        if kept.shape != tensor.shape:
            kept = kept[: len(tensor)] if tensor.dim() == kept.dim() else kept[0]
        if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(kept, tensor), f"{name}: statistics of the new images"
    stem = {"layers": "trunk.stem", "network": "backbone.stem", "cross-stitch": "columns.three.backbone.stem"}[sharing]
    assert not torch.equal(
        after[f"sharing.{stem}.0.weight"], before[f"sharing.{stem.replace('three', 'one')}.0.weight"]
    )


def test_the_old_tasks_move_less_than_without(trained: Trained, tmp_path: Path) -> None:
    old = trained((32, 64), "network", STEADY)
    moved = []
    for weight in ("1e-6", "1"):
        finetuned(old, tmp_path / weight, f"train.distil={weight}", "train.steps=40", "train.ema=null")
        moved.append(drift(old, tmp_path / weight, {"one": 32, "two": 64}))
    assert moved[0] > 2 * moved[1] > 0, moved


def test_the_old_tasks_are_scored_before_and_after(trained: Trained, tmp_path: Path) -> None:
    old, new = trained(), tmp_path / "new"
    said = done("add-task", old, THIRD, "--finetune", "train.steps=3", "--out", new).out
    first, last = json.loads((new / "metrics.json").read_text(encoding="utf-8"))["evaluations"]
    assert (first["step"], last["step"]) == (0, 3)
    assert set(first["tasks"]) == set(last["tasks"]) == {"one", "two", "three"}
    scores = json.loads(done("evaluate", old, "--json").out)
    assert {task: first["tasks"][task] for task in scores} == scores
    table = said[said.index("kept task") :]
    for task in ("one", "two"):
        words = next(line for line in table.splitlines() if line.split()[:1] == [task]).split()
        assert words == [task, "accuracy", f"{scores[task]['accuracy']:.4f}", f"{last['tasks'][task]['accuracy']:.4f}"]
    # However good it was, a model whose new head no step has trained is not the best.
    assert json.loads((new / "metrics.json").read_text(encoding="utf-8"))["best"]["steps"]["best"] == 3


def test_what_cannot_be_scored_is_said(tmp_path: Path) -> None:
    data, new = tmp_path / "data", tmp_path / "new"
    data.mkdir()
    vanishing = {"dataset": {"name": f"{HERE}:Vanishing", "root": str(data)}}
    old = train_two(tmp_path / "old", two=vanishing)
    data.rmdir()
    said = done("add-task", old, THIRD, "--finetune", "train.steps=2", "--out", new).out
    assert f"two: what becomes of it is not measured: tasks.two.dataset.root: no folder {str(data)!r}" in said
    assert "task two: what becomes of it is not measured" in (new / "log.txt").read_text(encoding="utf-8")
    evaluations = json.loads((new / "metrics.json").read_text(encoding="utf-8"))["evaluations"]
    assert [set(one["tasks"]) for one in evaluations] == [{"one", "three"}, {"one", "three"}]
    assert "two/distillation" in trace(new)[0]


@pytest.mark.parametrize("balancer", ["pcgrad", "uncertainty"])
def test_balancers_see_what_is_kept_as_tasks(trained: Trained, tmp_path: Path, balancer: str) -> None:
    old = trained((32, 64), "network", STEADY)
    finetuned(old, tmp_path / "new", f"balancer={balancer}", "tasks.three.size=64", "train.steps=3")
    terms = {name for name in trace(tmp_path / "new")[-1] if "/" in name}
    assert {"one/distillation", "two/distillation", "three/cross_entropy"} <= terms
    finetuned(old, tmp_path / "sum", "tasks.three.size=64", "train.steps=3")
    stem = "sharing.backbone.stem.0.weight"
    assert not torch.equal(weights(tmp_path / "new")[stem], weights(tmp_path / "sum")[stem])


def test_a_stopped_one_goes_on_exactly_while_its_teacher_is_there(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old", sizes=(32, 64))
    finetuned(old, tmp_path / "whole", "train.ema=0.9")
    change = ["train.steps=8", "train.lr=0.02", "train.ema=0.9"]
    stopped = Trainer(add_task(old, THIRD, change, finetune=True), tmp_path / "stopped")
    stop_at(stopped, 5)
    with pytest.raises(Interrupted):
        stopped.fit()
    shutil.move(old, tmp_path / "away")
    result = mtframe("train", "--resume", tmp_path / "stopped")
    assert result.code == 2
    assert f"train.start: {old}: no such run or file" in result.err
    shutil.move(tmp_path / "away", old)
    done("train", "--resume", tmp_path / "stopped")
    assert trace(tmp_path / "whole") == trace(tmp_path / "stopped")
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert (tmp_path / "whole" / "metrics.json").read_text(encoding="utf-8") == (
        tmp_path / "stopped" / "metrics.json"
    ).read_text(encoding="utf-8")


def test_a_teacher_that_has_changed_is_refused(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old")
    stopped = Trainer(add_task(old, THIRD, ["train.steps=8"], finetune=True), tmp_path / "stopped")
    stop_at(stopped, 2)
    with pytest.raises(Interrupted):
        stopped.fit()
    shutil.rmtree(old)
    train_two(old, seed=1)
    result = mtframe("train", "--resume", tmp_path / "stopped")
    assert (result.code, "are not those that this run began with" in result.err) == (1, True), result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["train.tasks=[one, two, three]"], r"train\.tasks: must be \[three\], got \[one, two, three\]"),
        (["train.tasks=[two, three]"], r"train\.tasks: must be \[three\], got \[two, three\]"),
    ],
)
def test_mistakes(trained: Trained, tmp_path: Path, change: list[str], message: str) -> None:
    old = trained()
    with pytest.raises(RecipeError, match=message):
        finetuned(old, tmp_path / "new", *change)
    assert not (tmp_path / "new").exists()


def test_a_recipe_by_hand_with_another_head_of_an_old_task(trained: Trained, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(add_task(trained(), THIRD, finetune=True).recipe.to_yaml(), encoding="utf-8")
    result = mtframe("train", recipe, "tasks.one.head.bias=false", "--out", tmp_path / "new")
    assert result.code == 2
    assert f"train.distil: the head of 'one' is another than in {trained()}" in result.err
    assert not (tmp_path / "new").exists()


def test_weights_that_are_in_no_run_teach_nothing(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old")
    file = shutil.copy(old / "checkpoints" / "best" / "weights.safetensors", tmp_path / "loose.safetensors")
    with pytest.raises(RecipeError, match=r"train\.start: must be .*old or weights in it"):
        add_task(old, THIRD, [f"train.start={file}"], finetune=True)
