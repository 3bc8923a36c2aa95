"""Labels of every kind on images of every kind: they move with these, mix where they can, and teach nothing unknown."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import DataInfo, MixedBatches, Placement, Sample, Viewer
from mtframe.errors import RecipeError
from mtframe.inference import load_run
from mtframe.kinds import FeatureSpec
from mtframe.recipe import Recipe
from mtframe.registry import resolve
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe_classification.image_crop import ImageCrop
from mtframe_classification.targets import Label, Labels, Value
from mtframe_detection.boxes import Boxes
from mtframe_detection.coco import Coco
from mtframe_detection.letterbox import Letterbox
from mtframe_face.alignment import TEMPLATE, FaceAlign
from mtframe_face.crop import FaceCrop
from mtframe_face.identity import Identity
from mtframe_face.lfw import LFW
from placed import collated, labelled
from small import Small
from toy import toy_recipe

BOXES = Boxes(DataInfo("boxes", ("cat", "dog")))
STILL = dict.fromkeys(("flip", "rotate", "scale", "shift", "brightness", "contrast", "saturation"), 0.0)


def scene(height: int, width: int, box: list[float], *, decoded: float = 1.0) -> Sample:
    """A dark picture with one white rectangle, and a face's points in its middle."""
    rows, columns = round(height * decoded), round(width * decoded)
    image = torch.zeros(3, rows, columns, dtype=torch.uint8)
    x1, y1, x2, y2 = (round(side * decoded) for side in box)
    image[:, y1:y2, x1:x2] = 255
    points = (TEMPLATE - 56) / 112 * min(height, width) + [width / 2, height / 2]
    target = {
        "boxes": torch.tensor([box], dtype=torch.float64), "labels": torch.tensor([1]), "crowd": torch.tensor([False]),
        "landmarks": torch.from_numpy(points).float(),
    }  # fmt: skip
    return Sample(image, target, (height, width))


def white(image: Tensor) -> list[float]:
    """The rectangle around what is white, XYXY, where it is half as bright as white."""
    rows, columns = (image[0] > 127).any(1).nonzero(), (image[0] > 127).any(0).nonzero()
    return [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]


@pytest.mark.parametrize(
    ("transform", "box"),
    [
        (FaceCrop(96, False, crop=0.8), [70, 50, 110, 90]),
        (FaceCrop(96, True, **STILL | {"rotate": 25.0, "crop": 0.8}), [70, 50, 110, 90]),
        (FaceCrop(96, True, **STILL | {"scale": 0.3, "flip": 0.5, "shift": 0.1, "crop": 0.8}), [60, 70, 90, 80]),
        (FaceAlign(96, False), [70, 50, 110, 90]),
        (FaceAlign(96, True, **STILL | {"rotate": 60.0, "flip": 0.5}), [70, 50, 110, 90]),
    ],
    ids=["face-crop", "turned", "moved", "face-align", "aligned and turned"],
)
@pytest.mark.parametrize("decoded", [1.0, 0.5])
def test_boxes_on_images_of_faces_are_around_what_they_were_around(
    transform: Any, box: list[float], decoded: float
) -> None:
    samples, rng = [scene(140, 180, box, decoded=decoded)] * 6, np.random.default_rng(1)
    inputs, targets = labelled(transform, BOXES, samples, rng)
    assert targets["valid"].all()
    assert targets["labels"].tolist() == [[1]] * 6
    seen = [white(image) for image in inputs.images]
    for found, expected in zip(targets["boxes"][:, 0].tolist(), seen, strict=True):
        # Where corners are turned into, the last pixels of white are not half white.
        assert found == pytest.approx(expected, abs=2.0)
    if transform.train:
        assert len({tuple(box) for box in seen}) > 1


