"""Our dense head against torchvision's FCOS and RetinaNet: AP at equal training, and step time.

    python tests/benchmarks/detectors.py [--steps 800] [--seeds 0 1 2] [--size 128] [--threads 2] [--only dense fcos]

All are heads of mtframe models on the same backbone, trained by the same Trainer: same scenes and augmentation,
pyramid (width and strides), optimiser, schedule, averaged weights, precision, number of steps, seeds and metric.
torchvision's heads, losses, matchers, box coders and post-processing are its own, as its `fcos_resnet50_fpn` and
`retinanet_resnet50_fpn_v2` build them (four convolutions with GroupNorm a tower), with two changes: anchors are for
the strides of this pyramid by the same rule, and FCOS reports scores from 0.05 on, as its authors do and the others
here, not from 0.2, which costs AP. torchvision's losses know no regions to ignore, so the augmentation makes none:
what is left of an object that it cuts is a target for all. Ours is the head `dense` with its defaults. Step times are
of one batch, in turn, so that the machine's drift meets all; a ratio is that of two times of one round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead

from mtframe.assembly import Assembly
from mtframe.data import DataInfo
from mtframe.kinds import FeatureSpec
from mtframe.model import FeaturePyramid
from mtframe.recipe import assemble_recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe_detection.coco import Coco

HERE = Path(__file__).resolve()
WIDTH, STRIDES = 128, (8, 16, 32, 64)


class _Pyramid(FeaturePyramid):
    """Ours, with what torchvision asks of a backbone."""

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features, WIDTH, STRIDES)
        self.out_channels = WIDTH


class _Torchvision(nn.Module):
    """A torchvision detector from the pyramid on, as a head; its own loss and post-processing."""

    target = "boxes"

    def __init__(self, detector: FCOS | RetinaNet) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Any]:
        levels = self.detector.backbone(maps)
        size = [side * STRIDES[0] for side in levels[0].shape[-2:]]
        images = ImageList(maps[0].new_empty(len(maps[0]), 0, *size), [tuple(size)] * len(maps[0]))
        # Losses and boxes are float32 on both sides.
        outputs = {name: value.float() for name, value in self.detector.head(levels).items()}
        anchors = self.detector.anchor_generator(images, levels)
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        each = len(anchors[0]) // sum(cells)
        return {"outputs": outputs, "anchors": anchors, "numbers": [each * number for number in cells], "size": size}

    def predict(self, outputs: Mapping[str, Any], bounds: Tensor) -> list[dict[str, Tensor]]:
        split = {name: list(value.split(outputs["numbers"], dim=1)) for name, value in outputs["outputs"].items()}
        anchors = [list(boxes.split(outputs["numbers"])) for boxes in outputs["anchors"]]
        sizes = [tuple(outputs["size"])] * len(anchors)
        found = self.detector.postprocess_detections(split, anchors, sizes)
        return [{name: one[name] for name in ("boxes", "scores", "labels")} for one in found]


class FcosHead(_Torchvision):
    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo) -> None:
        anchors = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
        super().__init__(FCOS(_Pyramid(features), len(info.classes), anchor_generator=anchors, score_thresh=0.05))


class RetinaNetHeadV2(_Torchvision):
    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo) -> None:
        sizes = tuple(tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in STRIDES)
        anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(STRIDES))
        number = anchors.num_anchors_per_location()[0]
        head = RetinaNetHead(WIDTH, number, len(info.classes), norm_layer=partial(nn.GroupNorm, 32))
        head.regression_head._loss_type = "giou"
        super().__init__(RetinaNet(_Pyramid(features), len(info.classes), anchor_generator=anchors, head=head))


class OwnLoss(nn.Module):
    """The loss that a torchvision detector brings. Regions to ignore are unknown to it: they are background."""

    target = "boxes"

    def __init__(self, head: _Torchvision) -> None:
        super().__init__()
        self.head = [head]  # not a submodule: its weights are the head's

    def forward(self, outputs: Mapping[str, Any], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        lists = [
            {"boxes": boxes[valid], "labels": labels[valid]}
            for boxes, labels, valid in zip(targets["boxes"], targets["labels"], targets["valid"], strict=True)
        ]
        detector = self.head[0].detector
        numbers = (outputs["numbers"],) if isinstance(detector, FCOS) else ()
        with torch.autocast(targets["boxes"].device.type, enabled=False):
            return detector.compute_loss(lists, outputs["outputs"], outputs["anchors"], *numbers)


PARTS: dict[str, tuple[Any, Any]] = {
    "dense": ({"name": "dense", "width": WIDTH, "strides": list(STRIDES)}, "detection"),
    "fcos": (f"{HERE}:FcosHead", f"{HERE}:OwnLoss"),
    "retinanet": (f"{HERE}:RetinaNetHeadV2", f"{HERE}:OwnLoss"),
    "rfcn": ({"name": "rfcn", "width": WIDTH, "strides": list(STRIDES)}, "detection"),
    "dense-cross-entropy": ({"name": "dense", "width": WIDTH, "strides": list(STRIDES)}, "cross-entropy-iou"),
}


def make_trainer(folder: Path, data: Path, detector: str, seed: int, arguments: argparse.Namespace) -> Trainer:
    head, loss = PARTS[detector]
    recipe = assemble_recipe(
        arguments.backbone,
        [f"objects=object-detection:{data}"],
        [
            f"tasks.objects.size={arguments.size}", f"tasks.objects.batch_size={arguments.batch}",
            f"tasks.objects.head={head}", f"tasks.objects.loss={loss}", "backbone.pretrained=false",
            "tasks.objects.transform.min_visible=0",
            f"train={{steps: {arguments.steps}, lr: {arguments.lr}, ema: 0.995, evaluate_every: null, seed: {seed},"
            f" workers: {arguments.workers}, precision: {arguments.precision}}}",
        ],
    )  # fmt: skip
    assembly = Assembly(recipe)
    return Trainer(assembly, RunFolder(folder).create(recipe, assembly.infos))


def print_step_times(folder: Path, data: Path, arguments: argparse.Namespace) -> None:
    """Seconds of a step of each, in turn, and its ratio to the first one's, round by round."""
    trainers = {name: make_trainer(folder / name, data, name, 0, arguments) for name in arguments.only}
    groups = trainers[arguments.only[0]].grouped_batches()
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number, group in zip(range(arguments.rounds + 2), groups, strict=False):
        for name, trainer in trainers.items():
            begin = time.perf_counter()
            trainer.train_step(group)
            if number >= 2:
                seconds[name].append(time.perf_counter() - begin)
    first = seconds[arguments.only[0]]
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles([b / a for a, b in zip(first, values, strict=True)], n=4)
        print(
            f"{name:20} {statistics.median(values) * 1e3:7.1f} ms a step, {middle:.3f} of {arguments.only[0]}'s "
            f"(middle half of the rounds: {low:.3f} to {high:.3f})", flush=True,
        )  # fmt: skip


