"""Images per second of mtframe's detection data path against torchvision's own, as a ratio.

    python tests/benchmarks/data_path.py [ROOT] [--size 320] [--batch 16] [--batches 40]

Both read the same COCO folder, decode, letterbox with a random scale, mirror, vary the colours and collate,
in this process and with one thread. Theirs is `torchvision.datasets.CocoDetection` wrapped for transforms.v2,
in the order that its documentation recommends. They take turns, batch by batch, so that whatever else the
machine does meets both. Images without boxes are left out: torchvision refuses them. Without ROOT,
photographs of COCO's usual 640x480 pixels are made up.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from mtframe.data import Viewer
from mtframe_detection.boxes import Boxes
from mtframe_detection.coco import Coco
from mtframe_detection.letterbox import Letterbox

SCALE, JITTER = (0.7, 1.5), 0.3


class RandomLetterbox(v2.Transform):
    """What Letterbox does, of torchvision's own functions: scale, then pad and cut at random places."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        zoom = float(np.exp(np.random.uniform(*np.log(SCALE))))
        factor = zoom * self.size / max(height, width)
        height, width = max(1, round(height * factor)), max(1, round(width * factor))
        down, right = max(0, self.size - height), max(0, self.size - width)
        top, left = np.random.randint(down + 1), np.random.randint(right + 1)
        return {
            "size": [height, width],
            "padding": [int(left), int(top), int(right - left), int(down - top)],
            "corner": [int(np.random.randint(max(0, side - self.size) + 1)) for side in (height, width)],
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        inpt = v2.functional.resize(inpt, params["size"], antialias=True)
        inpt = v2.functional.pad(inpt, params["padding"], fill=114)
        return v2.functional.crop(inpt, *params["corner"], self.size, self.size)


def ours(root: Path, size: int) -> tuple[list[int], Callable[[list[int]], torch.Tensor]]:
    """The image ids with boxes, and what makes a batch of those at the given places."""
    transform = Letterbox(size, True, scale=SCALE, brightness=JITTER, contrast=JITTER, saturation=JITTER)
    data = Coco("train", root=root, keep_empty=False)
    data.decode_size = transform.decode_size
    rng = np.random.default_rng(0)
    ids = [int(data.annotated(index).target["image_id"]) for index in range(len(data))]
    viewer = Viewer(Boxes(data.info))

    def batch(indices: list[int]) -> torch.Tensor:
        samples = [data[index] for index in indices]
        inputs = transform(samples, rng)
        # Boxes too, as torchvision's transforms move theirs.
        viewer.collated([sample.target for sample in samples], inputs)
        return inputs.images

    return ids, batch


def theirs(root: Path, size: int, ids: list[int]) -> Callable[[list[int]], torch.Tensor]:
    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDetection(
            str(root / "train2017"),
            str(root / "annotations/instances_train2017.json"),
            transforms=v2.Compose([
                v2.ToImage(),
                RandomLetterbox(size),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(JITTER, JITTER, JITTER),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(labels_getter=lambda inputs: inputs[1].get("labels")),
            ]),
        )  # fmt: skip
    place = {number: index for index, number in enumerate(data.ids)}
    # Boxes and labels only: turning outlines into masks would cost it far more.
    data = wrap_dataset_for_transforms_v2(data, target_keys=("boxes", "labels"))
    return lambda indices: torch.stack([data[place[ids[index]]][0] for index in indices])


def make_photographs(root: Path, number: int = 64) -> Path:
    """COCO's layout with smooth random pictures, 640x480, JPEG of quality 92: about 100 kB, as COCO's."""
    rng = np.random.default_rng(0)
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(number):
        pixels = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).resize((640, 480))
        noisy = np.asarray(pixels, dtype=np.float32) + rng.normal(0, 8, (480, 640, 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / f"train2017/{index}.jpg", quality=92)
        images.append({"id": index, "file_name": f"{index}.jpg", "height": 480, "width": 640})
        for _ in range(7):
            x, y, width, height = rng.uniform((0, 0, 20, 20), (400, 300, 230, 170)).tolist()
            annotations.append({
                "id": len(annotations) + 1, "image_id": index, "category_id": 1, "iscrowd": 0,
                "bbox": [x, y, width, height], "area": width * height, "segmentation": [],
            })  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def main() -> None:
    """Prints images per second of both and the median of the batches' ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or make_photographs(Path(folder) / "coco")
        ids, make_ours = ours(root, arguments.size)
        make_theirs = theirs(root, arguments.size, ids)
        seconds: dict[str, list[float]] = {"mtframe": [], "torchvision": []}
        rng = np.random.default_rng(0)
        for number in range(arguments.batches + 1):
            indices = rng.choice(len(ids), arguments.batch, replace=False).tolist()
            for name, make in (("mtframe", make_ours), ("torchvision", make_theirs)):
                begin = time.perf_counter()
                make(indices)
                # The first batch warms up: allocator, lazy imports.
                if number:
                    seconds[name].append(time.perf_counter() - begin)
    for name, values in seconds.items():
        rate = arguments.batch / statistics.median(values)
        print(f"{name:12} {rate:7.1f} images/s at {arguments.size} pixels")
    ratios = [other / mine for mine, other in zip(*seconds.values(), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"ratio        {middle:7.2f} (middle half of the batches: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
