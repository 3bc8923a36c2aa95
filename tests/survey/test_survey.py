"""What a survey says of splits beside each other and of labels of every kind, and what a training does with it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command import Result, mtframe
from mtframe._fit import findings_of
from mtframe.assembly import Assembly
from mtframe.data import DataInfo, Sample, read_header, read_image
from mtframe.errors import BadImageError, DataError, PluginError
from mtframe.evaluation import Bars, Curves, Matrix
from mtframe.kinds import Finding, Survey
from mtframe.recipe import Recipe, load_recipe
from mtframe.registry import at_hand
from mtframe.survey import (
    Found,
    Look,
    SplitLook,
    SplitSurvey,
    Surveyed,
    TaskSurvey,
    draw_surveys,
    refuse,
    survey,
    table_of,
)
from mtframe.training import Trainer
from mtframe_classification.image_folder import ImageFolder
from mtframe_classification.targets import Label, Labels, Value
from mtframe_face.identity import Identity
from mtframe_face.identity_folders import IdentityFolders
from mtframe_segmentation.masks import Masks
from mtframe_segmentation.semantic_masks import SemanticMasks
from small import Small


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def lines(result: Result, name: str) -> list[str]:
    return [line for line in (result.out + result.err).splitlines() if line.endswith(f"[{name}]")]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Cats and dogs in folders: 3 and 2 to train, one each to validate."""
    for seed, name in enumerate(
        ["train/cat/a", "train/cat/b", "train/cat/c", "train/dog/a", "train/dog/b", "val/cat/a", "val/dog/a"]
    ):
        picture(tmp_path / "pets" / f"{name}.png", seed)
    return tmp_path / "pets"


def test_the_same_file_in_two_splits(pets: Path) -> None:
    assert mtframe("data", "check", "image-folder", pets).code == 0
    picture(pets / "val" / "dog" / "b.png", 20)
    shutil.copy(pets / "train" / "cat" / "b.png", pets / "val" / "cat" / "other.png")
    checked = mtframe("data", "check", "image-folder", pets)
    assert checked.code == 0
    (line,) = lines(checked, "same-file")
    assert line.startswith("warning: image-folder: 1 of the 4 images of val are in train too, by content")
    assert f"{pets}/train/cat/b.png and {pets}/val/cat/other.png" in line


def test_a_split_that_is_a_copy_of_another(pets: Path) -> None:
    shutil.rmtree(pets / "val")
    shutil.copytree(pets / "train", pets / "val")
    checked = mtframe("data", "check", "image-folder", pets)
    assert checked.code == 1
    (line,) = lines(checked, "same-file")
    assert "5 of the 5 images of val are in train too, by content" in line
    assert "what is meant as it is can be allowed: --allow same-file" in checked.err
    assert mtframe("data", "check", "image-folder", pets, "--allow", "same-file").code == 0
    assert mtframe("data", "check", "image-folder", pets, "--allow", "unreadable").code == 1


def test_a_class_without_any_image_in_one_split(pets: Path) -> None:
    shutil.rmtree(pets / "train" / "dog")
    picture(pets / "train" / "eel" / "a.png", 30)
    checked = mtframe("data", "check", "image-folder", pets, "classes=[cat,eel]")
    assert checked.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in checked.out.splitlines() if line.startswith("  ")}
    assert (rows["cat"], rows["eel"]) == (["3", "1"], ["1", "0"])