def test_boxes_are_cut_where_a_face_crop_ends_and_slivers_are_not_asked_for() -> None:
    # Of 200 x 200 the middle 100 are seen, one to one.
    transform = FaceCrop(100, True, **STILL | {"crop": 0.5})
    boxes = [
        [60.0, 60, 90, 100],  # inside
        [30.0, 80, 80, 120],  # three fifths are seen
        [140.0, 100, 190, 120],  # a fifth is, which is enough
        [145.0, 100, 190, 120],  # a ninth is not
        [0.0, 0, 40, 40],  # nothing is
        [0.0, 0, 200, 200],  # a quarter
    ]
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float64), "labels": torch.arange(6) % 2,
        "crowd": torch.tensor([False] * 6),
    }  # fmt: skip
    sample = Sample(torch.zeros(3, 200, 200, dtype=torch.uint8), target, (200, 200))
    _, targets = labelled(transform, BOXES, [sample])
    torch.testing.assert_close(
        targets["boxes"][0], torch.tensor([[10.0, 10, 40, 50], [0, 30, 30, 70], [90, 50, 100, 70], [0, 0, 100, 100]])
    )
    assert targets["labels"].tolist() == [[0, 1, 0, 1]]
    torch.testing.assert_close(targets["ignore"][0], torch.tensor([[95.0, 50, 100, 70]]))
    # In evaluation nothing that is seen at all is left aside.
    _, exact = labelled(FaceCrop(100, False, crop=0.5), BOXES, [sample])
    assert (exact["valid"].sum(), exact["ignore_valid"].sum()) == (5, 0)


def test_a_turned_box_is_the_rectangle_around_it() -> None:
    angle = 0.3
    inverse = np.array([[math.cos(angle), -math.sin(angle), 5], [math.sin(angle), math.cos(angle), -8]])
    place = Placement.by_inverse(inverse, (100, 100), (100, 100))
    label = {
        "boxes": torch.tensor([[40.0, 30, 60, 50]]).double(), "labels": torch.tensor([0]),
        "crowd": torch.tensor([False]),
    }  # fmt: skip
    (found,) = BOXES.placed([(label, place)])["boxes"].tolist()
    # By hand: of the four corners, each turned back by the angle.
    there = [
        (math.cos(angle) * (x - 5) + math.sin(angle) * (y + 8), -math.sin(angle) * (x - 5) + math.cos(angle) * (y + 8))
        for x in (40, 60) for y in (30, 50)
    ]  # fmt: skip
    xs, ys = zip(*there, strict=True)
    assert found == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=1e-4)


def flat(level: int, target: Mapping[str, Tensor]) -> Sample:
    return Sample(torch.full((3, 50, 50), level, dtype=torch.uint8), dict(target), (50, 50))


def test_labels_on_mosaics_are_the_parts_of_the_pixels() -> None:
    levels = [10, 90, 170, 250]
    # Magnified until each image fills its window.
    transform = Letterbox(96, True, mosaic=1.0, scale=(4.0, 4.0), brightness=0, contrast=0, saturation=0)
    label = Label(DataInfo("label", ("a", "b", "c", "d")))
    several = Labels(DataInfo("labels", ("odd", "high")))
    samples = [
        flat(level, {"label": torch.tensor(n), "labels": torch.tensor([float(n % 2), float(n > 1)])})
        for n, level in enumerate(levels)
    ]
    for seed in range(4):
        inputs = transform(samples, np.random.default_rng(seed))
        pixels = torch.stack([(inputs.images[:, 0] == level).float().mean((1, 2)) for level in levels], dim=1)
        torch.testing.assert_close(pixels.sum(1), torch.ones(4))
        targets = collated(label, samples, inputs)
        assert targets["label"].tolist() == [0, 1, 2, 3]
        torch.testing.assert_close(targets["probabilities"], pixels)
        torch.testing.assert_close(
            collated(several, samples, inputs)["labels"],
            torch.stack([pixels[:, 1] + pixels[:, 3], pixels[:, 2] + pixels[:, 3]], dim=1),
        )
    # Of one that is not known the mixture is not known either, but for what all know.
    samples[3].target |= {"label": torch.tensor(-1), "labels": torch.tensor([math.nan, 1.0])}
    holds = pixels[:, 3] > 0
    assert holds.any()
    assert torch.equal(label.known(collated(label, samples, inputs)), ~holds)
    mixed = collated(several, samples, inputs)["labels"]
    assert torch.equal(mixed[:, 0].isnan(), holds)
    assert not mixed[:, 1].isnan().any()


