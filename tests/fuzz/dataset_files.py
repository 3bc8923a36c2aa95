"""Readers of data sets: what they read is used as training and evaluation use it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from mutations import JPEG, JSON, PNG, RECORDS, TEXT, YAML, pickled
from PIL import Image
from reader import Reader

from converted import voc_xml, write, write_yolo
from mtframe.errors import MtframeError
from mtframe.kinds import LabelsImages
from mtframe_classification.csv_images import CsvImages
from mtframe_classification.image_folder import ImageFolder
from mtframe_classification.metrics import Classification, MultiLabel
from mtframe_classification.metrics import Regression as Numbers
from mtframe_classification.targets import Label, Labels, Value
from mtframe_detection.average_precision import CocoAP
from mtframe_detection.boxes import Boxes
from mtframe_detection.coco import Coco
from mtframe_detection.letterbox import Letterbox
from mtframe_detection.voc import Voc
from mtframe_detection.yolo import Yolo
from mtframe_face.alignment import FaceAlign
from mtframe_face.identification import FaceIdentification
from mtframe_face.identity import Identity
from mtframe_face.identity_folders import IdentityFolders
from mtframe_face.insightface import InsightFace
from mtframe_face.lfw import LFW
from mtframe_face.verification import FaceVerification
from mtframe_segmentation.masks import Masks
from mtframe_segmentation.mean_iou import MeanIoU
from mtframe_segmentation.semantic_masks import SemanticMasks
from record_files import jpeg, write_training

# Whoever changes a count must not make a test of minutes of it.
_MOST = 12


def use(data: Any, target: Any, metrics: Iterable[Callable[[], Any]] = (), transform: Any = None) -> None:
    """Reads all images, gives them to metrics, and asks what is asked of a data set."""
    samples = []
    for index in range(min(len(data), _MOST)):
        # As a training does: it passes over images that cannot be read.
        with suppress(MtframeError):
            samples.append(data[index])
            target.check_label(samples[-1].target, samples[-1].size)
    pickle.dumps(data)
    tuple(data.notes)
    if isinstance(data, LabelsImages):
        for sample in samples:
            target.check_label(data.target_of(sample.id, sample.size), sample.size)
    for sample in samples if transform is not None else ():
        transform([sample], np.random.default_rng(0))
    for make in metrics:
        with suppress(MtframeError):
            metric = make()
            metric.update([target.perfect(sample) for sample in samples], samples)
            metric.compute()


def boxes(dataset: Any, root: Path, **more: Any) -> None:
    # Whatever lies there, this only says no.
    dataset.recognises(root)
    for split in ("train", "val"):
        data = dataset(split, root=root, **more)
        target = Boxes(data.info)
        use(data, target, [partial(CocoAP, data.info, data)], Letterbox(64, split == "train"))


def labelled(root: Path, *, of: str = "label", dataset: Any = CsvImages, **more: Any) -> None:
    target, metric = {"label": (Label, Classification), "labels": (Labels, MultiLabel), "value": (Value, Numbers)}[of]
    for split in ("train", "val"):
        data = dataset(split, root=root, **more)
        use(data, target(data.info), [partial(metric, data.info, data)])


def masks(root: Path, **more: Any) -> None:
    for split in ("train", "val"):
        data = SemanticMasks(split, root=root, **more)
        use(data, Masks(data.info), [partial(MeanIoU, data.info, data)])


def faces(dataset: Any, root: Path, splits: tuple[str, ...] = ("train", "val"), **more: Any) -> None:
    for split in splits:
        data = dataset(split, root=root, **more)
        metrics = [] if split == "train" else [partial(FaceVerification, data), partial(FaceIdentification, data)]
        transform = FaceAlign(56, split == "train") if more.get("landmarks") else None
        use(data, Identity(data.info), metrics, transform)
        if split == "train":
            data.order(np.random.default_rng(0))


def write_coco(root: Path) -> None:
    Coco.synthesize(root, train=2, val=2, size=64, workers=1)


def write_yolo_files(root: Path) -> None:
    write_coco(root / "coco")
    for split in Yolo.splits[:2]:
        write_yolo(Coco(split, root=root / "coco"), root)
    names = (root / "classes.txt").read_text(encoding="utf-8").splitlines()
    first = sorted((root / "labels" / "train").iterdir())[0]
    first.write_text("0 0.5 0.5 0.2 0.25\n1 0.1 0.1 0.3 0.1 0.3 0.3\n", encoding="utf-8")
    first.rename(first.with_name("00.txt"))
    picture(root / "images/train/00.jpg")
    listed = [f"./images/train/{path.name}" for path in sorted((root / "images/train").iterdir())]
    write(root / "train.txt", "\n".join(listed) + "\n")
    write(root / "data.yaml", f"path: .\nnames: [{', '.join(names)}]\nnc: {len(names)}\ntrain: train.txt\n"
                              "val: [images/val]\n")  # fmt: skip


def write_voc_files(root: Path) -> None:
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        things = [("dog", 11, 21, 30, 60), ("cat", 1, 1, 100, 80, "<difficult>1</difficult>")]
        write(root / f"Annotations/{name}.xml", voc_xml(things))
        picture(root / f"JPEGImages/{name}.jpg")
        names = root / f"ImageSets/Main/{split}.txt"
        write(names, (names.read_text(encoding="utf-8") if names.exists() else "") + f"{name} 1\n")


def picture(path: Path, size: tuple[int, int] = (100, 80), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_table(root: Path) -> None:
    CsvImages.synthesize(root, train=10, val=4, size=32, workers=1)


def write_folders(root: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            picture(root / split / name / "1.jpg", (24, 24))


def write_masks(root: Path) -> None:
    for name in ("train/a", "train/b", "val/c"):
        picture(root / "images" / f"{name}.png", (12, 8))
        numbers = np.random.default_rng(0).integers(0, 3, (8, 12), dtype=np.uint8)
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers).save(root / "masks" / f"{name}.png")
    write(root / "classes.txt", "sky\nroad\ncar\n")
    write(root / "classes.yaml", "classes: {0: sky, 1: road, 2: car}\n")
    write(root / "lists/train.txt", "a.png\nb\n")
    write(root / "lists/val.txt", "c\n")


def write_lfw(root: Path) -> None:
    for name, count in {"Ann": 3, "Bob": 2, "Kim": 3, "Lea": 2, "Max": 2}.items():
        for number in range(1, count + 1):
            picture(root / "lfw-deepfunneled" / name / f"{name}_{number:04d}.jpg", (40, 40), number)
    write(root / "peopleDevTrain.txt", "2\nAnn\t3\nBob\t2\n")
    write(root / "pairsDevTest.txt", "2\nKim\t1\t3\nLea\t1\t2\nKim\t2\tMax\t1\nKim\t1\tLea\t1\n")
    write(root / "pairs.txt", "2\t1\nMax\t1\t2\nKim\t1\tMax\t2\nKim\t1\t2\nKim\t3\tLea\t1\n")
    points = "12,14,28,14,20,22,14,30,26,30"
    people = sorted((root / "lfw-deepfunneled").glob("*/*.jpg"))
    write(root / "points.csv", "".join(f"{path.relative_to(root).as_posix()},{points}\n" for path in people))


def write_identities(root: Path) -> None:
    IdentityFolders.synthesize(root, people=2, images=2, test_people=3, size=48, workers=1)


def write_records(root: Path) -> None:
    write_training(root, [2, 1, 2])


def write_plain_records(root: Path) -> None:
    write_training(root, [2, 1], with_ranges=False)


@cache
def pairs_value() -> list[Any]:
    return [[jpeg(seed, 8) for seed in range(8)], [True, False, True, False]]


def write_pickle(root: Path) -> None:
    (root / "lfw.bin").write_bytes(pickle.dumps(pairs_value(), protocol=2))


COCO = "annotations/instances_train2017.json"
READERS = [
    Reader("coco: json", write_coco, COCO, JSON, partial(boxes, Coco)),
    Reader("coco: image", write_coco, "train2017/000000000001.jpg", JPEG, partial(boxes, Coco)),
    Reader("yolo: yaml", write_yolo_files, "data.yaml", YAML, partial(boxes, Yolo)),
    Reader("yolo: labels", write_yolo_files, "labels/train/00.txt", TEXT, partial(boxes, Yolo)),
    Reader("yolo: list", write_yolo_files, "train.txt", TEXT, partial(boxes, Yolo)),
    Reader("voc: xml", write_voc_files, "Annotations/a.xml", TEXT, partial(boxes, Voc)),
    Reader("voc: xml, classes found", write_voc_files, "Annotations/a.xml", TEXT, partial(boxes, Voc, classes="found")),
    Reader("voc: list", write_voc_files, "ImageSets/Main/train.txt", TEXT, partial(boxes, Voc)),
    Reader("csv: label", write_table, "labels.csv", TEXT, partial(labelled, label="scene")),
    Reader("csv: columns", write_table, "labels.csv", TEXT, partial(labelled, of="labels", labels=("sun", "birds"))),
    Reader("csv: names in cells", write_table, "labels.csv", TEXT, partial(labelled, of="labels", labels="scene")),
    Reader("csv: numbers", write_table, "labels.csv", TEXT, partial(labelled, of="value", values=("horizon", "tilt"))),
    Reader("image-folder: image", write_folders, "train/cat/1.jpg", JPEG, partial(labelled, dataset=ImageFolder)),
    Reader("semantic-masks: mask", write_masks, "masks/train/a.png", PNG, masks),
    Reader("semantic-masks: image", write_masks, "images/train/a.png", PNG, masks),
    Reader("semantic-masks: classes.txt", write_masks, "classes.txt", TEXT, masks),
    Reader("semantic-masks: classes.yaml", write_masks, "classes.yaml", YAML, partial(masks, classes="classes.yaml")),
    Reader("semantic-masks: list", write_masks, "lists/train.txt", TEXT, partial(masks, lists="lists/{split}.txt")),
    Reader("lfw: people", write_lfw, "peopleDevTrain.txt", TEXT, partial(faces, LFW)),
    Reader("lfw: pairs of view 1", write_lfw, "pairsDevTest.txt", TEXT, partial(faces, LFW, people=None)),
    Reader("lfw: pairs of view 2", write_lfw, "pairs.txt", TEXT, partial(faces, LFW, splits=("test",), people=None)),
    Reader("lfw: landmarks", write_lfw, "points.csv", TEXT, partial(faces, LFW, landmarks="points.csv")),
    Reader("identity-folders: landmarks", write_identities, "landmarks.csv", TEXT,
           partial(faces, IdentityFolders, landmarks="landmarks.csv")),
    Reader("insightface: train.rec", write_records, "train.rec", RECORDS,
           partial(faces, InsightFace, splits=("train",))),
    Reader("insightface: train.rec without ranges", write_plain_records, "train.rec", RECORDS,
           partial(faces, InsightFace, splits=("train",))),
    Reader("insightface: train.idx", write_records, "train.idx", TEXT, partial(faces, InsightFace, splits=("train",))),
    Reader("insightface: pairs", write_pickle, "lfw.bin", pickled(pairs_value()),
           partial(faces, InsightFace, splits=("val",))),
]  # fmt: skip