class Pets:
    """A data set of one split, in memory."""

    target = "label"
    splits = ("train", "val")
    decode_size = None

    def __init__(self, classes: tuple[str, ...], labels: list[int]) -> None:
        self.info, self.labels = DataInfo("label", classes), labels
        self.omitted = {"hidden files": 2} if "cat" in classes else {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        raise BadImageError(f"{index}.jpg", "is empty")

    def annotated(self, index: int) -> Sample:
        return Sample(torch.empty(0), {"label": torch.tensor(self.labels[index])}, (0, 0), index, str(index))


def test_classes_that_differ_between_splits() -> None:
    train, val = Pets(("cat", "dog"), [0, 1, 1]), Pets(("dog", "cat"), [0])
    task = Surveyed("pets", "in memory", Label(train.info), {"train": train, "val": val})
    said = survey(task, Look(decode=False))
    assert [one.line() for one in said.found if one.finding.severity == "error"] == [
        "pets: val has 2 classes and train 2, which are not the same in the same order (e.g. dog; cat) [classes-differ]"
    ]
    with pytest.raises(
        DataError, match=r"(?s)the data cannot be meant as it is.*If it is: train.allow=\[classes-differ\]"
    ):
        refuse([said], ())
    refuse([said], ["classes-differ"])
    table = table_of(said).splitlines()
    assert [line.split()[-2:] for line in table] == [
        ["train", "val"], ["3", "1"], ["0", "0"], ["0", "0"], ["3", "1"], ["1", "1"], ["2", "0"], ["2", "2"],
    ]  # fmt: skip
    assert table[-1].startswith("left out: hidden files ")


def test_a_class_that_is_scored_and_never_learned() -> None:
    train, val = Pets(("cat", "dog", "eel"), [0, 0]), Pets(("cat", "dog", "eel"), [0, 1])
    said = survey(Surveyed("pets", "", Label(train.info), {"train": train, "val": val}), Look(decode=False))
    assert [(one.split, one.finding.name, one.finding.examples) for one in said.found] == [
        ("train", "class-without-any", ("dog", "eel")), ("", "class-not-trained", ("dog",)),
    ]  # fmt: skip


def test_images_that_cannot_be_read_are_counted_and_named() -> None:
    train = Pets(("cat", "dog"), [0] * 40)
    said = survey(Surveyed("pets", "", Label(train.info), {"train": train}), Look(decode=True))
    (found,) = said.found
    assert found.line().startswith("pets, train: 40 of 40 images cannot be read (e.g. 0.jpg: is empty; 1.jpg")


def test_of_very_many_images_the_first_are_looked_at() -> None:
    train = Pets(("cat", "dog"), [0, 1] * 50)
    seen = []
    said = survey(
        Surveyed("pets", "", Label(train.info), {"train": train}), Look(decode=False, most=50, seen=seen.append)
    )
    # In parts of 32.
    assert (seen, said.splits["train"].look.looked_at) == ([32, 18], 50)
    assert [line.split() for line in table_of(said).splitlines()[1:3]] == [["images", "100"], ["looked", "at", "50"]]


def test_people_by_number_of_images(tmp_path: Path) -> None:
    numbers = {"ann": 1, "bob": 1, "cy": 1, "dee": 4, "eva": 5}
    for person, number in numbers.items():
        for image in range(number):
            picture(tmp_path / "train" / person / f"{image}.png", hash((person, image)) % 1000)
    for person in ("fay", "gus"):
        for image in range(2):
            picture(tmp_path / "val" / person / f"{image}.png", 2000 + image + len(person) * ord(person[0]))
    checked = mtframe("data", "check", "identity-folders", tmp_path, "min_images=1")
    assert checked.code == 0
    rows = [line.split() for line in checked.out.splitlines() if line.startswith(("people", "  of"))]
    assert rows == [
        ["people", "5", "2"], ["of", "1", "image", "3", "0"], ["of", "2", "to", "4", "images", "1", "2"],
        ["of", "5", "to", "9", "images", "1", "0"],
    ]  # fmt: skip
    (line,) = lines(checked, "people-of-one-image")
    assert "identity-folders, train: 3 of 5 people have one image" in line


def test_strangers_in_one_file_are_not_known() -> None:
    identity = Identity(DataInfo("identity", ("ann",)))
    samples = [Sample(torch.empty(0), {"label": torch.tensor(-1)}, (0, 0), n, f"lfw.bin/{n}") for n in range(4)]
    said = identity.survey([identity.condensed(sample) for sample in samples], np.full(4, np.nan))
    assert (said.total, said.unknown) == (0, 4)


def test_labels_that_are_there_not_there_and_not_known() -> None:
    target = Labels(DataInfo("labels", ("sun", "birds")))
    values = [[1, 0], [0, 0], [1, float("nan")], [float("nan")] * 2]
    samples = [Sample(torch.empty(0), {"labels": torch.tensor(value)}, (0, 0)) for value in values]
    said = target.survey([target.condensed(sample) for sample in samples], np.full(4, np.nan))
    assert (dict(said.classes), said.total, said.empty, said.unknown) == ({"sun": 2, "birds": 0}, 2, 1, 1)


def test_numbers_that_are_known() -> None:
    target = Value(DataInfo("value", ("tilt", "age")))
    samples = [
        Sample(torch.empty(0), {"value": torch.tensor(value)}, (0, 0)) for value in ([1.0, float("nan")], [0.0, 2.0])
    ]
    said = target.survey([target.condensed(sample) for sample in samples], np.full(2, np.nan))
    assert (dict(said.classes), said.empty, said.unknown) == ({"tilt": 2, "age": 1}, 0, 0)


def test_masks_by_class() -> None:
    target = Masks(DataInfo("mask", ("road", "sky", "car")))
    masks = [torch.tensor([[0, 0], [1, 255]]), torch.tensor([[0, 0], [0, 0]]), torch.full((2, 2), 255)]
    samples = [Sample(torch.empty(0), {"mask": mask.to(torch.uint8)}, (2, 2)) for mask in masks]
    said = target.survey([target.condensed(sample) for sample in samples], np.full(3, np.nan))
    assert (dict(said.classes), said.unknown) == ({"road": 2, "sky": 1, "car": 0}, 1)
    # 5 of 12 pixels.
    assert said.rows == {"pixels of no known class, percent": 42}
    assert (said.measured, dict(said.amounts)) == ("pixels of a class", {"road": 6, "sky": 1, "car": 0})


def write_masks(root: Path, images: int) -> Path:
    """Pictures of 16 x 16 with a mask each: a row of sky above road; a car on the last one."""
    for number in range(images):
        picture(root / "images" / "train" / f"{number:03}.png", number)
        mask = np.zeros((16, 16), np.uint8)
        mask[0] = 1
        mask[8, 8] = 2 * (number == images - 1)
        path = root / "masks" / "train" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    (root / "classes.txt").write_text("road\nsky\ncar\n", encoding="utf-8")
    return root


def test_masks_are_looked_at_before_a_training(tmp_path: Path, here: Path, small: Small) -> None:
    root = write_masks(tmp_path / "town", 20)
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(root / "masks" / "train" / "003.png")
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(root / "masks" / "train" / "004.png")
    checked = mtframe("data", "check", "semantic-masks", root, "val_part=0")
    assert checked.code == 1
    (line,) = lines(checked, "wrong-labels")
    assert line.startswith("error: semantic-masks, train: the labels of 2 of 20 images are wrong (e.g. ")
    assert "003.png: has numbers that mean nothing: 7, first in row 0, column 0" in line
    assert "004.png: is 16x8, but its image images/train/004.png is 16x16" in line
    assert lines(checked, "unreadable") == []
    rows = [line.split() for line in checked.out.splitlines()]
    # 18 masks: 16 pixels of sky each, one of a car on the last.
    for row in (["road", "18"], ["sky", "18"], ["car", "1"], ["pixels", "of", "a", "class", "4608"],
                ["road", "4319"], ["sky", "288"], ["car", "1"]):  # fmt: skip
        assert row in rows
    parts = ["-b", small.parts[1], "-t", f"town=semantic-segmentation:{root}", "backbone.pretrained=false",
             "tasks.town.size=32", "train.steps=1", "train.workers=0"]  # fmt: skip
    refused = mtframe("train", *parts, "--out", "run")
    assert (refused.code, Path("run").exists()) == (1, False), refused
    assert "town, train: the labels of 2 of " in refused.err


def test_of_many_masks_some_from_all_over_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SemanticMasks, "looked_at", 5)
    data = SemanticMasks("train", root=write_masks(tmp_path, 20), val_part=0)
    task = Surveyed("town", "", Masks(data.info), {"train": data})
    said = survey(task, Look(decode=False))
    look = said.splits["train"].look
    assert (look.looked_at, look.images, look.sizes) == (5, 20, [(16, 16)] * 5)
    assert look.places == [0, 5, 10, 14, 19]
    data = SemanticMasks("train", root=write_masks(tmp_path, 21), val_part=0)
    # The car is on one image that is not looked at: nobody can say that there is none.
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "masks" / "train" / "020.png")
    assert survey(Surveyed("town", "", Masks(data.info), {"train": data}), Look(decode=False)).found == []