def test_boxes_on_mosaics_stay_in_their_windows() -> None:
    samples = [scene(100, 100, [20, 30, 70, 60]), scene(120, 90, [10, 10, 60, 100])]
    transform = Letterbox(128, True, mosaic=1.0, min_visible=0.0, brightness=0, contrast=0, saturation=0)
    rng, count = np.random.default_rng(0), 0
    for _ in range(10):
        inputs, targets = labelled(transform, BOXES, samples, rng)
        for image, boxes, valid in zip(inputs.images, targets["boxes"], targets["valid"], strict=True):
            for x1, y1, x2, y2 in boxes[valid].round().int().tolist():
                part = image[0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
                assert part.numel() == 0 or (part > 200).all()
                count += part.numel() > 0
            outside = image[0].clone()
            for x1, y1, x2, y2 in boxes[valid].tolist():
                top, left = max(0, math.floor(y1) - 1), max(0, math.floor(x1) - 1)
                outside[top : math.ceil(y2) + 1, left : math.ceil(x2) + 1] = 0
            # Less than two pixels that a window leaves of a thing, however long, are none to look for.
            assert (outside > 200).sum() < 2 * 128
    assert count > 40


def test_numbers_and_people_are_theirs_wherever_they_are_seen() -> None:
    value, identity = Value(DataInfo("value", ("x", "y"))), Identity(DataInfo("identity", ("ann", "bob")))
    target = {"value": torch.tensor([1.5, math.nan]), "label": torch.tensor(1)}
    samples = [flat(100, target), flat(50, {"value": torch.full((2,), math.nan), "label": torch.tensor(-1)})]
    for transform in (ImageCrop(32, True), Letterbox(32, True), FaceCrop(32, True)):
        inputs = transform(samples, np.random.default_rng(0))
        numbers, people = collated(value, samples, inputs), collated(identity, samples, inputs)
        torch.testing.assert_close(
            numbers["value"], torch.tensor([[1.5, math.nan], [math.nan, math.nan]]), equal_nan=True
        )
        assert people["label"].tolist() == [1, -1]
        assert value.known(numbers).tolist() == identity.known(people).tolist() == [True, False]


# A kind whose labels cannot be mixed, on images that are: its own, or lent.


class Numbers:
    """Numbers of the toy's images."""

    target = "value"
    splits = ("train", "val")

    def __init__(self, split: str) -> None:
        self.info = DataInfo("value", ("x",))
        self.decode_size = None

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        return Sample(torch.zeros(3, 16, 16, dtype=torch.uint8), self.target_of("", (16, 16)), (16, 16), index)

    def ids(self) -> list[str]:
        return ["a", "b", "c", "d"]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"value": torch.tensor([0.5])}


REGRESSION = {"dataset": f"{Path(__file__).resolve()}:Numbers", "head": "regressor", "loss": "regression",
              "metrics": ["regression"]}  # fmt: skip


