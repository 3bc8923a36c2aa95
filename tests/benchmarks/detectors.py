"""Our dense head against torchvision's FCOS and RetinaNet: AP at equal training, and step time.

    python tests/benchmarks/detectors.py [--steps 800] [--seeds 0 1 2] [--size 128] [--threads 2] [--only dense fcos]
    python tests/benchmarks/detectors.py --only dense fcos-alone --data ../shared/data/coco --classes person \
        --threads 1 --backbone timm/tf_efficientnet_lite0 \
        --weights ../shared/data/weights/tf_efficientnet_lite0.safetensors \
        --frozen-stages 3 --size 256 --steps 400 --precision fp32 --ema 0.99

All but `fcos-alone` are heads of mtframe models on the same backbone, trained by the same Trainer: same scenes and
augmentation, pyramid (width and strides), optimiser, schedule, averaged weights, precision, number of steps, seeds and
metric. torchvision's heads, losses, matchers, box coders and post-processing are its own, as its `fcos_resnet50_fpn`
and `retinanet_resnet50_fpn_v2` build them (four convolutions with GroupNorm a tower), with two changes: anchors are for
the strides of this pyramid by the same rule, and FCOS reports scores from 0.05 on, as its authors do and the others
here, not from 0.2, which costs AP. torchvision's losses know no regions to ignore, so the augmentation makes none:
what is left of an object that it cuts is a target for all. Ours is the head `dense` with its defaults. Step times are
CPU seconds of the process, of one batch, in turn, so that neither the machine's drift nor others' load counts; a ratio
is that of two times of one round.

`fcos-alone` is torchvision's FCOS without anything of mtframe but the batches: timm's backbone, torchvision's pyramid
and model, a loop of its own with AdamW, a cosine and averaged weights, and pycocotools. What it scores is therefore
evidence on the trainer, the losses and the metric too. It knows float32 only.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]
from safetensors.torch import load_file
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mtframe.assembly import Assembly
from mtframe.data import Batch, DataInfo, exact_inputs
from mtframe.kinds import FeatureSpec
from mtframe.model import FeaturePyramid
from mtframe.recipe import assemble_recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe_detection.coco import Coco

HERE = Path(__file__).resolve()
STRIDES = (8, 16, 32, 64)
NAMES = ("AP", "AP50", "AP75")


class _Pyramid(FeaturePyramid):
    """Ours, with what torchvision asks of a backbone."""

    def __init__(self, features: Sequence[FeatureSpec], width: int) -> None:
        super().__init__(features, width, STRIDES)
        self.out_channels = width


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
    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo, *, width: int = 128) -> None:
        anchors = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
        pyramid = _Pyramid(features, width)
        super().__init__(FCOS(pyramid, len(info.classes), anchor_generator=anchors, score_thresh=0.05))


class RetinaNetHeadV2(_Torchvision):
    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo, *, width: int = 128) -> None:
        sizes = tuple(tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in STRIDES)
        anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(STRIDES))
        number = anchors.num_anchors_per_location()[0]
        head = RetinaNetHead(width, number, len(info.classes), norm_layer=partial(nn.GroupNorm, 32))
        head.regression_head._loss_type = "giou"
        super().__init__(RetinaNet(_Pyramid(features, width), len(info.classes), anchor_generator=anchors, head=head))


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


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "dense": ({"name": "dense", "strides": list(STRIDES)}, "detection"),
    "fcos": ({"name": f"{HERE}:FcosHead"}, f"{HERE}:OwnLoss"),
    "retinanet": ({"name": f"{HERE}:RetinaNetHeadV2"}, f"{HERE}:OwnLoss"),
    "rfcn": ({"name": "rfcn", "strides": list(STRIDES)}, "detection"),
    "dense-cross-entropy": ({"name": "dense", "strides": list(STRIDES)}, "cross-entropy-iou"),
    "dense-anchor-4": ({"name": "dense", "strides": list(STRIDES), "anchor_scale": 4}, "detection"),
}
ALONE = "fcos-alone"


def make_assembly(data: Path, detector: str, seed: int, arguments: argparse.Namespace) -> Assembly:
    head, loss = PARTS[detector]
    weights = f"backbone.weights={arguments.weights}" if arguments.weights else "backbone.pretrained=false"
    recipe = assemble_recipe(
        arguments.backbone,
        [f"objects=object-detection:{data}"],
        [
            f"tasks.objects.size={arguments.size}", f"tasks.objects.batch_size={arguments.batch}",
            f"tasks.objects.head={head | {'width': arguments.width}}", f"tasks.objects.loss={loss}", weights,
            *([f"backbone.frozen_stages={arguments.frozen_stages}"] if arguments.frozen_stages else []),
            f"tasks.objects.transform={{name: letterbox, min_visible: 0, mosaic: {arguments.mosaic}}}",
            f"train={{steps: {arguments.steps}, lr: {arguments.lr}, ema: {arguments.ema}, evaluate_every: null,"
            f" seed: {seed}, workers: {arguments.workers}, precision: {arguments.precision}, device: cpu}}",
        ],
    )  # fmt: skip
    return Assembly(recipe)


class Ours:
    """A detector as a part of an mtframe model, trained by the Trainer."""

    def __init__(self, folder: Path, data: Path, detector: str, seed: int, arguments: argparse.Namespace) -> None:
        assembly = make_assembly(data, detector, seed, arguments)
        self.trainer = Trainer(assembly, RunFolder(folder).create(assembly.recipe, assembly.infos))

    def step(self, batch: dict[str, Batch]) -> None:
        self.trainer.train_step([batch])

    def fit(self) -> Mapping[str, float]:
        return self.trainer.fit()["objects"].values


class Alone:
    """torchvision's FCOS on timm's backbone, in a loop of its own; of mtframe it gets the batches, and no more."""

    def __init__(self, folder: Path, data: Path, detector: str, seed: int, arguments: argparse.Namespace) -> None:
        self.assembly, self.data, self.arguments = make_assembly(data, "dense", seed, arguments), data, arguments
        torch.manual_seed(seed)
        name = arguments.backbone.removeprefix("timm/")
        # Strides 8, 16 and 32 of 2, 4, 8, 16 and 32.
        body = timm.create_model(name, features_only=True, out_indices=(2, 3, 4), pretrained=False)
        if arguments.weights:
            body.load_state_dict(load_file(arguments.weights), strict=False)
        self.frozen = _first(body, arguments.frozen_stages)
        for module in self.frozen:
            module.requires_grad_(False)
        anchors = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
        config, classes = body.pretrained_cfg, len(self.assembly.infos["objects"].classes)
        self.model = FCOS(
            _BodyAndPyramid(body, arguments.width), classes, min_size=arguments.size, max_size=arguments.size,
            image_mean=list(config["mean"]), image_std=list(config["std"]), anchor_generator=anchors, score_thresh=0.05,
        )  # fmt: skip
        self.model.to(memory_format=torch.channels_last)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
                  {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip
        self.optimizer = torch.optim.AdamW(groups, lr=arguments.lr)
        self.average = ModelEmaV3(self.model, arguments.ema, use_warmup=True, warmup_gamma=1.0, warmup_power=0.75)
        self.number = 0

    def step(self, batch: dict[str, Batch]) -> None:
        images, targets = batch["objects"].images.float() / 255, batch["objects"].targets["objects"]
        wanted = [
            {"boxes": boxes[valid], "labels": labels[valid]}
            for boxes, labels, valid in zip(targets["boxes"], targets["labels"], targets["valid"], strict=True)
        ]
        steps, lr = self.arguments.steps, self.arguments.lr
        warmup = max(1, round(0.05 * steps))
        cosine = 1e-5 + (lr - 1e-5) * (1 + math.cos(math.pi * self.number / steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = cosine if self.number >= warmup else lr * (self.number + 1) / warmup
        self.model.train()
        for module in self.frozen:
            module.eval()
        loss = torch.stack(list(self.model(list(images.unbind()), wanted).values())).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.model, step=self.number)
        self.number += 1

    def fit(self) -> Mapping[str, float]:
        for batch in self.assembly.batches().batches(0, self.arguments.steps, self.arguments.workers):
            self.step(batch)
        return self.scores()

    @torch.inference_mode()
    def scores(self) -> dict[str, float]:
        """AP, AP50 and AP75 by pycocotools of the averaged weights, on the validation split."""
        model, dataset = self.average.module.eval(), self.assembly.dataset("objects", "val")
        transform = self.assembly.transform("objects", train=False)
        truth = COCO(str(self.data / "annotations/instances_val2017.json"))
        ids, categories = (
            {Path(i["file_name"]).stem: i["id"] for i in truth.loadImgs(truth.getImgIds())},
            sorted(truth.cats),
        )
        rows = []
        for index in range(len(dataset)):
            sample = dataset[index]
            inputs = exact_inputs(transform, [sample])
            ((placement,),) = inputs.placements
            (found,) = model(list(inputs.images.float() / 255))
            boxes = placement.restored_boxes(found["boxes"])
            sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
            for box, score, label in zip(
                sides.tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True
            ):
                image = ids[Path(sample.id).stem]
                rows.append({"image_id": image, "category_id": categories[label], "bbox": box, "score": score})
        evaluator = COCOeval(truth, truth.loadRes(rows), "bbox") if rows else None
        if evaluator is None:
            return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        return dict(zip(("AP", "AP50", "AP75"), map(float, evaluator.stats[:3]), strict=True))


class _BodyAndPyramid(nn.Module):
    """timm's maps of strides 8, 16 and 32, and torchvision's pyramid of four levels on them."""

    def __init__(self, body: Any, width: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, width
        self.pyramid = FeaturePyramidNetwork(body.feature_info.channels(), width, LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.pyramid({str(n): level for n, level in enumerate(self.body(images))})


def _first(body: Any, stages: int) -> list[nn.Module]:
    """The modules of timm's EfficientNet up to the end of a stage, as `frozen_stages` counts them."""
    if not stages:
        return []
    end = timm.create_model(body.pretrained_cfg["architecture"], features_only=True).feature_info.module_name()[
        stages - 1
    ]
    blocks = int(end.split(".")[1]) + 1
    return [body.conv_stem, body.bn1, *body.blocks[:blocks]]


