"""The working commands end to end, on a few synthetic pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from command import mtframe
from mtframe.cli import demo
from mtframe.errors import RecipeError
from mtframe.recipe import Choice, load_recipe
from small import Small

HERE = Path(__file__).resolve()
AP = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_synthesize_makes_data_that_check_finds_whole(here: Path) -> None:
    sizes = ("people=2", "images=2", "test_people=2", "pairs=2", "size=32", "workers=1")
    made = mtframe("data", "synthesize", "lfw", "people", *sizes)
    assert made.code == 0, made
    assert made.out == "people: 2, test people: 2, images: 8, pairs: 4\nmade lfw in people\n"
    checked = mtframe("data", "check", "lfw", "people")
    assert (checked.code, checked.err) == (0, "")
    lines = checked.out.splitlines()
    # View 2 is not synthesized, and that is no fault of the data.
    assert lines[-1].startswith("test: not there (")
    assert lines[0].split() == ["lfw:", "identity", "train", "val"]
    images, people = ([line.split() for line in lines if line.startswith(name)] for name in ("images", "people"))
    assert images in [[["images", "4", val]] for val in "234"]
    assert people == [["people", "2", "2"]]
    again = mtframe("data", "synthesize", "coco", "scenes", "train=2", "val=1", "size=64", "workers=1", "seed=3")
    assert again.code == 0, again
    assert again.out.endswith("categories: 8\nmade coco in scenes\n")
    checked = mtframe("data", "check", "coco", "scenes")
    assert (checked.code, checked.err) == (0, "")
    assert [line.split() for line in checked.out.splitlines()[:3]] == [
        ["coco:", "boxes,", "320", "pixels", "(object-detection)", "train", "val"],
        ["images", "2", "1"],
        ["that", "cannot", "be", "read", "0", "0"],
    ]
    assert mtframe("data", "check", "coco", "scenes", "-j", "2") == checked


@pytest.mark.parametrize(("name", "sides"), [("lfw", (3 * 168 + 8, 188 + 8)), ("coco", (3 * 348 + 8, 368 + 8))])
def test_preview_draws_augmented_training_images(here: Path, small: Small, name: str, sides: tuple[int, int]) -> None:
    root = small.faces if name == "lfw" else small.objects
    result = mtframe("data", "preview", name, root, "size=64", "--images", "3", "--out", "seen/sheet.png")
    assert (result.code, result.out, result.err) == (0, "wrote seen/sheet.png\n", "")
    assert size_of("seen/sheet.png") == sides


def test_a_training_says_what_it_does_and_prints_every_metric(small_run: Path) -> None:
    said = (small_run / "said.txt").read_text(encoding="utf-8")
    assert said.startswith("training faces (9 images), objects (4 images) on ")
    assert f" for 2 steps into {small_run}\n" in said
    for metric in ("accuracy", "accuracy_se", "auc", "eer", *AP):
        assert metric in said, said
    assert said.endswith(f"run: {small_run}\n")
    names = {"recipe.yaml", "environment.json", "labels.json", "metrics.csv", "metrics.json", "log.txt", "checkpoints"}
    assert names <= {path.name for path in small_run.iterdir()}


def test_a_run_keeps_a_recipe_that_trains_again(small_run: Path, here: Path) -> None:
    recipe = load_recipe(small_run / "recipe.yaml")
    assert recipe.backbone.plain() == {"name": "timm/test_resnet.r160_in1k", "pretrained": False}
    assert recipe.tasks["faces"].head.options == {"dim": 16}
    result = mtframe("train", small_run / "recipe.yaml", "train.steps=1", "train.evaluate_every=null")
    assert result.code == 0, result
    assert result.out.endswith("run: runs/recipe\n")
    # The next one does not replace it.
    result = mtframe("train", small_run / "recipe.yaml", "train.steps=1")
    assert result.out.endswith("run: runs/recipe-2\n")


def test_evaluate_gives_again_what_training_found(small_run: Path) -> None:
    history = json.loads((small_run / "metrics.json").read_text(encoding="utf-8"))
    result = mtframe("evaluate", small_run, "--checkpoint", "last", "--json")
    # Notes go to the standard error.
    assert (result.code, {line.partition(":")[0] for line in result.err.splitlines()}) == (0, {"faces", "objects"})
    values = json.loads(result.out)
    assert list(values) == ["faces", "objects"]
    assert list(values["objects"]) == AP
    for task, named in history["evaluations"][-1]["tasks"].items():
        # And what the threshold that was kept does.
        again = {name: value for name, value in values[task].items() if not name.endswith("@kept")}
        assert again == pytest.approx(named, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(("precision", "workers"), [("bf16", 0), ("fp32", 2)])
def test_the_score_at_the_end_of_training_is_that_of_evaluate(
    small: Small, here: Path, precision: str, workers: int
) -> None:
    # Without a threshold every one of a thousand boxes counts: a bit that differs changes their order, and the score.
    head = "{name: dense, width: 16, depth: 1, score_threshold: 0, max_detections: 1000}"
    changes = [
        f"tasks.objects.head={head}", "backbone.frozen_stages=1", "tasks.objects.size=96", "tasks.objects.batch_size=2",
        "tasks.objects.transform.mosaic=0.5",
        f"train={{steps: 6, ema: 0.5, precision: {precision}, workers: {workers}, device: cpu, evaluate_every: null}}",
    ]  # fmt: skip
    parts = ("-b", "timm/test_resnet", "-t", f"objects=object-detection:{small.objects}", "backbone.pretrained=false")
    assert mtframe("train", *parts, *changes, "--out", "run").code == 0
    (last,) = json.loads(Path("run/metrics.json").read_text(encoding="utf-8"))["evaluations"]
    assert last["tasks"]["objects"]["AP"] > 0
    for checkpoint in ("best", "last"):
        result = mtframe("evaluate", "run", "--checkpoint", checkpoint, "--json", f"train.workers={2 - workers}")
        assert json.loads(result.out) == last["tasks"], result


def test_evaluate_one_task_as_a_table(small_run: Path) -> None:
    result = mtframe("evaluate", small_run, "-t", "objects")
    assert (result.code, result.err) == (0, "")
    rows = [line.split() for line in result.out.splitlines() if line.strip()]
    assert rows[0] == ["task", "metric", "score"]
    assert [row[-2] for row in rows if row[-2:][0] in AP] == AP
    # No object of 64 x 64 pixels is above 96².
    assert ["APl", "n/a"] in rows
    assert "faces" not in result.out


def test_evaluate_on_other_data(small_run: Path, small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.objects, tmp_path / "moved")
    changed = f"tasks.objects.dataset.root={tmp_path / 'moved'}"
    here, moved = (mtframe("evaluate", small_run, "-t", "objects", "--json", *more) for more in ((), (changed,)))
    assert moved.code == 0, moved
    assert moved.out == here.out


def test_predict_a_folder(small_run: Path, small: Small, here: Path) -> None:
    shutil.copytree(small.objects / "val2017", "pictures")
    result = mtframe("predict", small_run, "pictures", "--out", "seen", "--json")
    assert (result.code, result.err) == (0, "")
    described = json.loads(result.out)
    names = sorted(path.name for path in Path("pictures").iterdir())
    assert [entry["source"] for entry in described] == [f"pictures/{name}" for name in names]
    for entry in described:
        assert entry["size"] == [64, 64]
        assert len(entry["tasks"]["faces"]["embedding"]) == 16
        assert {"label", "score", "box"} == {key for found in entry["tasks"]["objects"] for key in found}
    stems = [Path(name).stem for name in names]
    assert sorted(path.name for path in Path("seen").iterdir()) == [*(f"{s}.jpg" for s in stems), "faces_similar.jpg"]
    assert [entry["picture"] for entry in described] == [f"seen/{stem}.jpg" for stem in stems]
    result = mtframe("predict", small_run, f"pictures/{names[0]}", "-t", "objects", "--out", "seen")
    assert result.out == f"wrote seen/{stems[0]}.jpg\n"


def test_demo_makes_trains_evaluates_and_draws(here: Path, small: Small) -> None:
    shutil.copytree(small.faces, "made/faces")
    shutil.copytree(small.objects, "made/objects")
    result = mtframe("demo", "--data", "made", "backbone.name=timm/test_resnet.r160_in1k", "tasks.faces.batch_size=2",
                     "tasks.objects.batch_size=2", "tasks.objects.head.width=32", "train.steps=2",
                     "train.workers=0")  # fmt: skip
    assert (result.code, result.err) == (0, ""), result
    assert "using faces in made/faces, which is there already" in result.out
    pictures = re.findall(r"^picture: (.*)$", result.out, flags=re.MULTILINE)
    # What there is to learn from is shown before the training, which takes a while.
    made = ["made/faces.png", "made/objects.png"]
    assert pictures == [*made, "runs/demo/pictures/faces.png", "runs/demo/pictures/objects.png"]
    assert result.out.index(f"picture: {made[1]}") < result.out.index("AP50")
    assert all(min(size_of(picture)) > 200 for picture in pictures)
    # The table after training, and that of the checkpoint loaded again.
    assert result.out.count("AP50") == 2
    assert re.search(r"^done in \d+ s$", result.out, flags=re.MULTILINE)


class Rendered:
    """A data set of one file, which it can make."""

    def __init__(self, split: str, *, root: Path) -> None:
        if not (root / f"{split}.txt").is_file():
            raise RecipeError(f"no {split}")

    @staticmethod
    def synthesize(root: Path) -> dict[str, int]:
        root.mkdir()
        (root / "train.txt").touch()
        (root / "val.txt").touch()
        return {"small_files": 2}


def test_demo_makes_data_once(here: Path) -> None:
    choice = Choice(name=f"{HERE}:Rendered", options={"root": "made"})
    assert demo._prepare("faces", choice) == "made faces in made: 2 small files (0 s)"
    assert demo._prepare("faces", choice).startswith("using faces in made, which is there already; remove it")


@pytest.mark.parametrize("command", ["train", "evaluate", "demo", "data check"])
def test_usage_shows_what_may_be_repeated(command: str) -> None:
    usage = mtframe(*command.split(), "--help").out.partition("Options")[0]
    assert "KEY=VALUE]..." in usage
    assert "[[" not in usage