@pytest.mark.parametrize(
    ("transform", "said"),
    [({"name": "letterbox", "mosaic": 0.5}, "mosaic"), ({"name": "image-crop", "mixup": 0.2}, "mixup"),
     ({"name": "image-crop", "cutmix": 1.0}, "cutmix")],
)  # fmt: skip
def test_numbers_refuse_to_be_mixed_and_the_message_says_what_to_do(transform: dict[str, Any], said: str) -> None:
    def message(tasks: dict[str, Any]) -> str:
        with pytest.raises(RecipeError) as raised:
            Assembly(Recipe.from_plain(toy_recipe(tasks))).sources()
        return str(raised.value)

    how = (
        " makes one image of several, and a target of kind 'value' cannot be one of several; switch off what mixes "
        "them (mosaic, mixup, cutmix)"
    )
    assert said in how
    assert message({"own": {**REGRESSION, "transform": transform}}) == (
        f"tasks.own.transform: the transform of 'own'{how}"
    )
    plain = toy_recipe({"one": {"transform": transform}})
    plain["tasks"]["lent"] = {**REGRESSION, "images": "one"}
    with pytest.raises(RecipeError) as raised:
        Assembly(Recipe.from_plain(plain)).sources()
    assert str(raised.value) == f"tasks.lent.images: the transform of 'one'{how}"
    # Without what mixes them they are lent.
    plain["tasks"]["one"]["transform"] = {"name": transform["name"]}
    assert list(Assembly(Recipe.from_plain(plain)).sources()["one"].viewers) == ["one", "lent"]


# What is not known teaches nothing.

FEATURES = (FeatureSpec("c3", 6, 8), FeatureSpec("c4", 8, 16), FeatureSpec("c5", 8, 32))
PEOPLE = DataInfo("identity", ("ann", "bob", "cleo"))
THINGS = DataInfo("boxes", ("cat", "dog"))
KINDS: dict[str, tuple[Any, DataInfo, list[dict[str, Tensor]]]] = {
    "identity": (Identity, PEOPLE, [{"label": torch.tensor(n)} for n in (0, 0, 1, 1)]),
    "boxes": (
        Boxes, THINGS,
        [
            {"boxes": torch.tensor([[4.0 + n, 8, 40, 60]]).double(), "labels": torch.tensor([n % 2]),
             "crowd": torch.tensor([False])}
            for n in range(4)
        ],
    ),
    "label": (Label, DataInfo("label", ("a", "b", "c")), [{"label": torch.tensor(n % 3)} for n in range(4)]),
    "labels": (
        Labels, DataInfo("labels", ("a", "b")), [{"labels": torch.tensor([n % 2, 1.0])} for n in range(4)]
    ),
    "value": (Value, DataInfo("value", ("x", "y")), [{"value": torch.tensor([float(n), -1.0])} for n in range(4)]),
}  # fmt: skip
PARTS = [
    *(("identity", "embedding", loss) for loss in ("softmax", "cosface", "arcface", "adaface", "triplet")),
    ("identity", "tutorial-face", "tutorial-face"),
    *(("boxes", head, loss) for head in ("dense", "rfcn") for loss in ("detection", "cross-entropy-iou")),
    ("boxes", "tutorial-detector", "tutorial-detector"),
    ("label", "classifier", "cross-entropy"),
    ("labels", "classifier", "binary-cross-entropy"),
    ("value", "regressor", "regression"),
]


def built(kind: str, head: str, loss: str) -> tuple[Any, Any, Any]:
    make, info, _ = KINDS[kind]
    torch.manual_seed(0)
    options = {"rfcn": {"proposals": 20}, "embedding": {"dim": 8}}.get(head, {})
    module = resolve("head", head).component(FEATURES, info, **options)
    criterion = resolve("loss", loss).component
    wired = {"head": module, "info": info}
    names = criterion.__init__.__code__.co_varnames[: criterion.__init__.__code__.co_argcount]
    return make(info), module, criterion(**{name: wired[name] for name in names if name in wired})


