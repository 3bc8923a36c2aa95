"""One more task: what is old stays what it is, bit by bit."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_tasks import HERE, THIRD, Trained, done, outputs, same, stop_at, trace, train_two

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.recipe import Recipe
from mtframe.registry import discover, resolve
from mtframe.run import RunFolder
from mtframe.training import Interrupted, Trainer, add_task
from mtframe.training._start import start_model
from mtframe.yaml import dump_yaml
from small import Small
from toy import toy_recipe

LAYERS = {"name": "layers", "shared": 1}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def weights(run: Path, checkpoint: str = "best") -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / checkpoint / "weights.safetensors")


@pytest.mark.parametrize("sharing", ["network", "layers"])
@pytest.mark.parametrize(
    ("sizes", "size", "like"),
    [((32, 32), 32, 0), ((32, 32), 48, 0), ((32, 64), 32, 0), ((32, 64), 56, 1), ((32, 64), 64, 1)],
    ids=["joins the only pass", "second pass", "joins the first pass", "third pass", "joins the second pass"],
)
def test_old_tasks_give_the_same_bit_by_bit(
    trained: Trained, tmp_path: Path, sharing: str, sizes: tuple[int, int], size: int, like: int
) -> None:
    old, new = trained(sizes, sharing), tmp_path / "new"
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    done("add-task", old, THIRD, f"tasks.three.size={size}", "train.steps=10", "train.ema=0.8", "--out", new)
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before

    given = dict(zip(("one", "two"), sizes, strict=True))
    assert same(outputs(old, given), outputs(new, given))
    assert same(outputs(old, given), outputs(new, given, "last"))
    assert set(outputs(new, {"three": size})["three"]) == {"logits"}
    theirs, ours = weights(old), weights(new)
    groups = len(set(sizes))
    for name, tensor in theirs.items():
        if ours[name].shape == tensor.shape:
            assert torch.equal(ours[name], tensor), name
            continue
        # One more pass: its statistics are those of the pass of the nearest size.
        assert name.rpartition(".")[2] in STATISTICS
        rows = tensor.expand(1, *tensor.shape) if groups == 1 else tensor
        assert torch.equal(ours[name], torch.cat([rows, rows[like : like + 1]])), name
    added = {name for name in ours if name not in theirs}
    own = {f"sharing.branches.three.{name}" for name in ("body.0", "body.1")} if sharing == "layers" else set()
    assert {name.rpartition(".")[0] for name in added} == {"heads.three.linear", *own}


def test_the_new_task_learns_and_all_can_be_evaluated(trained: Trained, tmp_path: Path) -> None:
    old, new = trained(), tmp_path / "new"
    said = done("add-task", old, THIRD, "train.steps=150", "train.lr=0.05", "train.ema=null", "--out", new).out
    assert "heads.one: 2 of 2" in said
    assert "heads.three: 0 of 2" in said
    assert "kept as they are: one, two" in said
    assert "heads.three: 0 of 2" in (new / "log.txt").read_text(encoding="utf-8")
    scores = json.loads(done("evaluate", new, "--json").out)
    assert scores["three"]["accuracy"] >= 0.9
    assert json.loads(done("evaluate", old, "--json").out) == {task: scores[task] for task in ("one", "two")}
    # While it was trained, what could not change was not scored.
    assert set(json.loads((new / "metrics.json").read_text(encoding="utf-8"))["evaluations"][-1]["tasks"]) == {"three"}


def test_epochs_of_the_new_training_take_the_place_of_the_old_runs_steps(trained: Trained) -> None:
    old = trained()
    assert add_task(old, THIRD).recipe.train.steps == 6
    train = add_task(old, THIRD, ["train.epochs=2"]).recipe.train
    assert (train.epochs, train.steps) == (2, None)


def test_the_recipe_says_all(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old", sharing=LAYERS, balancer="mgda")
    # What compares tasks has nothing to do for one.
    file = old / "recipe.yaml"
    plain = file.read_text(encoding="utf-8").replace("gradients_every: null", "gradients_every: 2")
    file.write_text(plain.replace("exact_gradients: false", "exact_gradients: true"), encoding="utf-8")
    assembly = add_task(old, THIRD, ["train.steps=4"])
    train, balancer = assembly.recipe.train, assembly.recipe.balancer
    assert (train.start, train.tasks, train.distil, balancer.plain()) == (str(old), ["three"], None, "sum")
    assert train.freeze == ["sharing.branches.one", "sharing.branches.two", "sharing.trunk", "heads.one", "heads.two"]
    Trainer(assembly, tmp_path / "new").fit()
    assert RunFolder(tmp_path / "new").recipe().train == train
    # Trained once more from its own recipe, it is the same.
    done("train", tmp_path / "new" / "recipe.yaml", "--out", tmp_path / "again")
    ours, theirs = weights(tmp_path / "new"), weights(tmp_path / "again")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_a_run_can_be_added_to_more_than_once(trained: Trained, tmp_path: Path) -> None:
    old = trained()
    done("add-task", old, THIRD, "train.steps=2", "--out", tmp_path / "three")
    done("add-task", tmp_path / "three", THIRD.replace("three", "four"), "train.steps=2", "--out", tmp_path / "four")
    given = {"one": 32, "two": 32, "three": 32}
    assert same(outputs(tmp_path / "three", given), outputs(tmp_path / "four", given))


def test_a_run_goes_by_default_beside_the_old_one(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old")
    said = done("add-task", old, THIRD, "train.steps=1").out
    assert f"run: {tmp_path / 'old-three'}" in said
    assert (tmp_path / "old-three" / "recipe.yaml").is_file()


@pytest.mark.parametrize("named", [".", "../old", "checkpoints/.."])
def test_the_run_may_be_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    old = train_two(tmp_path / "old")
    monkeypatch.chdir(old)
    done("add-task", named, THIRD, "train.steps=1")
    assert (tmp_path / "old-three" / "recipe.yaml").is_file()
    done("remove-task", named, "one")
    assert (tmp_path / "old-without-one" / "recipe.yaml").is_file()


def test_a_stopped_one_goes_on_exactly(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old", sizes=(32, 64))
    change = ["train.steps=6", "train.ema=0.9", "tasks.three.size=48"]
    Trainer(add_task(old, THIRD, change), tmp_path / "whole").fit()
    stopped = Trainer(add_task(old, THIRD, change), tmp_path / "stopped")
    stop_at(stopped, 3)
    with pytest.raises(Interrupted):
        stopped.fit()
    # What goes on needs nothing of where it came from.
    shutil.rmtree(old)
    done("train", "--resume", tmp_path / "stopped")
    assert trace(tmp_path / "whole") == trace(tmp_path / "stopped")
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_a_task_on_the_images_of_an_old_one(trained: Trained, tmp_path: Path) -> None:
    old, new = trained(), tmp_path / "new"
    done(
        "add-task", old, f"three={HERE}:Borrowing", "tasks.three.images=one", "train.steps=4", "--out", new
    )  # fmt: skip
    with (new / "metrics.csv").open(newline="", encoding="utf-8") as file:
        # The lender's batches are read, but it does not learn from them.
        assert [name for name in next(csv.reader(file)) if "/" in name] == ["three/cross_entropy"]
    assert same(outputs(old, {"one": 32, "two": 32}), outputs(new, {"one": 32, "two": 32}))


def test_through_the_command_line_without_the_old_data(small: Small, tmp_path: Path) -> None:
    from mtframe_classification.image_folder import ImageFolder

    shutil.copytree(small.faces, tmp_path / "faces")
    shutil.copytree(small.objects, tmp_path / "objects")
    ImageFolder.synthesize(tmp_path / "scenes", train=10, val=5, size=64, workers=1)
    parts = [part.replace(str(small.faces.parent), str(tmp_path)) for part in small.parts]
    old, new = tmp_path / "old", tmp_path / "new"
    done("train", *parts, "tasks.objects.size=96", "--out", old)
    picture = next((small.objects).rglob("*.jpg"))
    before = json.loads(done("predict", old, picture, "--json", "--out", tmp_path / "seen").out)
    shutil.rmtree(tmp_path / "faces")
    shutil.rmtree(tmp_path / "objects")
    scenes = f"scenes=scene-recognition:{tmp_path / 'scenes'}"
    done("add-task", old, scenes, "tasks.scenes.size=64", "tasks.scenes.batch_size=4", "--out", new)
    given = {"faces": 64, "objects": 96}
    assert same(outputs(old, given), outputs(new, given))
    after = json.loads(done("predict", new, picture, "--json", "--out", tmp_path / "seen").out)
    assert len(before) == len(after) == 1
    was, now = before[0]["tasks"], after[0]["tasks"]
    assert now == {**was, "scenes": now["scenes"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "one=image-classification:data"], "has a task of that name already; its tasks are one, two"),
        (["{run}-not", THIRD], "no such folder. A run is what 'mtframe train' writes"),
        (["{run}", "three=image-clasification:data"], "no preset 'image-clasification'; did you mean 'image-classifi"),
        (["{run}", "three=image-classification:{run}/nowhere"], "tasks.three.dataset.root: no folder"),
        (["{run}", "three=image-classification"], "tasks.three.dataset.root: required"),
        (["{run}", "three"], "expected NAME=PRESET:ROOT"),
        (["{run}", THIRD.replace("three", "a/b")], "tasks.a/b: expected a task's name of letters, digits, '_' and '-'"),
        (["/", THIRD], "/: no recipe.yaml in it, so it is no run"),
        (["{run}", THIRD, "train.distil=1.0"], "train.distil: without --finetune all that is old stays as it is, so"),
        (["{run}", THIRD, "train={distil: 1, start: '{run}', tasks: [three]}"], "train.distil: without --finetune"),
        (["{run}", THIRD, "train.start=null"], "train.start: must be"),
        (["{run}", THIRD, "train.tasks=[four]"], "train.tasks: must be [three], got [four]"),
        (["{run}", THIRD, "train.tasks=[one, three]"], "train.tasks: must be [three], got [one, three]; the new task"),
        (["{run}", THIRD, "train.tasks=null"], "train.tasks: must be [three], got null"),
        (
            ["{run}", THIRD, "train.gradients_every=2"],
            "train.gradients_every: compares tasks, and 'three' is the only one that is trained; what is kept or "
            "distilled (one, two) is not measured. Leave it out",
        ),
        (["{run}", THIRD, "--finetune", "train.gradients_every=2"], "and 'three' is the only one that is trained"),
        (
            ["{run}", f"three={HERE}:Borrowing", "tasks.three.images=one", "--finetune", "train.gradients_every=2"],
            "and 'three' is the only one that is trained; what is kept or distilled (one, two) is not measured",
        ),
        (["{run}", THIRD, "train.freeze=[heads.thre]"], "no part 'heads.thre'; did you mean 'heads.three'?"),
        (["{run}", THIRD, "train.freeze=[heads.three]"], "train.freeze: nothing is left to train"),
        (["{run}", THIRD, "--out", "{run}"], "already exists and is not empty"),
    ],
)
def test_mistakes(trained: Trained, arguments: list[str], message: str) -> None:
    two = trained()
    there = sorted(two.parent.iterdir())
    result = mtframe("add-task", *(part.replace("{run}", str(two)) for part in arguments))
    assert result.code == 2
    assert message in result.err
    assert sorted(two.parent.iterdir()) == there


@pytest.mark.parametrize("finetune", [[], ["--finetune"]], ids=["frozen", "finetune"])
@pytest.mark.parametrize(
    "override",
    [
        "tasks.one.size=64",
        "tasks.one.transform.fixed=false",
        "tasks.one.head.bias=false",
        "tasks.one.flip_test=true",
        "tasks.one={size: 64}",
        "tasks={}",
        "sharing.batchnorm=frozen",
        "sharing=layers",
        "backbone.width=4",
    ],
)
def test_what_old_tasks_are_computed_with_cannot_be_overridden(
    trained: Trained, finetune: list[str], override: str
) -> None:
    two = trained()
    there = sorted(two.parent.iterdir())
    result = mtframe("add-task", two, THIRD, override, *finetune)
    key = override.partition("=")[0]
    assert (result.code, f"{key}: the old tasks' answers are computed with it" in result.err) == (2, True), result
    assert sorted(two.parent.iterdir()) == there


@pytest.mark.parametrize("finetune", [False, True])
def test_where_the_old_data_is_can_be_overridden(trained: Trained, finetune: bool) -> None:
    change = ["tasks.one.dataset.root=elsewhere", "tasks.one.batch_size=2"]
    one = add_task(trained(), THIRD, change, finetune=finetune).recipe.tasks["one"]
    assert (one.dataset.options, one.batch_size) == ({"root": "elsewhere"}, 2)


@pytest.mark.parametrize("name", sorted(component.name for component in discover("sharing")))
def test_every_scheme_keeps_what_is_old(tmp_path: Path, name: str) -> None:
    options = next(iter(getattr(resolve("sharing", name).component, "examples", {}).values()), {})
    old = train_two(tmp_path / "old", sizes=(32, 64), sharing={"name": name, **options})
    Trainer(add_task(old, THIRD, ["train.steps=2", "tasks.three.size=48"]), tmp_path / "new").fit()
    assert same(outputs(old, {"one": 32, "two": 64}), outputs(tmp_path / "new", {"one": 32, "two": 64}))


def test_only_the_run_itself_is_added_to(trained: Trained) -> None:
    with pytest.raises(RecipeError, match=r"train\.start: must be .*old or weights in it; they are what is added to"):
        add_task(trained(), THIRD, [f"train.start={trained((32, 64))}"])
    file = trained() / "checkpoints" / "last" / "weights.safetensors"
    assert add_task(trained(), THIRD, [f"train.start={file}"]).recipe.train.start == str(file)


def test_observers_of_old_tasks_have_nothing_to_see(tmp_path: Path) -> None:
    hooks = ["csv-logger", {"name": "early-stopping", "task": "one"}, {"name": "early-stopping", "patience": 3}]
    old = train_two(tmp_path / "old", hooks=hooks)
    names = [hook.plain() for hook in add_task(old, THIRD).recipe.hooks]
    assert names == ["csv-logger", {"name": "early-stopping", "patience": 3}]
    assert [hook.plain() for hook in add_task(old, THIRD, finetune=True).recipe.hooks] == hooks
    more = add_task(old, THIRD, hooks=["{name: early-stopping, task: three}"]).recipe.hooks
    assert [hook.plain() for hook in more] == [*names, {"name": "early-stopping", "task": "three"}]


def test_a_scheme_that_lets_the_new_task_change_what_the_old_ones_give_is_refused(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old", sharing=f"{HERE}:Counting")
    result = mtframe("add-task", old, THIRD)
    assert (result.code, "with this sharing scheme and backbone it changes what one gives" in result.err) == (2, True)
    assert "--finetune" in result.err


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"tasks": ["three"]}, "train.tasks: no task 'three'; the tasks are one, two"),
        ({"tasks": ["one"]}, "train.tasks: 'two' is not trained, so it must come from a run"),
        ({"distil": 1.0}, "train.distil: keeps tasks that are not trained, and all are"),
        ({"tasks": []}, "train.tasks"),
        ({"distil": 0.0}, "train.distil: expected greater than 0"),
    ],
)
def test_recipes_that_train_too_little(train: dict[str, Any], message: str) -> None:
    plain = toy_recipe()
    plain["train"] |= train
    with pytest.raises(RecipeError, match=re.escape(message)):
        Recipe.from_plain(plain).check()


def test_frozen_parts_can_be_named_by_hand(tmp_path: Path) -> None:
    recipe = Recipe.from_plain(toy_recipe(freeze=["sharing.backbone.stem", "heads.one.linear.bias"], steps=3, ema=0.5))
    trainer = Trainer(Assembly(recipe), tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.fit()
    after = weights(tmp_path / "run", "last")
    same_as_before = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
    stem = {name for name in before if name.startswith("sharing.backbone.stem.")}
    assert same_as_before == {*stem, "heads.one.linear.bias", "mean", "std", "_extra_state"}


def test_what_is_frozen_is_not_counted_as_trained(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(toy_recipe() | {"sharing": LAYERS}), encoding="utf-8")
    # Stem: 3·8·9 + 8 and 2·8 of BatchNorm; body: 8·8·9 + 8 + 16, once a task; heads: 8·2 + 2 each.
    whole = 240 + 2 * 600 + 2 * 18
    said = mtframe("init", file, "train.freeze=[sharing.trunk, heads.one]", "--summary")
    assert f"parameters: {whole:,}, of which {whole - 240 - 18:,} are trained" in said.err
    assert "are trained" not in mtframe("init", file, "--summary").err
    for arguments in (("init", file, "--summary"), ("train", file, "--out", tmp_path / "new")):
        result = mtframe(*arguments, "train.freeze=[heads.thre]")
        assert (result.code, "train.freeze: the model has no part 'heads.thre'" in result.err) == (2, True)


STITCHED = ["sharing.columns.one", "sharing.units.0.one", "sharing.units.1.one"]


@pytest.mark.parametrize("images", [None, "one"], ids=["own images", "borrowed images"])
@pytest.mark.parametrize(
    ("sharing", "freeze", "still"),
    [
        ("network", ["sharing", "heads.one"], "'one'"),
        ("network", ["sharing", "heads.one", "losses.one"], "'one'"),
        ("network", ["sharing.backbone.stem", "sharing.backbone.body", "heads.two"], "'two'"),
        (LAYERS, ["sharing.trunk", "sharing.branches.one", "heads.one"], "'one'"),
        (LAYERS, ["sharing.trunk", "heads.one"], None),
        # The column of the other task, which sees its images too, is trained.
        ("cross-stitch", [*STITCHED, "heads.one"], None),
        ("network", ["heads.one", "losses.one"], None),
    ],
)
def test_a_trained_task_has_something_to_train(
    tmp_path: Path, images: str | None, sharing: Any, freeze: list[str], still: str | None
) -> None:
    tasks: dict[str, Any] = {"one": {}, "two": {}}
    plain = toy_recipe(tasks, freeze=freeze, steps=2, schedule="joint" if images else "round-robin")
    if images is not None:
        for field in ("transform", "size", "batch_size"):
            del plain["tasks"]["two"][field]
        plain["tasks"]["two"] |= {"images": images, "dataset": f"{HERE}:Named"}
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(plain | {"sharing": sharing}), encoding="utf-8")
    if still is None:
        done("train", file, "--out", tmp_path / "new")
        return
    result = mtframe("train", file, "--out", tmp_path / "new")
    assert (result.code, f"train.freeze: nothing of {still} is left to train" in result.err) == (2, True), result
    assert not (tmp_path / "new").exists()


def test_a_loss_that_has_parameters_is_something_to_train(tmp_path: Path) -> None:
    plain = toy_recipe(freeze=["sharing", "heads.one"], steps=2, schedule="round-robin")
    plain["tasks"]["one"]["loss"] = f"{HERE}:Scaled"
    Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "new").fit()
    plain["train"]["freeze"].append("losses.one")
    with pytest.raises(RecipeError, match=r"nothing of 'one' is left .* are trained: train\.tasks=\[two\]"):
        Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "not")


def test_old_units_of_cross_stitch_keep_their_numbers(tmp_path: Path) -> None:
    old, new = train_two(tmp_path / "old", sharing="cross-stitch"), tmp_path / "new"
    # Its column is before those of the old tasks.
    done("add-task", old, THIRD.replace("three", "anew"), "train.steps=2", "--out", new)
    theirs, ours = weights(old), weights(new)
    for stage in (0, 1):
        for task in ("one", "two"):
            name = f"sharing.units.{stage}.{task}.weight"
            assert torch.equal(ours[name], torch.cat([torch.zeros(1), theirs[name]]))


def test_a_new_column_of_cross_stitch_begins_as_a_copy(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old", sharing="cross-stitch")
    model, _ = start_model(add_task(old, THIRD), restoring=False)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    model.heads["three"].load_state_dict(model.heads["one"].state_dict())
    given = model.eval()({"three": images}, {"one": "three"})
    assert torch.allclose(given["three"]["logits"], given["one"]["logits"], atol=1e-6)
    # Mixed with its own column in the place of the one that it is a copy of.
    one, three, _two = model.get_parameter("sharing.units.0.three.weight").tolist()
    assert (one, three) == (0, weights(old)["sharing.units.0.one.weight"][0].item())