def main() -> None:
    """Prints step times, then AP and AP50 of each seed and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a COCO folder; default: scenes made for the purpose")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--backbone", default="timm/resnet10t")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=["dense", "fcos", "retinanet"], choices=list(PARTS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{platform.machine()}, torch {torch.__version__}, {vars(arguments)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = arguments.data or folder / "scenes"
        if arguments.data is None:
            Coco.synthesize(data, size=arguments.size)
        if arguments.rounds:
            print_step_times(folder / "times", data, arguments)
        scores: dict[str, list[tuple[float, float]]] = {name: [] for name in arguments.only}
        for seed in arguments.seeds:
            for detector in arguments.only:
                begin = time.perf_counter()
                trainer = make_trainer(folder / f"{detector}-{seed}", data, detector, seed, arguments)
                values = trainer.fit()["objects"].values
                scores[detector].append((values["AP"], values["AP50"]))
                print(
                    f"{detector:20} seed {seed}: AP {values['AP']:.3f}, AP50 {values['AP50']:.3f} "
                    f"({time.perf_counter() - begin:.0f} s)", flush=True,
                )  # fmt: skip
        for detector, pairs in scores.items() if arguments.seeds else ():
            print(f"{detector:20} " + ", ".join(map(_spread, ("AP", "AP50"), zip(*pairs, strict=True))))


def _spread(name: str, values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{name} {statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
