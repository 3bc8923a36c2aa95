"""Every mistake is one message that says what to do, with the right exit code, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from command import Result, mtframe
from full_disk import fill
from mtframe.yaml import dump_yaml, parse_yaml
from small import Small
from test_images import png_header

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failed(result: Result, code: int, *said: str) -> None:
    """It ended with the code and one message that says all of this."""
    assert result.code == code, result
    assert result.err.startswith("error: "), result
    assert result.err.count("error:") == 1
    assert "Traceback" not in result.out + result.err
    assert "object at 0x" not in result.err
    for part in said:
        assert part in result.err, f"{part!r} is not in:\n{result.err}"


FACES = ("-t", "faces=face-recognition:{faces}")
WRONG_CALLS = {
    "backbone": (("-b", "timm/resnet81", *FACES), ["resnet81", "did you mean"]),
    "family": (("-b", "tim/resnet18", *FACES), ["backbone: no backbone 'tim/resnet18'", "did you mean 'timm"]),
    "preset": (
        ("-b", "timm/resnet18", "-t", "faces=face-recogniton:{faces}"),
        ["tasks.faces.preset: no preset 'face-recogniton'; did you mean 'face-recognition'?"],
    ),
    "no preset": (("-b", "timm/resnet18", "-t", "faces"), ["'faces': expected NAME=PRESET:ROOT"]),
    "key": (("-b", "timm/resnet18", *FACES, "train.step=2"), ["train.step: unknown option; did you mean 'steps'?"]),
    "option": (
        ("-b", "timm/resnet18", *FACES, "tasks.faces.loss.margn=1"),
        ["tasks.faces.loss.margn: unknown option; did you mean 'margin'?"],
    ),
    "task": (
        ("-b", "timm/resnet18", *FACES, "tasks.face.size=64"),
        ["override 'tasks.face.size=64': no task 'face'; did you mean 'faces'?"],
    ),
    "part": (
        ("-b", "timm/resnet18", *FACES, "tasks.faces.head=embeding"),
        ["tasks.faces.head: no head 'embeding'; did you mean 'embedding'?"],
    ),
    "type": (("-b", "timm/resnet18", *FACES, "train.lr=fast"), ["train.lr: expected a valid number, got 'fast'"]),
    "no value": (("-b", "timm/resnet18", *FACES, "train.lr"), ["'train.lr' beside -b and -t: expected key=value"]),
    "several": (
        ("-b", "timm/resnet18", *FACES, "train.step=2", "tasks.faces.sise=3"),
        ["train.step: unknown option", "tasks.faces.sise: unknown option; did you mean 'size'?"],
    ),
    "faces root": (
        ("-b", "timm/test_resnet.r160_in1k", "-t", "faces=face-recognition:nowhere", "backbone.pretrained=false"),
        ["tasks.faces.dataset.root: no folder 'nowhere'", "mtframe data download lfw nowhere"],
    ),
    "objects root": (
        ("-b", "timm/test_resnet.r160_in1k", "-t", "objects=object-detection:nowhere", "backbone.pretrained=false"),
        ["tasks.objects.dataset.root: no folder 'nowhere'", "mtframe data download coco nowhere"],
    ),
    "head does not fit": (
        ("-b", "timm/resnet18", *FACES, "tasks.faces.head=dense"),
        ["tasks.faces.head: head 'dense' works on targets of kind 'boxes'", "'lfw' gives 'identity'", "embedding"],
    ),
    "data does not fit": (
        ("-b", "timm/resnet18", "-t", "objects=object-detection:{faces}", "tasks.objects.dataset.name=lfw"),
        ["tasks.objects.head: head 'dense'", "but the data set 'lfw' gives 'identity'", "tasks.objects.loss"],
    ),
    "recipe and parts": (
        ("recipe.yaml", "-b", "timm/resnet18", *FACES),
        ["'recipe.yaml' beside -b and -t", "A recipe file takes their place"],
    ),
    "no file": (("recipe.yaml",), ["recipe.yaml: cannot read the recipe: No such file or directory"]),
    "nothing": ((), ["expected a recipe file, or -b BACKBONE and at least one -t NAME=PRESET:ROOT"]),
    "resume and more": (("--resume", "run", "recipe.yaml"), ["--resume RUN goes on with that run's own recipe"]),
    "resume nothing": (("--resume", "run"), ["run: no such folder. A run is what 'mtframe train' writes"]),
}


@pytest.mark.parametrize("mistake", WRONG_CALLS)
def test_a_wrong_call_of_train(here: Path, small: Small, mistake: str) -> None:
    arguments, said = WRONG_CALLS[mistake]
    failed(mtframe("train", *(argument.format(faces=small.faces) for argument in arguments)), 2, *said)
    assert list(here.iterdir()) == []


WRONG_PARTS = {
    "backbone": "it has no features, stages, mean, std",
    "balancer": "it has no __call__",
    "tasks.faces.head": "it has no predict, __call__",
    "tasks.faces.metrics": "it has no primary",
}


@pytest.mark.parametrize("place", WRONG_PARTS)
def test_a_class_that_is_no_such_part(here: Path, small: Small, place: str) -> None:
    Path("parts.py").write_text("class Foo:\n    target = 'identity'\n", encoding="utf-8")
    result = mtframe("train", "-b", "timm/test_resnet.r160_in1k", "-t", f"faces=face-recognition:{small.faces}",
                     "backbone.pretrained=false", f"{place}=./parts.py:Foo")  # fmt: skip
    failed(result, 2, place, "parts.py:Foo' is no", WRONG_PARTS[place], "mtframe.kinds")
    assert [path.name for path in here.iterdir()] == ["parts.py"]


def test_a_root_that_is_not_given_is_asked_for_with_the_command_that_fetches_it(here: Path) -> None:
    result = mtframe("train", "-b", "timm/resnet18", "-t", "faces=face-recognition")
    failed(result, 2, "tasks.faces.dataset.root: required. Name its folder, as in -t NAME=PRESET:ROOT",
           "mtframe data download lfw data/lfw")  # fmt: skip


WRONG_RECIPES = {
    "list": (b"- timm/resnet18\n", "expected keys such as 'backbone' and 'tasks'"),
    "nothing": (b"", "got nothing"),
    "not yaml": (b"backbone: {name: timm/resnet18\ntasks:\n", "recipe.yaml, line 2"),
    "twice": (b"backbone: a\nbackbone: b\n", "line 2: duplicate key 'backbone', already given in line 1"),
    "binary": (b"\x89PNG\r\n\xff\xfe", "not a text file"),
    "no tasks": (b"backbone: timm/resnet18\n", "tasks: required"),
    "key": (b"backbone: timm/resnet18\ntask: {}\n", "task: unknown option; did you mean 'tasks'?"),
}


@pytest.mark.parametrize("mistake", WRONG_RECIPES)
def test_a_wrong_recipe(here: Path, mistake: str) -> None:
    content, said = WRONG_RECIPES[mistake]
    Path("recipe.yaml").write_bytes(content)
    failed(mtframe("train", "recipe.yaml"), 2, "recipe.yaml", said)
    assert [path.name for path in here.iterdir()] == ["recipe.yaml"]


def test_a_folder_is_no_recipe(here: Path) -> None:
    failed(mtframe("train", "."), 2, "cannot read the recipe: Is a directory")


@pytest.mark.parametrize("command", [("evaluate",), ("train", "--resume"), ("predict", None, "a.jpg")])
def test_a_folder_that_is_no_run(here: Path, command: tuple[str | None, ...]) -> None:
    (here / "notes").mkdir()
    for run, why in (("notes", "no recipe.yaml in it, so it is no run"), ("nowhere", "no such folder")):
        arguments = [part if part is not None else run for part in command]
        failed(mtframe(*arguments, *(() if None in command else (run,))), 2, f"{run}: {why}. A run is what 'mtframe")


WRONG_USE = {
    "task": (("evaluate", "{run}", "-t", "face"), 2, "-t face: no such task; the tasks of this run are faces, objects"),
    "split": (("evaluate", "{run}", "-t", "objects", "--split", "test"), 2, "coco: no split 'test'"),
    "checkpoint": (("evaluate", "{run}", "--checkpoint", "first"), 1, "there are best, best_faces, best_objects, last"),
    "key": (("evaluate", "{run}", "train.stepps=3"), 2, "train.stepps: unknown option; did you mean 'steps'?"),
    "root": (("evaluate", "{run}", "tasks.faces.dataset.root=nowhere"), 2, "mtframe data download lfw nowhere"),
    "head": (("evaluate", "{run}", "tasks.faces.head.dim=8"), 1, "a checkpoint of another architecture"),
    "no source": (("predict", "{run}", "nowhere.jpg"), 2, "nowhere.jpg: no such file or folder"),
    "no image": (("predict", "{run}", "."), 2, "no image and no film in this folder"),
    "predict task": (("predict", "{run}", "{image}", "-t", "face"), 2, "-t face: no such task"),
    "out is a file": (("predict", "{run}", "{image}", "--out", "{image}"), 2, "cannot be a folder (File exists)"),
    "device": (("predict", "{run}", "{image}", "--device", "gpu"), 2, "'gpu' cannot be used here"),
    "finished": (("train", "--resume", "{run}"), 2, "already trained to its end, step 2 of 2"),
    "data set": (("data", "check", "loo", "."), 2, "no dataset 'loo'"),
    "check option": (("data", "check", "lfw", "{faces}", "min_image=1"), 2, "did you mean 'min_images'?"),
    "check root": (("data", "check", "coco", "nowhere"), 2, "mtframe data download coco nowhere"),
    "check faces root": (("data", "check", "lfw", "nowhere"), 2, "mtframe data download lfw nowhere"),
    "made option": (("data", "synthesize", "lfw", "x", "peple=3"), 2, "did you mean 'people'?"),
    "made number": (("data", "synthesize", "coco", "x", "train=0"), 2, "train=0: expected at least 1"),
    "made over": (("data", "synthesize", "coco", "{faces}"), 2, "expected a new or empty folder"),
    "preview suffix": (("data", "preview", "lfw", "{faces}", "--out", "a.pgn"), 2, "no suffix of a picture file"),
    "preview name": (("data", "preview", "lfv", "{faces}"), 2, "no dataset 'lfv'; did you mean 'lfw'?"),
    "preview option": (("data", "preview", "lfw", "{faces}", "transform.sise=3"), 2, "transform.sise: unknown option"),
    "demo key": (("demo", "train.step=3"), 2, "train.step: unknown option; did you mean 'steps'?"),
    "demo out": (("demo", "--out", "{run}"), 2, "already exists and is not empty"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_USE)
def test_a_wrong_call_of_the_other_commands(here: Path, small: Small, small_run: Path, mistake: str) -> None:
    arguments, code, said = WRONG_USE[mistake]
    image = next(small.objects.glob("val2017/*"))
    before = sorted(small_run.rglob("*"))
    failed(mtframe(*(a.format(run=small_run, faces=small.faces, image=image) for a in arguments)), code, said)
    assert list(here.iterdir()) == []
    assert sorted(small_run.rglob("*")) == before


def test_an_output_folder_that_holds_something_is_left_alone(here: Path, small: Small, small_run: Path) -> None:
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine", encoding="utf-8")
    failed(mtframe("train", *small.parts, "--out", "full"), 2, "--out: full already exists and is not empty")
    assert [path.name for path in Path("full").iterdir()] == ["notes.txt"]
    hint = f"go on with the run in it: mtframe train --resume {shlex.quote(str(small_run))}"
    failed(mtframe("train", *small.parts, "--out", small_run), 2, hint)
    failed(mtframe("train", *small.parts, "--out", "full/notes.txt/run"), 2, "--out: full/notes.txt/run cannot be made")
    assert Path("full/notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_mistake_that_shows_late_leaves_no_run_behind(here: Path, small: Small) -> None:
    failed(mtframe("train", *small.parts, "train.optimizer=adamwww", "--out", "run"), 2, "train.optimizer", "adamwww")
    failed(mtframe("train", *small.parts, "tasks.objects.head.width=0", "--out", "run"), 2, "tasks.objects.head")
    assert list(here.iterdir()) == []


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(small_run, tmp_path / "damaged"))


def edit_recipe(run: Path, change: Callable[[Any], None]) -> None:
    plain = parse_yaml((run / "recipe.yaml").read_text(encoding="utf-8"), "recipe")
    change(plain)
    (run / "recipe.yaml").write_text(dump_yaml(plain), encoding="utf-8")


def test_a_checkpoint_of_another_architecture(run: Path) -> None:
    edit_recipe(run, lambda plain: plain["backbone"].update(name="timm/test_resnet.r160_in1k", pretrained=False))
    assert mtframe("evaluate", run, "-t", "faces", "--json").code == 0
    edit_recipe(run, lambda plain: plain["backbone"].update(name="timm/resnet10t"))
    result = mtframe("evaluate", run)
    failed(result, 1, "best/weights.safetensors: a checkpoint of another architecture", "Use the recipe that")
    # The first differences are named, not hundreds.
    assert len(result.err.splitlines()) <= 8
    edit_recipe(run, lambda plain: plain["backbone"].update(name="timm/resnet81"))
    failed(mtframe("predict", run, run), 2, "backbone: timm has no model 'resnet81'")


def test_damaged_files_of_a_run(run: Path) -> None:
    (run / "checkpoints" / "best" / "weights.safetensors").write_bytes(b"half")
    failed(
        mtframe("evaluate", run), 1, "weights.safetensors: not the file that was saved", "Other checkpoints of this run"
    )
    (run / "labels.json").write_text('{"faces": ', encoding="utf-8")
    failed(mtframe("evaluate", run), 1, "labels.json: cannot be read as the labels of a run")
    (run / "labels.json").unlink()
    failed(mtframe("evaluate", run), 1, "labels.json: cannot be read", "No such file")
    shutil.rmtree(run / "checkpoints")


def test_a_task_that_the_run_was_not_trained_on(run: Path) -> None:
    edit_recipe(run, lambda plain: plain["tasks"].update(more=plain["tasks"]["faces"]))
    failed(mtframe("evaluate", run), 2, "tasks.more: the run was trained without it, on faces, objects")


def test_other_classes_than_those_that_were_learned_are_not_scored(
    small_run: Path, small: Small, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(small.objects, tmp_path / "other"))
    edit_annotations(root, "val", lambda content: content["categories"][1].update(name="zebra"))
    result = mtframe("evaluate", small_run, "-t", "objects", f"tasks.objects.dataset.root={root}")
    failed(result, 1, "coco-ap: this split has 8 classes, the model was trained on 8", "number 1 is 'zebra' here")


def test_unreadable_sources_are_named_and_the_others_predicted(small_run: Path, small: Small, here: Path) -> None:
    good = shutil.copy(next(small.objects.glob("val2017/*")), "good.jpg")
    whole = Path(good).read_bytes()
    Path("cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("page.png").write_text("<html>not found</html>", encoding="utf-8")
    Path("bomb.png").write_bytes(png_header(60_000, 60_000))
    result = mtframe("predict", small_run, ".", "--json", "--out", "seen")
    assert result.code == 1
    assert [entry["source"] for entry in json.loads(result.out)] == ["good.jpg"]
    lines = result.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["skipped bomb.png", "skipped cut.jpg", "skipped page.png"]
    assert "bomb" in lines[0].partition(":")[2]
    assert lines[1].endswith("cannot be decoded (Premature end of JPEG file)")
    assert [path.name for path in Path("seen").iterdir()] == ["good.jpg"]


def edit_annotations(root: Path, split: str, change: Callable[[Any], None]) -> None:
    path = root / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def damaged(small: Small, tmp_path: Path) -> Small:
    """A copy of the data, to be damaged."""
    faces = shutil.copytree(small.faces, tmp_path / "faces")
    return Small(Path(faces), Path(shutil.copytree(small.objects, tmp_path / "objects")))


def first(**values: Any) -> Callable[[Any], None]:
    return lambda content: content["annotations"][0].update(values)


def every(**values: Any) -> Callable[[Any], None]:
    """Of all images: one that is wrong only costs itself."""
    return lambda content: [one.update(values) for one in content["annotations"]]


def without_boxes(content: Any) -> None:
    for one in content["annotations"]:
        one.pop("bbox")


WRONG_ANNOTATIONS: dict[str, tuple[Callable[[Any], None], str]] = {
    "image id": (first(image_id=987654), "image_id is not among the images: 1 (id {id}: 987654)"),
    "category id": (first(category_id=-3), "category_id is not among the categories: 1 (id {id}: -3)"),
    "negative": (every(bbox=[5, 5, -4, 7]), "(id {id}): bbox [5, 5, -4, 7] has a negative side"),
    "nan": (every(bbox=[5, float("nan"), 4, 7]), "(id {id}): bbox [5, nan, 4, 7] is not finite"),
    "text": (every(bbox="5 5 4 7"), "bbox should be four numbers, got '5 5 4 7'"),
    "no box": (without_boxes, "bbox should be four numbers, got nothing"),
    "twice": (lambda content: content["annotations"].append(content["annotations"][0]), "annotations: id stands twice"),
    "image twice": (lambda content: content["images"].append(content["images"][0]), "images: id stands twice: 1"),
    "no images": (lambda content: content.pop("images"), "it has no list of records under images"),
    "path": (
        lambda content: content["images"][0].update(file_name="../../secret.jpg"),
        "file_name entries lead out of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("mistake", WRONG_ANNOTATIONS)
def test_wrong_annotations_stop_before_training(here: Path, damaged: Small, mistake: str, split: str) -> None:
    change, said = WRONG_ANNOTATIONS[mistake]
    said = said.format(id=1 if split == "train" else 500_001)
    edit_annotations(damaged.objects, split, change)
    result = mtframe("train", *damaged.parts, "--out", "run")
    failed(result, 1, "tasks.objects.dataset", f"instances_{split}2017.json", said)
    assert list(here.iterdir()) == []
    checked = mtframe("data", "check", "coco", damaged.objects)
    assert checked.code == 1
    assert said in checked.err


def test_a_truncated_json(here: Path, damaged: Small) -> None:
    path = damaged.objects / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text(encoding="utf-8")[:500], encoding="utf-8")
    failed(mtframe("train", *damaged.parts), 1, "instances_train2017.json: not a json file, perhaps truncated")


def test_a_pairs_file_that_names_absent_images(here: Path, damaged: Small) -> None:
    pairs = damaged.faces / "pairsDevTest.txt"
    person = pairs.read_text(encoding="utf-8").split()[1]
    shutil.rmtree(damaged.faces / "lfw-deepfunneled" / person)
    failed(
        mtframe("train", *damaged.parts),
        1,
        "pairsDevTest.txt: ",
        "pairs would have to be left out",
        "no image number 1",
    )
    pairs.write_text("10\nBorn_Later\t1\n", encoding="utf-8")
    failed(mtframe("train", *damaged.parts), 1, "pairsDevTest.txt: the first line promises", "Is the file complete?")
    assert list(here.iterdir()) == []


def test_unreadable_training_images_are_skipped_up_to_a_limit(here: Path, damaged: Small) -> None:
    broken = sorted(damaged.objects.glob("train2017/*"))[1]
    broken.write_bytes(broken.read_bytes()[:300])
    result = mtframe("train", *damaged.parts, "train.max_unreadable=0", "--out", "strict")
    failed(result, 1, "1 images cannot be read, more than train.max_unreadable=0", f"{broken}: ")
    result = mtframe("train", *damaged.parts, "--out", "lenient")
    assert result.code == 0, result
    assert f"skipped an unreadable image: {broken}: " in Path("lenient/log.txt").read_text(encoding="utf-8")
    checked = mtframe("data", "check", "coco", damaged.objects)
    assert checked.code == 1
    assert "error: coco, train: 1 of 4 images cannot be read" in checked.err
    assert str(broken) in checked.err


def test_unreadable_evaluation_images_are_named_and_not_all_may_be(here: Path, damaged: Small, small_run: Path) -> None:
    files = sorted(damaged.objects.glob("val2017/*"))
    files[0].write_bytes(b"")
    root = f"tasks.objects.dataset.root={damaged.objects}"
    result = mtframe("evaluate", small_run, "-t", "objects", root)
    assert result.code == 0
    assert result.err == f"objects: skipped {files[0]}: is empty\n"
    assert "images skipped (unreadable)" in result.out
    result = mtframe("evaluate", small_run, "-t", "objects", root, "train.max_unreadable=0")
    failed(result, 1, "1 images of val cannot be read, more than train.max_unreadable=0", f"{files[0]}: is empty")
    for file in files:
        file.unlink()
    result = mtframe("evaluate", small_run, "-t", "objects", root)
    failed(result, 1, "none of its 3 images can be read", f"{files[0]}: No such file")


def test_training_is_kept_where_the_evaluation_at_its_end_fails(here: Path, damaged: Small) -> None:
    for file in damaged.objects.glob("val2017/*"):
        file.unlink()
    failed(mtframe("train", *damaged.parts, "--out", "run"), 1, "objects, val: 3 of 3 labelled images are not there")
    allowed = mtframe("train", *damaged.parts, "train.allow=[missing-images]", "--out", "run")
    failed(allowed, 1, "none of its 3 images can be read")
    result = mtframe("evaluate", "run", "-t", "faces", "--json")
    assert (result.code, list(json.loads(result.out))) == (0, ["faces"])


def test_a_loss_that_is_not_finite(here: Path, small: Small) -> None:
    result = mtframe("train", *small.parts, "train.lr=1e30", "train.steps=9", "train.warmup=0", "--out", "run")
    failed(result, 1, "task ", " at step ", "The last checkpoint is run/checkpoints/last", "train.lr")
    assert Path("run/checkpoints/last/weights.safetensors").is_file()
    assert mtframe("evaluate", "run", "-t", "faces", "--json").code == 0


def train_on_a_full_disk(monkeypatch: pytest.MonkeyPatch, *parts: str) -> Result:
    """Trains into `run`, where the rows of losses cannot be written."""
    from mtframe_observers import csv_logger as _csv

    def full(path: Path, row: object) -> None:
        # As it is on a real one: the file is there, and what was written to it is not.
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(_csv, "append_row", full)
        return mtframe("train", *parts, "train.save_every_steps=1", "--out", "run")


def test_a_full_disk_while_training(here: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train_on_a_full_disk(monkeypatch, *small.parts)
    # What cannot be written down is no reason to lose what is learned.
    assert result.code == 0
    assert result.err.startswith("warning: hooks.0 (csv-logger) was disabled: metrics_logged raised OSError: ")
    assert "No space left on device: 'run/metrics.csv'; see run/log.txt" in result.err
    assert result.out.endswith("run: run\n")


def test_a_disk_that_is_full_from_the_start(here: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtframe.run import _folder

    def full(state: Any, path: Path) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 2")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        patch.setattr(_folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        result = mtframe("train", *small.parts, "--out", "run")
    failed(result, 1, "last could not be written (the disk is full); there is none before it",
           "Free some space, remove run, and train again")  # fmt: skip
    assert "--resume" not in result.err


def test_a_log_that_cannot_be_written_is_no_traceback(
    here: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtframe.run import RunFolder

    create = RunFolder.create

    def without_log(run: RunFolder, *arguments: Any) -> RunFolder:
        create(run, *arguments)
        run.log_file = Path("/dev/full")
        return run

    monkeypatch.setattr(RunFolder, "create", without_log)
    result = mtframe("train", *small.parts, "--out", "run")
    assert (result.code, result.err) == (0, "")


def test_a_full_disk_while_saving(here: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = Path.write_bytes, 0

    def full(path: Path, data: bytes) -> int:
        nonlocal count
        count += path.name == "weights.safetensors"
        if count == 2:
            real(path, b"half")
            raise FULL
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        result = mtframe("train", *small.parts, "train.save_every_steps=1", "--out", "run")
    failed(result, 1, "checkpoint run/checkpoints/last could not be written", "No space left", "--resume run")
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["last"]
    assert mtframe("train", "--resume", "run").code == 0


def test_a_full_disk_while_drawing(here: Path, small: Small, small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = next(small.objects.glob("val2017/*"))
    fill(monkeypatch)
    for picture_format in ("jpg", "png"):
        result = mtframe("predict", small_run, image, "--out", "seen", "--format", picture_format)
        failed(result, 1, f"seen/{image.stem}.{picture_format} could not be written (No space left on device)")
    failed(mtframe("data", "preview", "lfw", small.faces, "size=64", "--images", "2"), 1, "preview.png could not be")


def test_a_full_disk_while_making_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The file that says what the folder is gets there.
    fill(monkeypatch, after=1)
    sizes = ("train=1", "val=1", "size=64", "workers=1")
    failed(mtframe("data", "synthesize", "coco", "made", *sizes), 1, "made/train2017", "No space left on device")
    fill(monkeypatch, after=3)
    failed(mtframe("data", "synthesize", "coco", "made", *sizes), 1, "made/annotations/instances_train2017.json",
           "cannot be written (No space left on device); the data is incomplete")  # fmt: skip
    assert not any(Path("made/annotations").iterdir())


def test_going_on_with_other_labels_than_the_run_began_with(
    here: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small.objects, "objects")
    train_on_a_full_disk(monkeypatch, *(part.replace(str(small.objects), "objects") for part in small.parts))
    for file in Path("objects/annotations").iterdir():
        content = json.loads(file.read_text(encoding="utf-8"))
        content["categories"][2]["name"] = "blob"
        file.write_text(json.dumps(content), encoding="utf-8")
    said = "tasks.objects.dataset: the labels of its training data are no longer those that this run began with"
    failed(mtframe("train", "--resume", "run"), 1, said, "then, 'blob' now in its place", "Restore the data")
