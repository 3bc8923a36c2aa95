"""Attributes of faces as a third task beside people and objects: is what it learns true of people it has not seen?

    python tests/benchmarks/face_attributes.py [--people 120] [--epochs 20]

Renders people and scenes, writes the attributes that the renderer knows of each picture to a csv file with LFW's
paths, a fifth of its cells empty, and trains faces, objects and attributes with one backbone; the attributes are
those of the faces' images and share their pass. Prints how often each attribute applies, which is about the AP of
chance, then the command and its table.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mtframe_detection.coco import Coco
from mtframe_face._render import Person, View
from mtframe_face.lfw import LFW
from mtframe_face.synthesis import _NAMES, _PERSON, _VIEW, IMAGES, _names

NAMES = ("beard", "moustache", "smile", "mouth_open")
TEST_PEOPLE, PICTURES, SIZE = 40, 8, 96


def main() -> None:
    """Makes the data, trains, and prints the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        LFW.synthesize(root / "people", people=given.people, images=PICTURES, test_people=TEST_PEOPLE, pairs=300,
                       size=SIZE)  # fmt: skip
        Coco.synthesize(root / "scenes", train=given.people * PICTURES // 4, val=100, size=SIZE)
        write_attributes(root / "people" / "attributes.csv", given.people)
        command = [str(Path(sys.executable).with_name("mtframe")), *arguments(given), "--out", "run"]
        print(" ".join(command), flush=True)
        subprocess.run(command, cwd=root, check=True)


def arguments(given: argparse.Namespace) -> list[str]:
    """Of `mtframe train`."""
    return [
        "train", "-b", "timm/test_resnet.r160_in1k", "backbone.pretrained=false", "train.precision=fp32",
        "train.workers=0", "train.lr=3e-3", f"train.epochs={given.epochs}", "train.evaluate_every=null",
        "-t", "attributes=multi-label-classification:people", "tasks.attributes.images=faces",
        "tasks.attributes.dataset.file=attributes.csv", f"tasks.attributes.dataset.labels=[{','.join(NAMES)}]",
        "-t", "faces=face-recognition:people", "tasks.faces.size=64", "tasks.faces.batch_size=32",
        "-t", "objects=object-detection:scenes", "tasks.objects.size=96", "tasks.objects.batch_size=8",
    ]  # fmt: skip


def write_attributes(path: Path, people: int) -> None:
    """What is drawn: of a person a beard and a moustache, of a picture a smile and an open mouth."""
    names = _names(people + TEST_PEOPLE, np.random.default_rng([0, _NAMES]))
    rows, rng = [], np.random.default_rng(0)
    for number in range(len(names)):
        person = Person.draw(np.random.default_rng([0, _PERSON, number]))
        for picture in range(PICTURES):
            view = View.draw(np.random.default_rng([0, _VIEW, number, picture]))
            rows.append([person.beard > 0, person.moustache > 0, view.smile > 0.25, view.mouth_open > 0])
    applies = np.array(rows)
    print("applies to:", dict(zip(NAMES, applies.mean(0).round(2).tolist(), strict=True)), flush=True)
    hidden = rng.random(applies.shape) < 0.2
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", *NAMES])
        for place, (known, unknown) in enumerate(zip(applies, hidden, strict=True)):
            name, picture = names[place // PICTURES], place % PICTURES + 1
            cells = ["" if gap else str(int(cell)) for cell, gap in zip(known, unknown, strict=True)]
            split = "train" if place < people * PICTURES else "val"
            table.writerow([f"{IMAGES}/{name}/{name}_{picture:04d}.jpg", split, *cells])


if __name__ == "__main__":
    main()