def maps_of(size: int, count: int = 4) -> list[Tensor]:
    """As of images of a size that strides need not divide: cells beyond the edge see nothing of an image."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(count, f.channels, *[-(-size // f.stride)] * 2, generator=generator).requires_grad_()
        for f in FEATURES
    ]  # fmt: skip


PLACES = {
    "whole": lambda n, size: [Placement.scaled((100, 100), (size, size), (size / 100,) * 2, sample=n)],
    "turned": lambda n, size: [
        Placement.by_inverse(np.array([[0.8, -0.6, 30], [0.6, 0.8, -9]]), (100, 100), (size, size), sample=n)
    ],
    # Of itself alone, four times.
    "mosaic": lambda n, size: [
        replace(
            Placement.scaled((100, 100), (size, size), (1.0, 1.0), (x, y), sample=n), window=window, min_visible=0.2
        )
        for x, y, *window in (
            (0, 0, 0.0, 0.0, 36.0, 44.0), (36, 0, 36.0, 0.0, float(size), 44.0),
            (0, 44, 0.0, 44.0, 36.0, float(size)), (36, 44, 36.0, 44.0, float(size), float(size)),
        )
    ],
}  # fmt: skip


def targets_of(target: Any, labels: list[dict[str, Tensor]], size: int, place: str) -> dict[str, Tensor]:
    return target.collate(
        [
            target.placed([(label, where) for where in PLACES[place](number, size)])
            for number, label in enumerate(labels)
        ]
    )


def loss_of(criterion: Any, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(criterion(outputs, targets).values())).sum()


@pytest.mark.parametrize(("kind", "head", "loss"), PARTS, ids=str)
@pytest.mark.parametrize("size", [96, 100])
@pytest.mark.parametrize("place", PLACES)
def test_images_of_which_nothing_is_known_teach_nothing(kind: str, head: str, loss: str, size: int, place: str) -> None:
    target, module, criterion = built(kind, head, loss)
    if place == "mosaic" and not target.mixes:
        pytest.skip("these labels refuse to be mixed")
    unknown = targets_of(target, [target.unknown()] * 4, size, place)
    assert not target.known(unknown).any()
    value = loss_of(criterion, module(maps_of(size)), unknown)
    assert value == 0
    value.backward()
    for part in (module, criterion):
        assert all(weight.grad is None or not weight.grad.any() for weight in part.parameters())


@pytest.mark.parametrize(("kind", "head", "loss"), PARTS, ids=str)
@pytest.mark.parametrize("size", [96, 100])
def test_images_of_which_nothing_is_known_teach_nothing_beside_others(
    kind: str, head: str, loss: str, size: int
) -> None:
    """By the gradient of what the head says of each image: BatchNorm sees all of a batch, known or not."""
    target, module, criterion = built(kind, head, loss)
    labels = list(KINDS[kind][2])
    labels[1:1] = [target.unknown()]
    targets = targets_of(target, labels, size, "whole")
    assert target.known(targets).tolist() == [True, False, True, True, True]
    outputs = module(maps_of(size, 5))
    learned = {
        name: value.detach().requires_grad_() if value.is_floating_point() else value for name, value in outputs.items()
    }
    loss_of(criterion, learned, targets).backward()
    gradients = {
        name: value.grad for name, value in learned.items()
        if value.requires_grad and value.grad is not None and len(value) == 5 and value.grad.any()
    }  # fmt: skip
    assert gradients
    for name, gradient in gradients.items():
        assert not gradient[1].any(), name
        taught = [bool(row.any()) for row in gradient]
        assert sum(taught) >= 2, (name, taught)


def test_an_image_of_which_nothing_is_known_is_no_image_on_which_nothing_is() -> None:
    """No box at all is knowledge: all that is found there is wrong."""
    target, module, criterion = built("boxes", "dense", "detection")
    empty = {"boxes": torch.zeros(0, 4).double(), "labels": torch.zeros(0).long(), "crowd": torch.zeros(0).bool()}
    targets = targets_of(target, [empty] * 4, 96, "whole")
    assert target.known(targets).all()
    assert loss_of(criterion, module(maps_of(96)), targets) > 0
    assert Viewer(target).collated([empty], letterboxed()) is not None
    assert Viewer(target).collated([target.unknown()], letterboxed()) is None


def letterboxed() -> Any:
    sample = Sample(torch.zeros(3, 100, 100, dtype=torch.uint8), {}, (100, 100))
    return Letterbox(96, False)([sample], np.random.default_rng(0))


def test_an_unknown_window_of_a_mosaic_leaves_the_others_alone() -> None:
    """Nothing is asked for where the unknown image is; things beside it are learned."""
    size = 96
    target = BOXES
    known = {"boxes": torch.tensor([[0.0, 0, 40, 40]]).double(), "labels": torch.tensor([0]),
             "crowd": torch.tensor([False])}  # fmt: skip
    left, right = (
        replace(Placement.scaled((96, 96), (size, size), (1.0, 1.0), (x, 0.0)), window=window, min_visible=0.2)
        for x, window in ((0.0, (0.0, 0.0, 48.0, 96.0)), (48.0, (48.0, 0.0, 96.0, 96.0)))
    )
    placed = target.placed([(known, left), (target.unknown(), right)])
    assert placed["known"]
    assert placed["boxes"].tolist() == [[0, 0, 40, 40]]
    (region,) = placed["ignore"].tolist()
    assert region[0] == pytest.approx(48, abs=0.01)
    assert region[1] < -100
    assert min(region[2:]) > 200


def test_boxes_on_pictures_of_people_are_trained_evaluated_and_predicted(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every other training picture it is known where the face is; a whole training, with parts as they are used."""
    root = Path(shutil.copytree(small.faces, tmp_path / "faces"))
    for split in ("train", "val"):
        people = LFW(split, root=root)
        files = [people[index].id.partition("/")[2] for index in range(len(people))][:: 2 if split == "train" else 1]
        images = [{"id": n, "file_name": file, "height": 64, "width": 64} for n, file in enumerate(files)]
        boxes = [{"id": n + 1, "image_id": n, "category_id": 1, "bbox": [18, 14, 28, 36], "iscrowd": 0}
                 for n in range(len(files))]  # fmt: skip
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "face"}]}
        (root / f"boxes_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    plain = toy_recipe({}, steps=2)
    plain["tasks"] = {
        "faces": {
            "dataset": {"name": "lfw", "root": str(root)}, "transform": {"name": "face-crop", "crop": 1.0},
            "head": {"name": "embedding", "dim": 8}, "loss": "softmax", "metrics": ["face-verification"], "size": 64,
            "batch_size": 4,
        },
        "where": {
            "dataset": {"name": "coco", "root": str(root), "annotations": "boxes_{split}.json",
                        "images": "lfw-deepfunneled"},
            "head": {"name": "dense", "width": 8, "depth": 0, "score_threshold": 0.0}, "loss": "detection",
            "metrics": ["coco-ap"], "images": "faces",
        },
    }  # fmt: skip
    parts = Assembly(Recipe.from_plain(plain).check())
    batch = MixedBatches(parts.sources(), seed=0)[0]
    assert isinstance(batch, dict)
    known = batch["faces"].targets["where"]["known"]
    assert batch["faces"].targets.keys() == {"faces", "where"}
    assert known.any()
    # Twice as far into the picture as LFW's own crop: the box is in the middle of the input.
    middle = batch["faces"].targets["where"]["boxes"][known].mean(1).view(-1, 2, 2).mean(1)
    assert (middle - 32).abs().max() < 20

    reads = Counter[str]()
    for data in (LFW, Coco):
        monkeypatch.setattr(data, "__getitem__", counted(data, reads))
    results = Trainer(parts, RunFolder(tmp_path / "run")).fit()
    images = results["faces"].images
    assert results["where"].images == images > 0
    assert 0 <= results["where"].values["AP"] <= 1
    assert reads == {"LFW": 2 * 4 + images}, "each validation picture once, and for no other task"
    predictor = load_run(tmp_path / "run", device="cpu")
    found = predictor.predict(next((root / "lfw-deepfunneled").rglob("*.jpg")))
    assert (found["where"]["boxes"] <= 64).all()
    assert found["faces"]["embedding"].shape == (8,)


def counted(data: Any, reads: Counter[str]) -> Any:
    real = data.__getitem__

    def read(self: Any, index: int) -> Sample:
        reads[data.__name__] += 1
        return real(self, index)

    return read
