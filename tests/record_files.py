"""Writes record files byte by byte, as MXNet's and InsightFace's tools do."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)


def record(data: bytes) -> bytes:
    """A record: cut where the magic number stands at a multiple of four, and padded to one."""
    cuts = [place for place in range(0, len(data) - 3, 4) if data[place : place + 4] == MAGIC]
    bounds = zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(data)], strict=True)
    parts = [data[start:end] for start, end in bounds]
    written = b""
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        written += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return written


def labelled(labels: Sequence[float], image: bytes = b"", number: int = 0, many: bool | None = None) -> bytes:
    """What a record holds: the header, labels and an image."""
    many = len(labels) > 1 if many is None else many
    if not many:
        return struct.pack("<IfQQ", 0, labels[0], number, 0) + image
    return struct.pack("<IfQQ", len(labels), 0.0, number, 0) + struct.pack(f"<{len(labels)}f", *labels) + image


def write_records(path: Path, records: dict[int, bytes]) -> None:
    """`path` and the index beside it."""
    places, written = [], b""
    for key, data in records.items():
        places.append(f"{key}\t{len(written)}\n")
        written += record(data)
    path.write_bytes(written)
    path.with_suffix(".idx").write_text("".join(places), encoding="utf-8")


def jpeg(seed: int, size: int = 24) -> bytes:
    """A small picture, each seed another."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_training(root: Path, images: Sequence[int], with_ranges: bool = True) -> None:
    """`train.rec` of people with so many images each; record 0 and the people's ranges as InsightFace writes them."""
    root.mkdir(parents=True, exist_ok=True)
    labels = [label for label, count in enumerate(images) for _ in range(count)]
    records = {key: labelled([label], jpeg(key)) for key, label in enumerate(labels, 1)}
    if with_ranges:
        ends = np.cumsum(images)
        first = len(labels) + 1
        people = {
            first + n: labelled([end - count + 1, end + 1])
            for n, (end, count) in enumerate(zip(ends, images, strict=True))
        }
        records = {0: labelled([first, first + len(images)]), **records, **people}
    write_records(root / "train.rec", records)