def of_classes(data: Path, names: Sequence[str], folder: Path) -> Path:
    """COCO's files with some of their categories only, all images kept; the images are links."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        plain = json.loads((data / f"annotations/instances_{split}2017.json").read_text(encoding="utf-8"))
        plain["categories"] = [category for category in plain["categories"] if category["name"] in names]
        kept = {category["id"] for category in plain["categories"]}
        plain["annotations"] = [one for one in plain["annotations"] if one["category_id"] in kept]
        (folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(plain), encoding="utf-8")
        (folder / f"{split}2017").symlink_to((data / f"{split}2017").resolve())
    return folder


def make(folder: Path, data: Path, detector: str, seed: int, arguments: argparse.Namespace) -> Ours | Alone:
    return (Alone if detector == ALONE else Ours)(folder, data, detector, seed, arguments)


def print_step_times(folder: Path, data: Path, arguments: argparse.Namespace) -> None:
    """CPU seconds of a step of each, in turn, and its ratio to the first one's, round by round."""
    detectors = {name: make(folder / name, data, name, 0, arguments) for name in arguments.only}
    batches = make_assembly(data, "dense", 0, arguments).batches()
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for number, batch in enumerate(batches.batches(0, arguments.rounds + 2, workers=0)):
        for name, detector in detectors.items():
            begin = time.process_time()
            detector.step(batch)
            if number >= 2:
                seconds[name].append(time.process_time() - begin)
    first = seconds[arguments.only[0]]
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles([b / a for a, b in zip(first, values, strict=True)], n=4)
        print(
            f"{name:20} {statistics.median(values) * 1e3:7.1f} CPU ms a step, {middle:.3f} of {arguments.only[0]}'s "
            f"(middle half of the rounds: {low:.3f} to {high:.3f})", flush=True,
        )  # fmt: skip


