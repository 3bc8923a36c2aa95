from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Category ids with gaps, not in order, as COCO's have.
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}]


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes images of the given (height, width) and boxes [image, category, x, y, w, h] as COCO."""

    def write(sizes: list[tuple[int, int]], boxes: list[list[float]], *, split: str = "train", **more: Any) -> Path:
        root = tmp_path / "coco"
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / f"{split}2017").mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        images = []
        for number, (height, width) in enumerate(sizes):
            name = f"{number:012}.jpg"
            pixels = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((width, height)).save(root / f"{split}2017" / name)
            images.append({"id": 100 + number, "file_name": name, "height": height, "width": width})
        annotations = [
            {"id": 500 + n, "image_id": 100 + image, "category_id": category, "bbox": list(box), "iscrowd": 0}
            for n, (image, category, *box) in enumerate(boxes)
        ]
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES, **more}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content), encoding="utf-8")
        return root

    return write