def test_a_mask_is_read_without_its_image(tmp_path: Path) -> None:
    data = SemanticMasks("train", root=write_masks(tmp_path, 3), val_part=0)
    for index in range(3):
        seen, annotated = data[index], data.annotated(index)
        assert (annotated.id, annotated.index, annotated.size) == (seen.id, seen.index, seen.size)
        assert torch.equal(annotated.target["mask"], seen.target["mask"])


@pytest.mark.parametrize("form", ["plain.png", "turned.jpg", "turned.png", "grey.tiff", "small.gif", "web.webp"])
def test_a_size_is_that_of_the_decoded_image(tmp_path: Path, form: str) -> None:
    path, image = tmp_path / form, Image.new("L" if form == "grey.tiff" else "RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, **({"exif": exif} if form.startswith("turned") else {}))
    for upright in (False, True):
        header = read_header(path)
        assert (header.upright if upright else header.size) == read_image(path, upright=upright)[1]


def test_a_size_of_no_image_says_why(tmp_path: Path) -> None:
    for content in (b"", b"no picture"):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(BadImageError):
            read_header(tmp_path / "a.jpg")
    with pytest.raises(BadImageError, match="No such file"):
        read_header(tmp_path / "b.jpg")


def test_a_table_of_many_classes_lists_the_most_frequent() -> None:
    classes = {f"c{number}": number for number in range(30)}
    look = SplitLook(5, read=True)
    said = TaskSurvey("t", "x", {"train": SplitSurvey(look, Survey("boxes", classes, 435), {}, ())})
    table = table_of(said, classes=2).splitlines()
    assert [line.split() for line in table[-3:]] == [["c29", "29"], ["c28", "28"], ["28", "other", "classes", "378"]]


def test_every_kind_of_picture_is_drawn(tmp_path: Path) -> None:
    pictures = (
        Bars("classes", "boxes", {"$odd$ \u200b": 3.0, **{f"c{n}": 1.0 for n in range(40)}}),
        Matrix("places", "y", "x", ("a", ""), ("b", ""), [[1, 2], [3, 4]]),
        Curves("ages", "x", "y", {"one": ([0, 1], [0, 1])}),
    )
    look = SplitLook(1, read=True)
    said = [
        TaskSurvey("a", "", {"train": SplitSurvey(look, Survey("boxes", {}, 0, pictures=pictures), {}, ())}),
        TaskSurvey("b", "", {"train": SplitSurvey(look, Survey("boxes", {}, 0, pictures=pictures[:1]), {}, ())}),
    ]
    assert draw_surveys(said, tmp_path / "plots" / "labels.png")
    with Image.open(tmp_path / "plots" / "labels.png") as drawn:
        # Panels of 4.6 by 4.2 inches, 120 dots each: three columns, two rows.
        assert drawn.size == (round(3 * 4.6 * 120), round(2 * 4.2 * 120))
    assert not draw_surveys([TaskSurvey("a", "", {"val": SplitSurvey(look, None, {}, ())})], tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_a_name_from_a_file_stays_in_its_line() -> None:
    found = Found("t", "train", Finding("odd", "warning", "one thing", ("a\x1b[2J\nb.jpg",)))
    assert found.line() == r"t, train: one thing (e.g. a\x1b[2J\nb.jpg) [odd]"


def test_a_run_keeps_the_survey_of_its_labels(small_run: Path, here: Path) -> None:
    said = (small_run / "said.txt").read_text(encoding="utf-8")
    log = (small_run / "log.txt").read_text(encoding="utf-8")
    for text in (said, log):
        assert "objects: coco, " in text
        assert "faces: lfw, " in text
    assert (small_run / "plots" / "labels.png").is_file()
    # What goes on was looked at when it began.
    shutil.copytree(small_run, "run")
    resumed = mtframe("train", "--resume", "run", "train.steps=3")
    assert resumed.code == 0, resumed
    assert "objects: coco, " not in resumed.out


def test_what_is_odd_is_warned_of_where_a_training_begins(pets: Path, small: Small, here: Path) -> None:
    shutil.copy(pets / "train" / "cat" / "b.png", pets / "val" / "cat" / "other.png")
    parts = ["-b", small.parts[1], "-t", f"pets=image-classification:{pets}", "tasks.pets.size=32", "train.steps=1",
             "train.workers=0", "backbone.pretrained=false", "tasks.pets.dataset.name=image-folder"]  # fmt: skip
    trained = mtframe("train", *parts, "--out", "run")
    assert (trained.code, trained.err) == (0, ""), trained
    wanted = "pets: 1 of the 3 images of val are in train too, by content"
    assert f"warning: {wanted}" in trained.out
    assert f"WARNING {wanted}" in Path("run/log.txt").read_text(encoding="utf-8")


def test_labels_are_read_without_the_images(pets: Path) -> None:
    data = ImageFolder("train", root=pets)
    for index in range(len(data)):
        seen, annotated = data[index], data.annotated(index)
        assert (annotated.id, annotated.index) == (seen.id, seen.index)
        assert torch.equal(annotated.target["label"], seen.target["label"])
    with pytest.raises(IndexError):
        data.annotated(len(data))


@pytest.mark.parametrize("split", ["train", "val"])
def test_people_are_known_without_their_images(small: Small, tmp_path: Path, split: str) -> None:
    from mtframe_face.lfw import LFW

    for person in ("ann", "bob"):
        for image in range(2):
            picture(tmp_path / "train" / person / f"{image}.png", image)
            picture(tmp_path / "val" / f"{person}by" / f"{image}.png", image)
    for data in (LFW(split, root=small.faces), IdentityFolders(split, root=tmp_path)):
        for index in range(len(data)):
            seen, annotated = data[index], data.annotated(index)
            assert (annotated.id, annotated.index) == (seen.id, seen.index)
            assert torch.equal(annotated.target["label"], seen.target["label"])


def test_findings_are_documented() -> None:
    root = Path(__file__).resolve().parents[2]
    names = set()
    for file in [*(root / "mtframe").rglob("*.py"), *(root / "plugins").rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        names |= set(re.findall(r'Finding\(\s*"([a-z-]+)"', text))
    names |= {f"boxes-like-{meaning}" for meaning in ("corners", "widths", "centres")}
    page = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    assert len(names) >= 14
    assert [name for name in sorted(names) if f"| `{name}` |" not in page] == []
    # Each can be allowed, and all that can be allowed is found somewhere.
    parts = [part for kind in ("dataset", "target") for _, part in at_hand(kind)]
    assert set(findings_of(parts) or ()) == names


class Fetching:
    """A backbone whose weights would have to be fetched."""

    def __init__(self, member: str | None = None, *, restoring: bool = False) -> None:
        raise AssertionError("the model is built, and its weights are fetched")


def test_data_is_looked_at_before_the_model_is_built(pets: Path, tmp_path: Path) -> None:
    shutil.rmtree(pets / "val")
    shutil.copytree(pets / "train", pets / "val")
    plain = {
        "backbone": Fetching,
        "tasks": {"pets": {"preset": "image-classification", "dataset": {"root": str(pets)}, "size": 32}},
        "train": {"steps": 1, "workers": 0},
    }
    with pytest.raises(DataError, match=r"the data cannot be meant as it is:\n  pets: 5 of the 5 images of val"):
        Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
    # With that allowed, the model is next.
    plain["train"]["allow"] = ["same-file"]
    with pytest.raises(Exception, match="its weights are fetched"):
        Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_misspelt_name_of_a_finding_is_said(pets: Path, here: Path, small: Small) -> None:
    known = "What may be found in this data: class-not-trained, class-without-any, classes-differ, learned-elsewhere, "
    wanted = f"nothing that is looked for is called 'same-fil'; did you mean 'same-file'? {known}"
    checked = mtframe("data", "check", "image-folder", pets, "--allow", "same-fil")
    assert (checked.code, checked.out) == (2, "")
    assert f"--allow: {wanted}" in checked.err
    # What only boxes have is not found in classes of images.
    assert mtframe("data", "check", "image-folder", pets, "--allow", "boxes-too-small").code == 2
    parts = ["-b", small.parts[1], "-t", f"pets=image-classification:{pets}", "backbone.pretrained=false"]
    trained = mtframe("train", *parts, "train.allow=[same-fil]")
    assert (trained.code, trained.out) == (2, "")
    assert f"train.allow: {wanted}" in trained.err
    made = mtframe("init", f"pets=image-classification:{pets}", *parts[:2])
    Path("recipe.yaml").write_text(made.out, encoding="utf-8")
    of_recipe = mtframe("data", "check", "recipe.yaml", "train.allow=[same-fil]")
    assert (of_recipe.code, f"train.allow: {wanted}" in of_recipe.err) == (2, True)
    assert mtframe("data", "check", "recipe.yaml", "--allow", "same-fil").code == 2


def test_what_a_component_finds_it_says_that_it_may_find() -> None:
    class Odd(Pets):
        findings = ("too-furry",)

        def inspect(self) -> list[Finding]:
            return [Finding("too-fury", "note", "furry")]

    odd = Odd(("cat", "dog"), [0, 1])
    with pytest.raises(PluginError, match=r"Odd found 'too-fury', which its `findings` do not name \(too-furry\)"):
        survey(Surveyed("pets", "", Label(odd.info), {"train": odd}), Look(decode=False))


def test_images_that_are_not_there_are_counted_once(tmp_path: Path) -> None:
    rows = ["file,split,scene"]
    for number in range(6):
        picture(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{'val' if number > 3 else 'train'},{'coast' if number % 2 else 'wood'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes(b"no image")
    checked = mtframe("data", "check", "csv", tmp_path, "label=scene")
    assert checked.code == 1
    (line,) = lines(checked, "missing-images")
    assert line == "warning: csv, train: 1 of 4 labelled images are not there (e.g. 1.png) [missing-images]"
    (line,) = lines(checked, "unreadable")
    assert line.startswith("error: csv, train: 1 of 4 images cannot be read (e.g. ")
    rows = [row.split()[-2:] for row in checked.out.splitlines() if row.startswith(("images", "  that", "labels"))]
    # Images, those that cannot be read, those that are not there, and labels.
    assert rows == [["4", "2"], ["1", "0"], ["1", "0"], ["2", "2"]]
    assert "1.png: No such file" not in checked.out + checked.err


def test_a_recipe_keeps_what_it_allows(tmp_path: Path, small: Small) -> None:
    made = mtframe("init", f"objects=object-detection:{small.objects}", "-b", small.parts[1], "train.allow=[same-file]")
    (tmp_path / "recipe.yaml").write_text(made.out, encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").train.allow == ["same-file"]
