"""Sharing schemes on the command line: what they cost beforehand, trainings that stop and go on, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from schemes import SCHEMES

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.recipe import load_recipe
from mtframe.training import Interrupted
from small import Small
from test_trainer import StopAt, make, resumed, trace
from toy import toy_recipe

TASKS = ("faces=face-recognition", "objects=object-detection")


def parts(small: Small) -> tuple[str, ...]:
    return (f"{TASKS[0]}:{small.faces}", f"{TASKS[1]}:{small.objects}", "tasks.faces.size=64", "tasks.objects.size=64",
            "backbone.pretrained=false", "tasks.faces.head.dim=16", "-b", "timm/test_resnet")  # fmt: skip


def test_init_says_what_a_model_costs_beside_the_recipe(small: Small, here: Path) -> None:
    result = mtframe("init", *parts(small), "--summary")
    assert result.code == 0
    Path("recipe.yaml").write_text(result.out, encoding="utf-8")
    assert load_recipe("recipe.yaml").check()
    table, passes, text = result.err.split("\n\n")
    head, faces, objects = (line.split("  ") for line in table.splitlines())
    assert [cell.strip() for cell in head if cell] == [
        "TASK", "PIXELS", "SHARED", "OWN", "HEAD", "PARAMETERS"
    ]  # fmt: skip
    # A picture passes once for each input: faces are cropped and looked at with their mirror image, scenes are fitted.
    of_pass = [[cell.strip() for cell in line.split("  ") if cell] for line in passes.splitlines()]
    assert [cells[:3] for cells in of_pass] == [
        ["PASS FOR", "PIXELS", "IMAGES"],
        ["faces", "64", "2 (with the mirror image)"],
        ["objects", "64", "1"],
    ]
    rows = {cells[0]: [cell.strip() for cell in cells if cell] for cells in (faces, objects)}
    shared = sum(p.numel() for p in Assembly(load_recipe("recipe.yaml")).model().sharing.parameters())
    assert rows["faces"][1:4] == ["64", f"{shared:,}", "0"]
    numbers = {task: [int(cell.replace(",", "")) for cell in cells[2:6]] for task, cells in rows.items()}
    assert all(shared + own + of_head == total for shared, own, of_head, total in numbers.values())
    heads = sum(cells[2] for cells in numbers.values())
    first, second, third = text.splitlines()
    assert first == f"parameters: {shared + heads:,}; separate models have {2 * shared + heads:,}"
    assert second.startswith("predicting a picture takes ")
    # Three people and 16 numbers each.
    assert third == "losses have 48 parameters more, which only training needs"


def test_a_recipe_is_printed_with_overrides_and_its_cost(small: Small, here: Path) -> None:
    Path("recipe.yaml").write_text(mtframe("init", *parts(small)).out, encoding="utf-8")
    frozen = mtframe("init", "recipe.yaml", "sharing={name: film, trunk: frozen}", "train.epochs=3", "--summary")
    assert frozen.code == 0
    Path("other.yaml").write_text(frozen.out, encoding="utf-8")
    recipe = load_recipe("other.yaml")
    assert (recipe.sharing.name, recipe.sharing.options, recipe.train.epochs) == ("film", {"trunk": "frozen"}, 3)
    assert ", of which " in frozen.err
    without = mtframe("init", "recipe.yaml", "sharing=mtan")
    assert (without.code, without.err) == (0, "")


def test_sharing_is_no_task(here: Path) -> None:
    result = mtframe("init", *TASKS, "sharing=mtan", "balancer=pcgrad", "-b", "timm/resnet18")
    assert (result.code, result.err) == (0, "")
    assert "sharing: mtan\nbalancer: pcgrad\n" in result.out


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ((*TASKS,), "expected -b BACKBONE beside tasks, as in -b timm/resnet18; or a recipe file in place of both"),
        (
            ("recipe.yaml", "sharing=mtan", "-b", "timm/resnet18"),
            "'recipe.yaml' beside -b: expected tasks, as in faces=face-recognition. A recipe file takes the place of "
            "both; its backbone is changed with backbone.name=timm/resnet18",
        ),
        (("nowhere.yaml",), "nowhere.yaml: cannot read the recipe: No such file"),
        ((*TASKS, "sharing=mtann", "-b", "timm/resnet18"), "did you mean 'mtan'?"),
        ((*TASKS, "sharing={name: mmoe, expert: 2}", "-b", "timm/resnet18"), "did you mean 'experts'?"),
        ((*TASKS, "sharing={name: adapters, trunk: freeze}", "-b", "timm/resnet18"), "sharing.trunk: "),
    ],
)
def test_mistakes_are_one_message(here: Path, call: tuple[str, ...], said: str) -> None:
    result = mtframe("init", *call)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert said in result.err


def test_a_summary_without_data_says_that_it_needs_them(here: Path) -> None:
    result = mtframe("init", *TASKS, "-b", "timm/resnet18", "--summary")
    assert result.code == 2
    assert "tasks.faces.dataset" in result.err
    assert result.err.endswith("--summary builds the model, for which the training data has to be there: it says how "
                               "many classes there are\n")  # fmt: skip
    # The recipe is there all the same.
    Path("recipe.yaml").write_text(result.out, encoding="utf-8")
    assert load_recipe("recipe.yaml").tasks


def test_a_backbone_that_cannot_be_cut_is_refused_in_its_place(small: Small, here: Path) -> None:
    result = mtframe("train", *small.parts, "sharing={name: cross-stitch}", "backbone.name=torchvision/efficientnet_b0")
    assert result.code == 2
    assert result.err.startswith("error: sharing: the backbone cannot be cut behind 'network.features.2.1.")
    assert list(here.iterdir()) == []


# What `network` and `adapters` do beyond these, others' tests do.
@pytest.mark.parametrize("name", ["layers", "cross-stitch", "mtan", "film", "mmoe"])
def test_a_training_that_stopped_goes_on_as_if_it_had_not(name: str, tmp_path: Path) -> None:
    """Tasks of two sizes in bf16 with averaged weights and a balancer of gradients; then it is loaded and evaluated."""
    recipe = toy_recipe({"one": {}, "two": {}, "three": {"size": 48}}, steps=4, precision="bf16", ema=0.9)
    recipe |= {"sharing": {"name": name, **SCHEMES[name][1]}, "balancer": "upgrad"}
    scores = make(tmp_path / "whole", recipe).fit()
    stopped = make(tmp_path / "stopped", recipe)
    StopAt(stopped, 2)
    with pytest.raises(Interrupted):
        stopped.fit()
    resumed(tmp_path / "stopped").fit()
    assert trace(tmp_path / "stopped") == trace(tmp_path / "whole")
    assert "backward pass a task" not in (tmp_path / "whole" / "log.txt").read_text(encoding="utf-8")
    result = mtframe("evaluate", tmp_path / "whole", "--checkpoint", "last", "--json")
    assert (result.code, result.err) == (0, "")
    for task, score in scores.items():
        assert json.loads(result.out)[task]["accuracy"] == score.score
