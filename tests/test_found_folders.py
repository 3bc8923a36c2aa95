"""Folders as they are found: what is an image, which names a split has, and which data set reads a folder."""

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from command import mtframe
from converted import voc_xml, write
from mtframe import folders
from mtframe._fit import splits_of, targets_of
from mtframe._recognised import recognise
from mtframe.data import Header, read_header, read_image
from mtframe.errors import BadImageError, PluginError, RecipeError
from mtframe.inference._pictures import find_pictures
from mtframe.kinds import Recognises, ReportsOmissions
from mtframe.recipe import apply_overrides, assemble_recipe
from mtframe.registry import discover
from mtframe.training._life import _found
from mtframe_classification.csv_images import CsvImages
from mtframe_classification.image_folder import ImageFolder
from mtframe_detection.coco import Coco
from mtframe_detection.voc import Voc
from mtframe_detection.yolo import Yolo
from mtframe_face.identity_folders import IdentityFolders
from mtframe_face.lfw import LFW
from mtframe_segmentation.semantic_masks import SemanticMasks

# What systems, notebooks and archives leave beside pictures, and what is no picture.
DEBRIS = (
    ".ipynb_checkpoints/a-checkpoint.jpg",
    "__MACOSX/._a.jpg",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "._a.jpg",
    "Thumbs.db",
    "notes.md",
)


def picture(path: Path, size: tuple[int, int] = (24, 16), **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **more)
    return path


def litter(folder: Path) -> None:
    for name in DEBRIS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")


def test_debris_is_no_image_and_is_counted(tmp_path: Path) -> None:
    picture(tmp_path / "b" / "a.JPG", format="JPEG")
    litter(tmp_path / "b")
    found = folders.images_below(tmp_path)
    assert found.files == ["b/a.JPG"]
    assert found.omitted == {
        folders.HIDDEN_FOLDERS: 3,
        folders.HIDDEN_FILES: 1,
        # Of `Thumbs.db`, which is a system's own, nobody is told.
        folders.OTHER_SUFFIX: 1,
    }
    assert folders.images_below(tmp_path, [".md"]).omitted.total() == 4
    assert folders.images_below(tmp_path, deep=False).files == []
    assert folders.images_below(tmp_path / "missing") == folders.Images(
        [], folders.Images([], found.omitted).omitted - found.omitted
    )


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    names = [
        f"{number}{suffix.upper() if number % 2 else suffix}" for number, suffix in enumerate(folders.IMAGE_SUFFIXES)
    ]
    for name in names:
        (tmp_path / name).touch()
    assert folders.images_below(tmp_path).files == sorted(names)


def test_links_to_folders_are_followed_and_end(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "train" / "real" / "a.jpg")
    picture(root / "val" / "b.jpg")
    picture(tmp_path / "elsewhere" / "c.jpg")
    (root / "train" / "far").symlink_to(tmp_path / "elsewhere")
    # Sorts before `real`, whose own name counts.
    (root / "train" / "again").symlink_to(root / "train" / "real")
    (root / "train" / "real" / "up").symlink_to(root)
    (root / "train" / "self").symlink_to("self")
    (root / "train" / "file.png").symlink_to(root / "val" / "b.jpg")
    found = folders.images_below(root / "train")
    assert found.files == ["far/c.jpg", "file.png", "real/a.jpg"]
    assert found.omitted[folders.SEEN_FOLDERS] == 2
    assert [source.file.name for source in find_pictures([root / "train"])] == ["c.jpg", "file.png", "a.jpg"]


def test_many_links_to_one_another_take_no_longer_than_their_folders(tmp_path: Path) -> None:
    # Followed by every path, these are 2**30 folders.
    for number in range(30):
        (tmp_path / str(number)).mkdir()
    for number in range(29):
        for name in "ab":
            (tmp_path / str(number) / name).symlink_to(tmp_path / str(number + 1))
    picture(tmp_path / "29" / "a.jpg")
    assert len(folders.images_below(tmp_path / "0").files) == 1


def test_splits_have_several_names() -> None:
    assert folders.splits_among(["Train", "validation", "val", "testing", "extra"]) == (
        {"train": "Train", "val": "val", "test": "testing"},
        ["validation", "extra"],
    )
    assert folders.filled("{split}2017/{x}", "val", {"valid2017/{x}"}.__contains__) == "valid2017/{x}"
    assert folders.filled("{split}", "val", lambda path: False) == "val"
    assert "'extra'" in folders.not_used("here", ["extra"])[0]


