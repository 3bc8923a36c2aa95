"""What of a run may change on the way, and what would make another experiment of it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.recipe import Recipe, load_recipe
from mtframe.run import RunFolder, trust
from mtframe.run._changes import differences
from mtframe.run._files import file_digest
from mtframe.training import Trainer
from small import Small
from stopped import train_until
from toy import toy_recipe

OBSERVER = """
from mtframe.hooks import hookimpl

class Mine:
    @hookimpl
    def step_ended(self, step): ...
"""


def weights(run: Path) -> bytes:
    return (run / "checkpoints" / "last" / "weights.safetensors").read_bytes()


def test_differences_are_by_key_whichever_way_a_component_is_written() -> None:
    then = {"backbone": "a", "tasks": {"t": {"head": {"name": "dense", "width": 8}, "metrics": ["m"]}}}
    now = {"backbone": {"name": "a"}, "tasks": {"t": {"head": "dense", "metrics": ["m", "n"]}}, "train": {"lr": 1}}
    assert differences(then, now) == {
        "tasks.t.head.width": (8, None),
        "tasks.t.metrics": (["m"], ["m", "n"]),
        "train.lr": (None, 1),
    }


@pytest.mark.parametrize(
    "change",
    ["train.workers=1", "train.device=auto", "train.log_every=3", "train.save_every_steps=2", "train.max_unreadable=3",
     "hooks=[]", "train.gradients_every=null"],
)  # fmt: skip
def test_what_leaves_every_step_as_it_was_may_change_and_is_kept(run: Path, tmp_path: Path, change: str) -> None:
    shutil.copytree(run, tmp_path / "plain")
    Trainer.resume(tmp_path / "plain").fit()
    result = mtframe("train", "--resume", run, change)
    assert result.code == 0, result
    assert weights(run) == weights(tmp_path / "plain")
    key, _, value = change.partition("=")
    if key != "train.gradients_every":
        shown = value if value[0] in "[0123456789" else repr(value)
        assert f"changed: {key} {shown} (was " in result.out
        assert f"changed: {key} {shown} (was " in (run / "log.txt").read_text(encoding="utf-8")
    # The run's recipe is what was trained: a second look finds no change.
    kept = load_recipe(run / "recipe.yaml").to_yaml()
    assert kept == load_recipe(run / "recipe.yaml", [change]).to_yaml()


@pytest.mark.parametrize(
    "change",
    ["tasks.one.batch_size=2", "train.seed=1", "train.lr=0.5", "train.optimizer=sgd", "tasks.one.dataset.count=10",
     "train.ema=null", 'train.freeze=["backbone"]', "train.steps=5",
     "tasks.one.size=64", "balancer=uncertainty", "train.precision=bf16", "train.ema=0.5", "backbone.width=16"],
)  # fmt: skip
def test_what_would_be_another_experiment_is_refused_with_the_way_to_do_it(run: Path, change: str) -> None:
    before = weights(run)
    result = mtframe("train", "--resume", run, change)
    assert result.code == 2
    key, _, value = change.partition("=")
    shown = value if value == "null" or value[0].isdigit() else value.replace('"', "'") if "[" in value else repr(value)
    assert f"{run}: would be another experiment with {key} {shown} (was " in result.err
    quoted = shlex.quote(str(run))
    assert f"mtframe train {quoted}/recipe.yaml {shlex.quote(change)} --from {quoted}" in result.err
    assert weights(run) == before
    # The way works.
    with pytest.raises(RecipeError):
        Trainer.resume(run, overrides=[change])


def test_a_hook_in_a_file_of_the_user_is_copied_into_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(OBSERVER, encoding="utf-8")
    result = mtframe("train", "--resume", run, "--with", "./toy.py:Mine")
    assert result.code == 0, result
    # The run has one of that name already.
    copy = run / "components" / "toy_2.py"
    assert copy.read_text(encoding="utf-8") == OBSERVER
    assert load_recipe(run / "recipe.yaml").hooks[-1].name == f"{copy}:Mine"
    assert str(tmp_path) not in (run / "recipe.yaml").read_text(encoding="utf-8")
    recorded = json.loads((run / "environment.json").read_text(encoding="utf-8"))["files"]
    assert recorded == {f"components/{name}.py": file_digest(run / "components" / f"{name}.py")
                        for name in ("toy", "toy_2")}  # fmt: skip
    # What it was trained with is asked for nowhere, and one that is there already is not added.
    (tmp_path / "toy.py").rename(tmp_path / "other.py")
    assert mtframe("evaluate", run).code == 0
    (tmp_path / "other.py").rename(tmp_path / "toy.py")
    before = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert RunFolder.open(run).take_up(hooks=["./toy.py:Mine"]).recipe.hooks[-1].name == f"{copy}:Mine"
    assert (run / "recipe.yaml").read_text(encoding="utf-8") == before


def test_weights_of_before_a_change_that_is_allowed_are_no_alarm(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = run / "recipe.yaml"
    text = file.read_text(encoding="utf-8")
    assert "  steps: 12\n" in text
    file.write_text(text.replace("  steps: 12\n", "  steps: 16\n"), encoding="utf-8")
    assert mtframe("evaluate", run, "--checkpoint", "best").code == 0
    assert "is not what was trained" not in caplog.text
    file.write_text(text.replace("  seed: 0\n", "  seed: 1\n"), encoding="utf-8")
    assert mtframe("evaluate", run, "--checkpoint", "best").code == 0
    assert "is not what was trained: train.seed 1 (was 0)" in caplog.text


def test_an_edit_of_the_recipe_counts_as_the_change_it_is(run: Path) -> None:
    file = run / "recipe.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("log_every: 1\n", "log_every: 2\n"), encoding="utf-8")
    result = mtframe("train", "--resume", run)
    assert result.code == 0, result
    assert "changed: train.log_every 2 (was 1)" in result.out


def test_a_run_that_was_changed_can_be_moved(run: Path, tmp_path: Path) -> None:
    assert mtframe("train", "--resume", run, "train.log_every=2").code == 0
    assert str(tmp_path) not in (run / "recipe.yaml").read_text(encoding="utf-8")
    run.rename(tmp_path / "moved")
    result = mtframe("evaluate", tmp_path / "moved")
    assert result.code == 0, result


def test_a_finished_run_goes_on_only_with_a_longer_training_and_says_by_what_schedule(run: Path) -> None:
    Trainer.resume(run).fit()
    with pytest.raises(RecipeError, match=r"already trained to its end, step 12 of 12\. For more: .* train\.steps=24"):
        Trainer.resume(run)
    result = mtframe("train", "--resume", run, "train.steps=16")
    assert result.code == 0, result
    assert "changed: train.steps 16 (was 12)\n" in result.out
    assert "the learning rate of the steps to come is that of a training which is as long from the start" in result.out
    assert RunFolder.open(run).last().manifest.step == 16


@pytest.mark.parametrize(("then", "now", "said"), [
    # The toy's epoch has 8 steps.
    ("train.steps=12", "train.epochs=1", "train.steps null (was 12): 8 steps, and they were 12"),
    ("train.epochs=2", "train.steps=12", "train.steps 12 (was null): 12 steps, and they were 16"),
    ("train.epochs=2", "train.steps=20", ""),
    ("train.steps=12", "train.epochs=3", ""),
    ("train.epochs=2", "train.epochs=3", ""),
])  # fmt: skip
def test_a_training_counted_otherwise_may_only_become_longer(tmp_path: Path, then: str, now: str, said: str) -> None:
    run = tmp_path / "run"
    length = {"steps": None, key_of(then): value_of(then)}
    trainer = Trainer(Assembly(Recipe.from_plain(toy_recipe(**length))), run)
    assert trainer.parts.length.steps_per_epoch == 8
    train_until(trainer, 4)
    if not said:
        assert Trainer.resume(run, overrides=[now]).parts.length.steps > trainer.parts.length.steps
        return
    with pytest.raises(RecipeError) as caught:
        Trainer.resume(run, overrides=[now])
    assert said in str(caught.value)
    assert f"recipe.yaml {now} " in str(caught.value)


def key_of(change: str) -> str:
    return change.partition("=")[0].removeprefix("train.")


def value_of(change: str) -> int:
    return int(change.partition("=")[2])


def test_training_data_that_lost_an_image_is_refused(run: Path, tmp_path: Path) -> None:
    # The toy's number of images is an option; a folder's would have changed under the same recipe.
    toy = run / "components" / "toy.py"
    toy.write_text(
        toy.read_text(encoding="utf-8").replace("self.count = count", "self.count = count - 1"), encoding="utf-8"
    )
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    environment["files"]["components/toy.py"] = file_digest(toy)
    (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    trust(run)
    with pytest.raises(
        Exception, match=r"training images are not what they were: one had 20, has 19, two had 30, has 29"
    ):
        Trainer.resume(run)


def test_training_data_whose_images_are_others_is_refused_though_their_number_is_the_same(
    small: Small, tmp_path: Path
) -> None:
    shutil.copytree(small.objects, tmp_path / "objects")
    shutil.copytree(small.faces, tmp_path / "faces")
    parts = Small(tmp_path / "faces", tmp_path / "objects").parts
    assert mtframe("train", *parts, "--out", tmp_path / "run").code == 0
    file = tmp_path / "objects" / "annotations" / "instances_train2017.json"
    annotations = json.loads(file.read_text(encoding="utf-8"))
    folder, name = tmp_path / "objects" / "train2017", annotations["images"][1]["file_name"]
    (folder / name).rename(folder / "another.jpg")
    annotations["images"][1]["file_name"] = "another.jpg"
    file.write_text(json.dumps(annotations), encoding="utf-8")
    result = mtframe("train", "--resume", tmp_path / "run", "train.steps=3")
    assert result.code == 2
    assert "objects has 4 as before, but others or in another order" in result.err
