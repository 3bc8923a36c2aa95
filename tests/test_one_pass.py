"""Tasks that look at one input: the backbone runs once for all of them, and an image is read once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.inference import Predictor
from mtframe.recipe import Recipe
from mtframe_classification.csv_images import CsvImages
from mtframe_detection.coco import Coco
from small import Small
from toy import toy_recipe

TOY = str(Path(__file__).with_name("toy.py").resolve())

# By task on the pictures of `objects`; `tall` has one of the three validation pictures only.
LENT: dict[str, dict[str, Any]] = {
    "shape": {
        "dataset": {"name": "csv", "label": "shape"}, "head": "classifier", "loss": "cross-entropy",
        "metrics": ["classification"],
    },
    "tall": {
        "dataset": {"name": "csv", "values": ["height"]}, "head": "regressor", "loss": "regression",
        "metrics": ["regression"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's layout of four training and three validation pictures, with a table that says more of some of them."""
    root = tmp_path_factory.mktemp("one_pass") / "objects"
    shutil.copytree(small.objects, root)
    rows = ["file,split,shape,height"]
    for split in ("train", "val"):
        for number, file in enumerate(sorted((root / f"{split}2017").iterdir())):
            shape = ("round", "square")[number % 2]
            height = number / 4 if split == "train" or number == 1 else ""
            rows.append(f"{split}2017/{file.name},{split},{shape},{height}")
    (root / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


def plain_recipe(root: Path, lent: Sequence[str], **objects: Any) -> dict[str, Any]:
    plain = toy_recipe({})
    plain["tasks"] = {
        "objects": {
            "dataset": {"name": "coco", "root": str(root)}, "transform": "letterbox", "loss": "detection",
            "head": {"name": "dense", "width": 16, "depth": 1, "score_threshold": 0.0, "max_detections": 5},
            "metrics": ["coco-ap"], "size": 64, "batch_size": 2, **objects,
        },
    }  # fmt: skip
    for task in lent:
        part = LENT[task]
        plain["tasks"][task] = {**part, "dataset": {**part["dataset"], "root": str(root)}, "images": "objects"}
    return plain


def recipe_of(root: Path, lent: Sequence[str], **objects: Any) -> Recipe:
    return Recipe.from_plain(plain_recipe(root, lent, **objects))


def predictor_of(recipe: Recipe) -> Predictor:
    torch.manual_seed(0)
    assembly = Assembly(recipe.check())
    return Predictor(assembly, assembly.model(), torch.device("cpu"))


def passes_of(predictor: Predictor) -> list[tuple[int, int]]:
    """Images and side of each call of the backbone from here on."""
    calls: list[tuple[int, int]] = []

    def count(module: Any, inputs: tuple[Tensor, ...]) -> None:
        calls.append((len(inputs[0]), inputs[0].shape[-1]))

    predictor.model.sharing.backbone.register_forward_pre_hook(count)
    return calls


def same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-5, rtol=1e-5)


views = pytest.mark.parametrize(
    ("flip", "scales"), [(False, [1.0]), (True, [1.0]), (False, [1.0, 1.5]), (True, [0.5, 1.0, 1.5])]
)
tasks = pytest.mark.parametrize("lent", [["shape"], ["shape", "tall"]], ids=["2 tasks", "3 tasks"])


@tasks
@views
def test_predicting_is_one_call_a_scale_and_says_what_each_task_says_alone(
    pictures: Path, lent: list[str], flip: bool, scales: list[float]
) -> None:
    predictor = predictor_of(recipe_of(pictures, lent, flip_test=flip, test_scales=scales))
    calls = passes_of(predictor)
    files = sorted((pictures / "val2017").iterdir())
    found = predictor.predict(files[0])
    sides = [round(64 * scale) for scale in scales]
    assert calls == [(1 + flip, side) for side in sides]
    assert list(found) == ["objects", *lent]
    for task in found:
        same(predictor.predict(files[0], [task])[task], found[task])

    calls.clear()
    many = list(predictor.predict_many(files, batch_size=2))
    assert calls == [(count * (1 + flip), side) for count in (2, 1) for side in sides]
    for file, said in zip(files, many, strict=True):
        alone = predictor.predict(file)
        assert said.keys() == alone.keys()
        for task in said:
            same(said[task], alone[task])


@tasks
@views
def test_evaluating_is_one_call_a_batch_and_a_scale_and_scores_what_each_task_scores_alone(
    pictures: Path, lent: list[str], flip: bool, scales: list[float], reads: Callable[[], dict[str, int]]
) -> None:
    predictor = predictor_of(recipe_of(pictures, lent, flip_test=flip, test_scales=scales))
    calls = passes_of(predictor)
    together = predictor.evaluate_many()
    sides = [round(64 * scale) for scale in scales]
    assert calls == [(count * (1 + flip), side) for count in (2, 1) for side in sides]
    assert reads() == {"coco": 3, "csv": 0}
    assert {task: result.images for task, result in together.items()} == {
        "objects": 3, "shape": 3, **({"tall": 1} if "tall" in lent else {})
    }  # fmt: skip
    for task, result in together.items():
        alone = predictor.evaluate(task)
        assert alone.images == result.images
        assert alone.values == pytest.approx(result.values, abs=1e-5, nan_ok=True)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, int]]:
    """How many images data sets have read since the test began."""
    counts = {"coco": 0, "csv": 0}

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def read(self: Any, index: int) -> Any:
            counts[name] += 1
            return real(self, index)

        return read

    monkeypatch.setattr(Coco, "__getitem__", counted("coco", Coco.__getitem__))
    monkeypatch.setattr(CsvImages, "__getitem__", counted("csv", CsvImages.__getitem__))
    return lambda: dict(counts)