def test_what_is_held_out_is_what_was_held_out_before() -> None:
    # As mtframe 0.1 chose them: a digest's order, and a part of each group.
    files = [f"{number:02}.jpg" for number in range(20)]
    one = folders.held_out(files, 0.25)
    assert sum(one) == 5
    groups = [number % 2 for number in range(20)]
    two = folders.held_out(files, 0.25, groups)
    assert [sum(held for held, group in zip(two, groups, strict=True) if group == one) for one in (0, 1)] == [2, 2]
    assert folders.held_out(files[::-1], 0.25) == one[::-1]


def write_classes(root: Path, suffix: str = ".jpg") -> None:
    for split in ("training", "Validation"):
        for name in ("cat", "dog"):
            for number in range(3):
                picture(root / split / name / f"{number}{suffix}")
            litter(root / split / name)
    litter(root)


def test_image_folder_in_a_messy_folder(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "extra").mkdir()
    train, val = ImageFolder("train", root=tmp_path), ImageFolder("val", root=tmp_path)
    assert (len(train), len(val), train.info.classes) == (6, 6, ("cat", "dog"))
    assert val.ids()[0] == "Validation/cat/0.jpg"
    assert train.omitted == {"hidden folders": 6, "hidden files": 2, folders.OTHER_SUFFIX: 2}
    assert "'extra'" in train.notes[0]
    assert isinstance(train, ReportsOmissions)
    with pytest.raises(RecipeError, match="has no 'test'; it has train, val"):
        ImageFolder("test", root=tmp_path)


def test_identity_folders_in_a_messy_folder(tmp_path: Path) -> None:
    for split, people in (("train", "ab"), ("valid", "cd")):
        for person in people:
            for number in range(2):
                picture(tmp_path / split / person / f"{number}.png")
            litter(tmp_path / split / person)
        litter(tmp_path / split)
    data = IdentityFolders("val", root=tmp_path)
    assert (data.people, len(data)) == (("c", "d"), 4)
    assert data.ids()[0] == "valid/c/0.png"
    assert data.omitted[folders.HIDDEN_FOLDERS] == 6