def main() -> None:
    """Prints step times, then AP, AP50 and AP75 of each seed and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a COCO folder; default: scenes made for the purpose")
    parser.add_argument("--classes", nargs="*", help="only these classes of it, e.g. person; default: all")
    parser.add_argument("--write", type=Path, help="only write the files of --classes there, to train on")
    parser.add_argument("--weights", type=Path, help="of the backbone; default: it starts at random")
    parser.add_argument("--frozen-stages", type=int, default=0, help="stages of the backbone that are not trained")
    parser.add_argument("--mosaic", type=float, default=0.0)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=128, help="channels of the pyramid and the towers")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--backbone", default="timm/resnet10t")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=["dense", "fcos", "retinanet"], choices=[*PARTS, ALONE])
    arguments = parser.parse_args()
    if arguments.write:
        of_classes(arguments.data, arguments.classes, arguments.write)
        return
    torch.set_num_threads(arguments.threads)
    print(f"{platform.machine()}, torch {torch.__version__}, {vars(arguments)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = arguments.data or folder / "scenes"
        if arguments.data is None:
            Coco.synthesize(data, size=arguments.size)
        if arguments.classes:
            data = of_classes(data, arguments.classes, folder / "chosen")
        if arguments.rounds:
            print_step_times(folder / "times", data, arguments)
        scores: dict[str, list[tuple[float, ...]]] = {name: [] for name in arguments.only}
        for seed in arguments.seeds:
            for detector in arguments.only:
                begin = time.perf_counter()
                values = make(folder / f"{detector}-{seed}", data, detector, seed, arguments).fit()
                scores[detector].append(tuple(values[name] for name in NAMES))
                said = ", ".join(f"{name} {values[name]:.3f}" for name in NAMES)
                print(f"{detector:20} seed {seed}: {said} ({time.perf_counter() - begin:.0f} s)", flush=True)
        for detector, found in scores.items() if arguments.seeds else ():
            print(f"{detector:20} " + ", ".join(map(_spread, NAMES, zip(*found, strict=True))))


def _spread(name: str, values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{name} {statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