def test_a_part_of_the_images_is_scored_on_itself_whoever_reads_them(
    pictures: Path, reads: Callable[[], dict[str, int]]
) -> None:
    predictor = predictor_of(recipe_of(pictures, ["shape", "tall"]))
    # Without the task that has them all, the next larger one reads, and the smaller is within it.
    results = predictor.evaluate_many(["tall", "shape"])
    assert reads() == {"coco": 0, "csv": 3}
    assert list(results) == ["tall", "shape"]
    assert [result.images for result in results.values()] == [1, 3]
    # By itself it reads its own image only.
    alone = predictor.evaluate("tall")
    assert reads() == {"coco": 0, "csv": 4}
    assert alone.values == pytest.approx(results["tall"].values, abs=1e-5, nan_ok=True)


def test_an_unreadable_image_is_missed_by_those_that_have_it(pictures: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(pictures, tmp_path / "broken"))
    first = min((root / "val2017").iterdir())
    first.write_bytes(first.read_bytes()[:99])
    plain = plain_recipe(root, ["shape", "tall"])
    plain["train"]["max_unreadable"] = 1
    results = predictor_of(Recipe.from_plain(plain)).evaluate_many()
    assert {task: (result.images, len(result.skipped)) for task, result in results.items()} == {
        "objects": (2, 1), "shape": (2, 1), "tall": (1, 0)
    }  # fmt: skip
    assert first.name in results["shape"].skipped[0]


def test_files_of_one_name_in_two_folders_are_two_images(
    pictures: Path, tmp_path: Path, reads: Callable[[], dict[str, int]]
) -> None:
    """Equal transforms share a pass in prediction; in evaluation each task reads its own pictures."""
    other = Path(shutil.copytree(pictures, tmp_path / "other"))
    for file in (other / "val2017").iterdir():
        Image.new("RGB", (64, 64), (255, 0, 0)).save(file)
    plain = plain_recipe(pictures, [])
    plain["tasks"]["shape"] = {
        **LENT["shape"], "dataset": {"name": "csv", "label": "shape", "root": str(other)}, "transform": "letterbox",
        "size": 64, "batch_size": 2,
    }  # fmt: skip
    predictor = predictor_of(Recipe.from_plain(plain))
    calls = passes_of(predictor)
    predictor.predict(next((pictures / "val2017").iterdir()))
    assert calls == [(1, 64)]
    results = predictor.evaluate_many()
    assert reads() == {"coco": 3, "csv": 3}
    red = predictor.predict(next((other / "val2017").iterdir()), ["shape"])["shape"]["probabilities"]
    likelihoods = [-red[number % 2].log().item() for number in range(3)]
    assert results["shape"].values["nll"] == pytest.approx(sum(likelihoods) / 3, abs=1e-4)


def two_toys(**one: Any) -> Predictor:
    """Two tasks with pictures and inputs of one size of their own, which share a pass."""
    plain = toy_recipe({"one": one, "two": {"transform": {"name": f"{TOY}:ToyTransform", "fixed": True}}})
    plain["backbone"] = f"{TOY}:ToyBackbone"
    return predictor_of(Recipe.from_plain(plain))


def grey(side: int = 16) -> Tensor:
    return torch.randint(0, 255, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ([1.0, 2.0], [(1, 64), (2, 32)]), ([2.0, 1.0], [(1, 64), (2, 32)]), ([2.0], [(1, 32), (1, 64)]),
        # The least size is 32.
        ([0.1, 3.0], [(1, 96), (2, 32)]),
    ],
)  # fmt: skip
def test_tasks_of_one_size_may_look_at_different_scales(scales: list[float], expected: list[tuple[int, int]]) -> None:
    """What goes through in one call has one size, whichever of its views a task is at."""
    predictor = two_toys(test_scales=scales)
    assert predictor.assembly.input_groups() == (("one",), ("two",))
    calls = passes_of(predictor)
    found = predictor.predict(grey())
    assert sorted(calls) == expected
    for task in found:
        same(predictor.predict(grey(), [task])[task], found[task])


def test_of_tasks_on_one_input_only_those_look_at_the_mirror_image_that_want_it() -> None:
    plain = toy_recipe({"one": {"flip_test": True}, "two": {}})
    predictor = predictor_of(Recipe.from_plain(plain))
    assert predictor.assembly.input_groups() == (("one", "two"),)
    calls = passes_of(predictor)
    found = predictor.predict(grey())
    # What both look at, then the mirror image.
    assert calls == [(1, 32), (1, 32)]
    for task in found:
        same(predictor.predict(grey(), [task])[task], found[task])
