from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from converted import write
from mtframe.data import DecodeSize
from mtframe.errors import BadImageError, DataError, RecipeError
from mtframe_detection.yolo import Yolo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images to train on, one to validate on: 100 wide, 80 high."""
    root = tmp_path / "data"
    for place in ("train/a.jpg", "train/b.png", "val/c.jpg"):
        image(root / "images" / place)
    write(root / "labels/train/a.txt", "1 0.5 0.5 0.2 0.25\n0 0.05 0.1 0.1 0.2\n")
    write(root / "labels/val/c.txt", "0 0.5 0.5 1 1")
    write(root / "data.yaml", "names: [cat, dog]\ntrain: images/train\nval: images/val\n")
    return root


def image(path: Path, size: tuple[int, int] = (100, 80), **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path, **more)


def boxes_of(data: Yolo, index: int = 0) -> torch.Tensor:
    return data[index].target["boxes"]


def test_gives_boxes_in_original_pixels(root: Path) -> None:
    data = Yolo("train", root=root)
    assert (data.info.target, data.info.classes, data.notes) == ("boxes", ("cat", "dog"), ())
    sample = data[0]
    assert sample.image.shape == (3, 80, 100)
    assert (sample.size, sample.index, sample.id) == ((80, 100), 0, "images/train/a.jpg")
    # Centre (50, 40), 20 wide, 20 high.
    torch.testing.assert_close(sample.target["boxes"], torch.tensor([[40, 30, 60, 50], [0, 0, 10, 16]]).double())
    assert sample.target["boxes"].dtype == torch.float64
    assert sample.target["labels"].tolist() == [1, 0]
    assert sample.target["area"].tolist() == pytest.approx([400, 160])
    assert sample.target["crowd"].tolist() == [False, False]
    assert sample.target["annotation_id"].tolist() == [1, 2]
    assert int(sample.target["image_id"]) == 0


def test_an_image_without_a_file_or_with_an_empty_one_has_nothing_on_it(root: Path) -> None:
    image(root / "images/train/d.jpg")
    write(root / "labels/train/d.txt", "\n  \n")
    data = Yolo("train", root=root)
    assert [len(sample.target["boxes"]) for sample in data] == [2, 0, 0]
    assert data[1].target["boxes"].shape == (0, 4)
    assert [sample.id for sample in Yolo("train", root=root, keep_empty=False)] == ["images/train/a.jpg"]
    (root / "labels/val/c.txt").write_text("", encoding="utf-8")
    assert len(Yolo("val", root=root, keep_empty=False)) == 1


def test_files_whose_names_begin_with_a_dot_are_no_images(root: Path) -> None:
    (root / "images" / "train" / "._a.jpg").write_bytes(b"what macOS leaves beside a file")
    assert Yolo("train", root=root).ids() == ["images/train/a.jpg", "images/train/b.png"]


def test_annotated_reads_no_labels_from_pixels(root: Path) -> None:
    data = Yolo("train", root=root)
    seen, annotated = data[0], data.annotated(0)
    assert annotated.image.numel() == 0
    assert annotated.size == seen.size
    for name, value in seen.target.items():
        assert torch.equal(annotated.target[name], value), name
    with pytest.raises(IndexError, match="yolo train: no sample 2, there are 2"):
        data.annotated(2)


def test_large_photographs_are_decoded_smaller(root: Path) -> None:
    image(root / "images/val/c.jpg", (640, 480))
    data = Yolo("val", root=root)
    data.decode_size = DecodeSize(shorter=200)
    assert data[0].image.shape == (3, 240, 320)
    assert boxes_of(data).tolist() == [[0, 0, 640, 480]]


def test_boxes_are_those_of_the_image_as_it_is_seen(root: Path) -> None:
    # Orientation 6: stored lying on its side, seen 80 wide and 100 high.
    exif = Image.Exif()
    exif[0x0112] = 6
    image(root / "images/val/c.jpg", exif=exif)
    write(root / "labels/val/c.txt", "0 0.25 0.5 0.5 1")
    data = Yolo("val", root=root)
    assert data[0].size == data.annotated(0).size == (100, 80)
    assert data[0].image.shape == (3, 100, 80)
    assert boxes_of(data).tolist() == [[0, 0, 40, 100]]


def test_outlines_stand_for_the_box_around_them(root: Path) -> None:
    # A triangle and a rotated box.
    write(root / "labels/val/c.txt", "1 0.1 0.5 0.3 0.25 0.2 0.75\n0 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5")
    data = Yolo("val", root=root)
    torch.testing.assert_close(boxes_of(data), torch.tensor([[10, 20, 30, 60], [10, 8, 90, 72]]).double())
    assert data.notes == ("val: 2 lines are outlines; the boxes around them are taken",)


def test_boxes_are_clipped_left_out_and_kept_once(root: Path) -> None:
    write(
        root / "labels/val/c.txt",
        "0 0.9 0.5 0.4 0.5\n"  # reaches out
        "0 0.9 0.5 0.4 0.5\n"  # the same again
        "1 0.5 0.5 0 0.5\n"  # no width
        "1 1.005 0.5 0.01 0.5\n"  # outside, within rounding
        "1 0.005 0.00625 0.01 0.0125\n",  # one pixel
    )
    data = Yolo("val", root=root)
    torch.testing.assert_close(boxes_of(data), torch.tensor([[70, 20, 100, 60], [0, 0, 1, 1]]).double())
    assert data.notes == (
        "val: 2 boxes have no area inside their image; left out",
        "val: 1 boxes stand twice on one image; kept once",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", r"class 2 is not among the 2 \(0 to 1\)"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is not among"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is not among"),
        ("cat 0.5 0.5 0.1 0.1", "expected numbers, got 'cat 0.5 0.5 0.1 0.1'"),
        ("0 nan 0.5 0.1 0.1", "expected finite numbers, got '0 nan 0.5 0.1 0.1'"),
        ("inf 0.5 0.5 0.1 0.1", "expected finite numbers"),
        ("0 0.5 0.5 -0.005 0.1", "width or height is negative: '-0.005 0.1'"),
        ("0 0.5 0.5 0.1 -1", "expected parts of the image's width and height, 0 to 1, got '0.5 0.5 0.1 -1'"),
        ("0 50 40 20 20", "expected parts of the image's width and height, 0 to 1, got '50 40 20 20'"),
        ("0 0.5 0.5 0.1", "expected class, centre x, centre y, width and height, .*; got 4 numbers"),
        ("0", ".*; got 1 numbers"),
        # A score behind the box, as predictions are saved.
        ("0 0.5 0.5 0.1 0.1 0.9", ".*; got 6 numbers"),
        ("0 0.1 0.5 0.3 0.25 0.2 0.75 0.5", ".*; got 8 numbers"),
    ],
)
def test_a_wrong_line_is_named(root: Path, line: str, message: str) -> None:
    write(root / "labels/val/c.txt", f"0 0.5 0.5 1 1\n{line}\n")
    with pytest.raises(
        DataError, match=rf"yolo val: 1 of 1 images would have to be left out.*\n  .*c\.txt, line 2: {message}"
    ):
        Yolo("val", root=root)


def test_wrong_lines_are_counted_and_the_first_named(root: Path) -> None:
    write(root / "labels/train/a.txt", "7 0.5 0.5 0.1 0.1\n" * 9)
    (root / "labels/train/b.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match=r"2 of 2 images would have .*\n(.*a\.txt, line \d.*\n){3}  \.\.\. and 7 more$"):
        Yolo("train", root=root)
    write(root / "labels/train/a.txt", "")
    with pytest.raises(DataError, match=r"b\.txt: cannot be read as text"):
        Yolo("train", root=root)


def test_no_folder_of_labels_is_not_a_split_of_empty_images(root: Path) -> None:
    for place in ("val/c.txt", "val"):
        path = root / "labels" / place
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=r"yolo val: no folder of labels; expected '.*labels/val/c\.txt' for 'images"):
        Yolo("val", root=root)
    (root / "labels/val").mkdir()
    assert boxes_of(Yolo("val", root=root)).shape == (0, 4)


@pytest.mark.parametrize(
    "text",
    [
        "path: elsewhere/data\nnames: {0: cat, 1: dog}\nnc: 2\ntrain: [images/val, images/train]",
        "path: .\nnames: [cat, dog]\ntrain: train.txt",
        # As Roboflow writes it.
        "names: ['cat', 'dog']\nnc: 2\ntrain: ../images",
    ],
)
def test_forms_of_the_yaml(root: Path, text: str) -> None:
    write(root / "train.txt", f"./images/val/c.jpg\nimages/train/a.jpg\n\n{root.absolute()}/images/train/b.png\n")
    write(root / "data.yaml", text)
    data = Yolo("train", root=root)
    assert data.info.classes == ("cat", "dog")
    assert {sample.id for sample in data} == {"images/train/a.jpg", "images/train/b.png", "images/val/c.jpg"}
    assert sum(len(sample.target["boxes"]) for sample in data) == 3


def test_path_is_followed_inside_the_root_only(root: Path) -> None:
    text = "names: [cat, dog]\ntrain: images/train\n"
    write(root.parent / "data.yaml", f"path: data\n{text}")
    assert Yolo("train", root=root.parent)[0].id == "data/images/train/a.jpg"
    outside = root.parent / "other"
    image(outside / "images/train/x.jpg")
    for path in (outside.as_posix(), "../other"):
        write(root / "data.yaml", f"path: {path}\n{text}")
        assert [sample.id for sample in Yolo("train", root=root)] == ["images/train/a.jpg", "images/train/b.png"]


def test_images_listed_twice_count_once(root: Path) -> None:
    write(root / "data.yaml", "names: [cat, dog]\nval: [images/val, images]")
    data = Yolo("val", root=root)
    assert (len(data), data.notes) == (3, ("val: 1 images are listed twice; taken once",))


def test_labels_lie_beside_images_where_no_folder_is_called_images(root: Path) -> None:
    image(root / "photos/x.JPG")
    write(root / "photos/x.txt", "1 0.5 0.5 1 1")
    write(root / "data.yaml", "names: [cat, dog]\nval: photos")
    assert Yolo("val", root=root)[0].target["labels"].tolist() == [1]


def test_without_a_yaml(root: Path) -> None:
    (root / "data.yaml").rename(root / "mine.yaml")
    with pytest.raises(DataError, match=r"nothing says what the classes are called; expected 'data.yaml' or 'classes"):
        Yolo("val", root=root)
    assert Yolo("val", root=root, classes=("cat", "dog")).info.classes == ("cat", "dog")
    write(root / "classes.txt", "a cat\nlittle dog\n\n")
    assert Yolo("val", root=root).info.classes == ("a cat", "little dog")
    write(root / "classes.txt", "cat\n\ndog\n")
    with pytest.raises(DataError, match="class 1 has no name"):
        Yolo("val", root=root)
    assert Yolo("val", root=root, data="mine.yaml").info.classes == ("cat", "dog")
    with pytest.raises(RecipeError, match=r"classes: '.*mine\.yaml' says what they are"):
        Yolo("val", root=root, data="mine.yaml", classes=("cat", "dog"))
    with pytest.raises(RecipeError, match=r"no split 'test': no folder '.*images/test', and no data\.yaml in"):
        Yolo("test", root=root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat, dog]\nval: ../../images", "'../../images' leads out of '.*'; give the folder that holds"),
        ("names: [cat, dog]\nval: /etc", "'/etc' leads out of"),
        ("names: [cat, dog]\nval: photos", r"no folder or list of images '.*photos' \(looked for inside the root"),
        ("names: [cat, dog]\nval: {a: b}", "val: expected a folder, a .txt file or a list of these"),
        ("names: [cat, dog]\nval: labels", "split 'val' has no images in 'labels'"),
        (
            "names: [cat, dog]\nval: list.txt",
            r"list\.txt: 2 of \d lines would have to be .*\n  line 1: '/etc/x\.jpg' is not inside '",
        ),
        ("names: {1: cat, 2: dog}\nval: images/val", "names: expected the numbers 0 to 1, each once"),
        ("val: images/val", "names: expected a list of class names, or a mapping of 0, 1, ... to them"),
        ("names: []\nval: images/val", "names: expected a list"),
        ("names: [true, cat]\nval: images/val", "names: class 0 should be text, got bool; quote it"),
        ("names: [cat, [a]]\nval: images/val", "names: class 1 should be text, got list; quote it"),
        ("names: [cat, cat]\nval: images/val", "class 'cat' stands twice"),
        ("names: [cat, dog]\nnc: 3\nval: images/val", "nc says 3 classes, names has 2"),
        ("names: [cat]\nkpt_shape: [17, 3]\nval: images/val", "kpt_shape: labels with key points"),
        ("- a", "expected names, train and val, got list"),
        ("names: [cat", r"data\.yaml: while parsing"),
        ("a: &a [x, x]\nb: [*a, *a]", r"line 2: aliases are not supported: \*a"),
        ("!!python/object/apply:os.system ['true']", "tags are not supported: !!python/object/apply:os.system"),
        ("[" * 1000, "nested too deep"),
        (f"names: {{0: cat, {2**61 - 1}: dog}}", "a number is a key only up to 2 to the power of 60"),
        ("#" * 4_000_001, r"data\.yaml: has 4,000,001 bytes, more than the limit of 4,000,000"),
    ],
)
def test_a_wrong_yaml(root: Path, text: str, message: str) -> None:
    write(root / "list.txt", "/etc/x.jpg\n../x.jpg\nimages/val/c.jpg\n")
    write(root / "data.yaml", text)
    with pytest.raises(DataError, match=message):
        Yolo("val", root=root)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(RecipeError, match=r"no split 'test': .*data\.yaml has train, val"):
        Yolo("test", root=root)
    with pytest.raises(RecipeError, match="no split 'valid'; it has train, val, test"):
        Yolo("valid", root=root)
    with pytest.raises(RecipeError, match=r"^root: no folder '.*nowhere'"):
        Yolo("train", root=root / "nowhere")
    with pytest.raises(RecipeError, match=r"^data: no file '.*other\.yaml'"):
        Yolo("train", root=root, data="other.yaml")


def test_the_yaml_lies_inside_the_root(root: Path) -> None:
    write(root.parent / "outside.yaml", "names: [cat, dog]\nval: images/val")
    write(root / "more/inside.yaml", "names: [cat, dog]\nval: images/val")
    for data in ("../outside.yaml", "more/../../outside.yaml", str(root.parent / "outside.yaml")):
        with pytest.raises(RecipeError, match=r"^data: '.*outside\.yaml' leads out of '.*'; give the folder"):
            Yolo("val", root=root, data=data)
    for data in ("more/inside.yaml", str(root.absolute() / "more/inside.yaml")):
        assert len(Yolo("val", root=root, data=data)) == 1
    (root / "link.yaml").symlink_to(root.parent / "outside.yaml")
    assert len(Yolo("val", root=root, data="link.yaml")) == 1


def test_an_image_that_cannot_be_read_is_refused_alone(root: Path) -> None:
    (root / "images/train/a.jpg").write_bytes(b"")
    data = Yolo("train", root=root)
    with pytest.raises(BadImageError, match=r"a\.jpg: is empty"):
        data[0]
    assert len(boxes_of(data, 1)) == 0


def test_1500_boxes_an_image_are_read_and_small(root: Path) -> None:
    lines = [f"{n % 2} {(n % 50) / 50 + 0.01} {n // 50 / 30 + 0.015} 0.01 0.0125" for n in range(1500)]
    write(root / "labels/val/c.txt", "\n".join(lines))
    data = Yolo("val", root=root)
    boxes = boxes_of(data)
    assert boxes.shape == (1500, 4)
    torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.ones(1500, 2).double())
    stored = pickle.dumps(data)
    assert len(stored) < 1500 * 80
    assert torch.equal(boxes_of(pickle.loads(stored)), boxes)  # noqa: S301


@pytest.mark.timeout(30)
def test_many_names_are_checked_in_time(root: Path) -> None:
    names = [f"c{number}" for number in range(40_000)]
    write(root / "data.yaml", f"names: [{', '.join(names)}]\ntrain: images/train\n")
    assert Yolo("train", root=root).info.classes == tuple(names)
