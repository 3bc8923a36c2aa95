"""Files that once got more out of a reader than a result or a message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_files
import other_files
import pytest
import run_files
import torch
from mutations import JSON, TAR, TORCH, ZIP, put_at
from reader import Fed

from mtframe.errors import MtframeError

READERS = {reader.name: reader for part in (dataset_files, other_files, run_files) for reader in part.READERS}
LONG = "x" * 300
DEEP = b"[" * 100_000

Edit = Callable[[bytes], bytes]


def set_to(value: bytes | str) -> Edit:
    return lambda _: value.encode() if isinstance(value, str) else value


def swap(old: str, new: str) -> Edit:
    return lambda valid: valid.replace(old.encode(), new.encode())


def json_at(*place: Any, value: Any) -> Edit:
    return lambda valid: JSON.put(put_at(json.loads(valid), place, value))


def torch_at(*place: Any, change: Callable[[Any], Any]) -> Edit:
    def edit(valid: bytes) -> bytes:
        value = found = TORCH.take(valid)
        for key in place:
            found = found[key]
        return TORCH.put(put_at(value, place, change(found)))

    return edit


def with_key(key: object) -> Edit:
    return lambda valid: TORCH.put({**TORCH.take(valid), key: torch.zeros(1)})


def as_complex(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex64)


def without_values(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


ORIGIN = {"kind": "backbone", "name": "x", "version": "1"}

# A reader, the change, and what it says; nothing where the file can be read all the same.
KNOWN: list[tuple[str, Edit, str | None]] = [
    ("coco: json", json_at("annotations", 0, "bbox", value=[1e308, 0, 1e308, 1]), None),
    ("coco: json", json_at("annotations", 0, "area", value=1e300), "area should be a number of pixels, 0 or more"),
    ("coco: json", json_at("images", 0, "file_name", value="\ud800.jpg"), "file_name should be text"),
    ("coco: json", json_at("categories", 0, "name", value="\udcff"), "name should be text"),
    ("yolo: list", set_to(f"./images/train/00.jpg\n{LONG}/a.jpg\n"), "File name too long"),
    ("yolo: list", set_to(f"{LONG}/a.jpg\n"), "no folder of labels"),
    ("yolo: list", set_to("./images/train/00.jpg\n.\n"), "1 of 2 lines would have to be left out"),
    ("yolo: yaml", swap("train: train.txt", f"train: {LONG}.txt"), "no folder or list of images"),
    ("yolo: yaml", swap("path: .", f"path: {LONG}"), None),
    ("lfw: people", set_to(f"3\nAnn\t3\nBob\t2\n{LONG}\t1\n"), None),
    ("lfw: pairs of view 1", swap("Kim\t1\t3", f"{LONG}\t1\t3"), None),
    ("lfw: landmarks", swap("12,14", "12,1e39"), "expected path,x1,y1,...,x5,y5"),
    ("lfw: landmarks", swap("12,14", "12,2378"), None),
    ("archive: tar", lambda valid: TAR.put([[{**head, "mtime": 2**64}, held] for head, held in TAR.take(valid)]),
     "cannot be unpacked (timestamp out of range"),
    ("archive: zip", lambda valid: ZIP.put([*ZIP.take(valid), ["", 0, b""]]), "cannot be unpacked"),
    ("archive: zip", lambda valid: ZIP.put([["data", 0, b""], *ZIP.take(valid)]),
     "has names that cannot be on this disk"),
    ("run: labels.json, resealed", set_to(DEEP), "cannot be read as the labels of a run"),
    ("run: labels.json, resealed", json_at("one", "classes", value=["dark", None]),
     "labels.json: not the labels of a run: one.classes.1: "),
    ("run: labels.json, resealed", json_at("one", "classes", value="ab"),
     "labels.json: not the labels of a run: one.classes: "),
    ("run: labels.json, resealed", json_at("one", "target", value=[["label"]]),
     "labels.json: not the labels of a run: one.target: "),
    ("run: metrics.csv", swap("\n2,", f"\n{'9' * 5000},"), None),
    ("run: metrics.csv", lambda valid: valid.replace(b"one/", b"o" * 300 + b"$x_$/"), None),
    ("run: gradients.csv", swap("one", "$x_$" + "o" * 300), None),
    ("run: gradients.csv", swap("\n2,", f"\n{'9' * 5000},"), None),
    ("run: gradients.csv", swap("1.5,0.5,", ",,"), None),
    ("run: gradients.csv", swap("0.25", "inf"), None),
    ("run: gradients.csv", swap("0.25", "1e308"), None),
    ("run: environment.json", lambda valid: JSON.put(
        {**json.loads(valid), "components": {"backbone": {**ORIGIN, "distribution": ""}}}
    ), None),
    ("run: checkpoint.json of best", swap('"labels"', '"label"'),
     "checkpoint.json: damaged: labels: required; label: unknown option"),
    ("run: training.pt, resealed", torch_at("model", "mean", change=as_complex),
     "mean: the model has torch.float32, the checkpoint torch.complex64"),
    ("run: training.pt, resealed", torch_at("model", "mean", change=without_values),
     "training.pt: expected dense tensors with values, got one without"),
    ("run: training.pt, resealed", torch_at("optimizer", "state", 0, "exp_avg", change=as_complex),
     "the optimiser's exp_avg of parameter 0 is complex64 (8,), and float32 (8,) in this recipe's"),
    ("run: training.pt, resealed", torch_at("meter", "counts", change=lambda counts: dict.fromkeys(counts, 0)),
     "meter: expected sums of losses, each with a count"),
    ("run: training.pt, resealed", torch_at("meter", "sums", change=lambda _: {"one/x": torch.zeros(2)}),
     "meter: expected sums of losses, each with a count"),
    ("weights for timm: pth", with_key(1), "cannot be read as weights of timm/test_resnet.r160_in1k"),
    ("weights for timm: pth", torch_at("conv1.0.weight", change=as_complex),
     "1 of 90 tensors are missing, such as 'conv1.0.weight'"),
    ("weights for timm: pth", torch_at("conv1.0.weight", change=without_values),
     "1 of 90 tensors are missing, such as 'conv1.0.weight'"),
    ("weights for torchvision: pth", with_key(1), "it holds other things than tensors of real numbers by name"),
    ("weights for torchvision: pth", torch_at("features.0.weight", change=without_values),
     "it holds other things than tensors of real numbers by name"),
    ("user: plugins.json", set_to(DEEP), None),
    ("user: trusted.json", set_to(DEEP), None),
    ("user: synthesized.json", set_to(DEEP), "this holds something else"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "said"), KNOWN)
def test_it_is_read_or_refused_with_the_reason(name: str, edit: Edit, said: str | None, tmp_path: Path) -> None:
    fed = Fed(READERS[name], tmp_path)
    data = edit(fed.valid)
    assert data != fed.valid
    (tmp_path / fed.reader.file).write_bytes(data)
    if said is None:
        fed.reader.read(tmp_path)
    else:
        with pytest.raises(MtframeError, match=re.escape(said)):
            fed.reader.read(tmp_path)