def test_masks_in_a_messy_folder(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        picture(tmp_path / "images" / split / "a.jpg")
        picture(tmp_path / "images" / split / "bare.jpg")
        (tmp_path / "masks" / split).mkdir(parents=True)
        Image.fromarray(np.zeros((16, 24), np.uint8)).save(tmp_path / "masks" / split / "a.png")
        litter(tmp_path / "images" / split)
    write(tmp_path / "classes.txt", "a\nb\n")
    data = SemanticMasks("val", root=tmp_path)
    assert data.ids() == ["images/validation/a.jpg"]
    assert data[0].target["mask"].shape == (16, 24)
    assert data.omitted == {"hidden folders": 3, "hidden files": 1, folders.OTHER_SUFFIX: 1, "images without a mask": 1}


def test_rows_of_a_table_may_say_validation(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", "file,split,kind\na.jpg,Train,x\nb.jpg,train,y\nc.jpg,validation,x\nd.jpg,val,y\n")
    assert CsvImages("val", root=tmp_path, label="kind").ids() == ["c.jpg", "d.jpg"]


def test_avif_is_read(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.avif", (64, 48), quality=95)
    image, size = read_image(path)
    assert (image.shape, size) == ((3, 48, 64), (48, 64))


@pytest.mark.parametrize("suffix", [".jfif", ".mpo", ".jpe"])
def test_jpegs_of_other_names(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / f"a{suffix}", format="MPO" if suffix == ".mpo" else "JPEG")
    assert [source.name for source in find_pictures([tmp_path])] == ["a"]
    assert read_image(tmp_path / f"a{suffix}")[1] == (16, 24)


# The head of a HEIC file: a box `ftyp` with the brand `heic`.
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 32


def test_a_heic_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    path = tmp_path / "a.HEIC"
    path.write_bytes(HEIC)
    for read in (read_image, read_header):
        with pytest.raises(BadImageError, match=r"is a HEIC file, .* get it with: pip install pillow-heif"):
            read(path)


def test_a_heic_file_is_read_where_pillow_heif_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (6, 4), "RGB"

        def load(self) -> None:
            self.im = Image.new("RGB", (6, 4), (10, 20, 30)).im

    def register_heif_opener() -> None:
        Image.register_open("HEIF", Heif, lambda head: head[4:12] == b"ftypheic")

    module = types.ModuleType("pillow_heif")
    module.register_heif_opener = register_heif_opener  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    path = tmp_path / "a.heic"
    path.write_bytes(HEIC)
    image, size = read_image(path)
    assert (size, image[:, 0, 0].tolist()) == ((4, 6), [10, 20, 30])
    assert read_header(path) == Header((4, 6))


def test_a_header_says_size_and_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = picture(tmp_path / "a.jpg", (24, 16), exif=exif)
    assert read_header(path) == Header((16, 24), 6)
    assert read_header(path).upright == (24, 16)
    stored, turned = read_image(path)[0], read_image(path, upright=lambda header: header.orientation == 6)[0]
    # Orientation 6: the top of the picture is at the right of what is stored.
    torch.testing.assert_close(turned, stored.rot90(-1, (1, 2)))
    for text in (b"", b"P3\n1 1\n", b"junk"):
        path.write_bytes(text)
        with pytest.raises(BadImageError):
            read_header(path)


def write_yolo(root: Path, name: str = "data.yaml") -> None:
    for split in ("train", "valid"):
        picture(root / split / "images" / "a.jpg")
        write(root / split / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    write(root / name, "names: [cat]\ntrain: ../train/images\nval: ../valid/images\n")


def write_roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        picture(root / split / "a.jpg")
        write(
            root / split / "_annotations.coco.json",
            '{"images": [{"id": 0, "file_name": "a.jpg", "height": 16, "width": 24}],'
            ' "categories": [{"id": 0, "name": "pets", "supercategory": "none"},'
            ' {"id": 1, "name": "cat", "supercategory": "pets"}, {"id": 2, "name": "dog", "supercategory": "pets"}],'
            ' "annotations": [{"id": 0, "image_id": 0, "category_id": 2, "bbox": [1, 2, 3, 4]}]}',
        )


def write_coco(root: Path) -> None:
    Coco.synthesize(root, train=2, val=1, size=64, workers=1)


def write_voc(root: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        picture(root / "JPEGImages" / f"{name}.jpg", (100, 80))
        write(root / "Annotations" / f"{name}.xml", voc_xml([("gnu", 1, 1, 20, 20)]))


def write_lfw(root: Path) -> None:
    LFW.synthesize(root, people=3, images=3, test_people=3, pairs=4, size=32, workers=1)


def write_people(root: Path) -> None:
    IdentityFolders.synthesize(root, people=2, images=2, test_people=2, size=32, workers=1)


FORMATS: dict[str, tuple[str, Callable[[Path], None], dict[str, str]]] = {
    "coco": ("object-detection", write_coco, {}),
    "roboflow": ("object-detection", write_roboflow, {}),
    "yolo": ("object-detection", write_yolo, {}),
    "yolo by another name": ("object-detection", lambda root: write_yolo(root, "pets.yaml"), {"data": "pets.yaml"}),
    "voc": ("object-detection", write_voc, {"classes": "found"}),
    "lfw": ("face-recognition", write_lfw, {}),
    "identity-folders": ("face-recognition", write_people, {}),
    "image-folder": ("image-classification", write_classes, {}),
}
READ_BY = {"roboflow": "coco", "yolo by another name": "yolo"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_says_which_data_set_reads_it(tmp_path: Path, form: str) -> None:
    preset, make, more = FORMATS[form]
    make(tmp_path / "data")
    said: list[str] = []
    recipe = assemble_recipe("none", [f"a={preset}:{tmp_path / 'data'}"], said=said.append)
    chosen, name = recipe.tasks["a"].dataset, READ_BY.get(form, form)
    assert (chosen.name, chosen.options) == (name, {"root": str(tmp_path / "data"), **more})
    default = assemble_recipe("none", [f"a={preset}"]).tasks["a"].dataset.name
    assert (said == []) == (name == default and not more)
    assert all(f"is read by data set {name}" in text for text in said)
    # It opens, and no other data set of the kind takes it for its own.
    cls = recipe.resolve("dataset", name).component
    for split in ("train", "val"):
        assert len(cls(split, root=tmp_path / "data", **more)) > 0
    knowing = {
        component.name
        for component in discover("dataset")
        if isinstance(other := component.load(), Recognises)
        and {*targets_of(other)} & {*targets_of(cls)}
        and other.recognises(tmp_path / "data") is not None
    }
    assert knowing == {name}


def test_a_yaml_stands_for_its_folder(tmp_path: Path) -> None:
    write_yolo(tmp_path / "data", "pets.yaml")
    recipe = assemble_recipe("none", [f"a=object-detection:{tmp_path / 'data' / 'pets.yaml'}"])
    assert recipe.tasks["a"].dataset.plain() == {
        "name": "yolo", "root": str(tmp_path / "data"), "data": "pets.yaml",
    }  # fmt: skip


def test_where_two_data_sets_would_do_the_user_is_asked(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_coco(root)
    write_yolo(root)
    task = f"a=object-detection:{root}"
    with pytest.raises(
        RecipeError, match=rf"coco and yolo can all read '{root}'; say which with tasks\.a\.dataset\.name=coco"
    ):
        assemble_recipe("none", [task])
    for name in ("coco", "yolo"):
        assert assemble_recipe("none", [task], [f"tasks.a.dataset.name={name}"]).tasks["a"].dataset.name == name
    # Options that only one of them takes say it, too.
    assert assemble_recipe("none", [task], ["tasks.a.dataset.data=data.yaml"]).tasks["a"].dataset.name == "yolo"


def test_an_unknown_folder_is_left_to_the_presets_data_set(tmp_path: Path) -> None:
    write(tmp_path / "readme.txt", "nothing")
    recipe = assemble_recipe("none", [f"a=object-detection:{tmp_path}", f"b=face-recognition:{tmp_path / 'missing'}"])
    assert [task.dataset.name for task in recipe.tasks.values()] == ["coco", "lfw"]


def test_a_data_set_that_fails_to_tell_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recognises(root: Path) -> None:
        raise ZeroDivisionError

    write_yolo(tmp_path)
    monkeypatch.setattr(Voc, "recognises", staticmethod(recognises))
    assert assemble_recipe("none", [f"a=object-detection:{tmp_path}"]).tasks["a"].dataset.name == "yolo"


def test_the_command_says_what_was_found(tmp_path: Path) -> None:
    write_yolo(tmp_path / "data")
    result = mtframe("init", "-b", "timm/resnet18", f"pets=object-detection:{tmp_path / 'data'}")
    assert result.code == 0, result
    assert result.err == (
        f"note: pets: '{tmp_path / 'data'}' is read by data set yolo; tasks.pets.dataset.name chooses another\n"
    )
    assert "name: yolo" in result.out


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{split}", "{split}"),
        ("{split}2017", "{split}2017"),
        ("masks/{split}/x", "masks/{split}/x"),
        ("[{split}/a, b]", ["{split}/a", "b"]),
        ("{name: coco, images: {split}2017}", {"name": "coco", "images": "{split}2017"}),
        ("'{split} a'", "{split} a"),
        ('"{split}"', "{split}"),
        ("{a: {b: c}}", {"a": {"b": "c"}}),
        ("{}", {}),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_a_name_in_braces_needs_no_quotes_in_an_override(text: str, value: object) -> None:
    assert apply_overrides({}, [f"a={text}"]) == {"a": value}


def test_data_check_takes_the_braces_as_they_are(tmp_path: Path) -> None:
    write_coco(tmp_path)
    os.rename(tmp_path / "train2017", tmp_path / "trainpics")
    os.rename(tmp_path / "val2017", tmp_path / "validpics")
    result = mtframe("data", "check", "coco", tmp_path, "images={split}pics")
    assert result.code == 0, result
    assert re.search(r"^images +2 +1$", result.out, re.MULTILINE)


def test_voc_and_yolo_report_what_they_leave_out(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo")
    litter(tmp_path / "yolo" / "train" / "images")
    write(tmp_path / "yolo" / "train" / "labels" / "a.txt", "0 0.5 0.5 0 0.5\n0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n")
    assert Yolo("train", root=tmp_path / "yolo").omitted == {
        "hidden folders": 3,
        "hidden files": 1,
        folders.OTHER_SUFFIX: 1,
        "boxes without area inside their image": 1,
        "boxes that stand twice on one image": 1,
    }
    write_voc(tmp_path / "voc")
    picture(tmp_path / "voc" / "JPEGImages" / "bare.jpg")
    assert Voc("train", root=tmp_path / "voc", classes="found").omitted == {"images without an xml file": 1}


def test_a_data_set_that_does_not_say_its_splits_is_told() -> None:
    class Mine:
        target = "label"

    with pytest.raises(PluginError, match=r"Mine: expected a class attribute splits, as \('train', 'val'\), got None"):
        splits_of(Mine)


def test_a_task_that_is_added_finds_its_data_set_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "labels.csv", "file,split,kind\na.jpg,train,x\nb.jpg,val,y\n")
    part = {"preset": "image-classification", "dataset": {"root": str(tmp_path), "label": "kind"}}
    assert _found("b", part) == {"dataset": {"name": "csv", "root": str(tmp_path), "label": "kind"}}
    assert "is read by data set csv; tasks.b.dataset.name chooses another" in caplog.text
    assert _found("b", {**part, "dataset": {**part["dataset"], "name": "image-folder"}}) == {}  # type: ignore[dict-item]


def test_a_folder_that_no_data_set_knows_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    plain = {"preset": "object-detection", "dataset": {"root": str(tmp_path)}}
    assert recognise("objects", plain, said.append) == plain
    assert said == [f"objects: no data set knows '{tmp_path}' for its own; coco is tried, the preset's"]
    # Not where options say how it is to be read.
    assert recognise("objects", {**plain, "dataset": {"root": str(tmp_path), "images": "x"}}, said.append)
    assert len(said) == 1
