"""Step time of mtframe against a bare PyTorch loop over the same model, batches and data in memory.

    python tests/benchmarks/step_time.py [--rounds 15] [--size 64] [--backbone timm/resnet18]

Both sides run the same modules on the same tensors, with the same optimiser and precision. The bare loop is what
one would write by hand: concatenate, normalise, backbone, heads, losses, backward, clip, step. mtframe's side is
the trainer's own step, with what stands around it: schedule, balancer, checks, loss rows. Averaged weights are off and
no observer is registered: the bare loop has neither. Rounds are interleaved, so
that the machine's drift meets both; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtframe.assembly import Assembly
from mtframe.data import Batch
from mtframe.recipe import assemble_recipe
from mtframe.registry import resolve
from mtframe.run import RunFolder
from mtframe.training import Trainer


def main() -> None:
    """Prints a line a side and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(Path(folder), arguments)
        group = next(trainer.grouped_batches())
        sides: dict[str, Callable[[], object]] = {
            "bare loop": bare_step(trainer, group[0]),
            "mtframe": lambda: trainer.train_step(group),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(arguments.rounds + 2):
            for name, step in sides.items():
                start = time.perf_counter()
                step()
                if number >= 2:
                    times[name].append(time.perf_counter() - start)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {vars(arguments)}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        low, high = min(values) * 1e3, max(values) * 1e3
        print(f"{name:10} {medians[name] * 1e3:8.1f} ms a step (min {low:.1f}, max {high:.1f})")
    print(f"ratio      {medians['mtframe'] / medians['bare loop']:8.3f}")


def make_trainer(folder: Path, arguments: argparse.Namespace) -> Trainer:
    """A trainer of both built-in tasks on data made for the purpose."""
    resolve("dataset", "lfw").component.synthesize(folder / "faces", people=20, images=4, test_people=4, pairs=8)
    resolve("dataset", "coco").component.synthesize(folder / "objects", train=64, val=4)
    shapes = [f"tasks.{task}.{key}" for task in ("faces", "objects") for key in
              (f"size={arguments.size}", f"batch_size={arguments.batch}")]  # fmt: skip
    recipe = assemble_recipe(
        arguments.backbone,
        [f"faces=face-recognition:{folder}/faces", f"objects=object-detection:{folder}/objects"],
        [*shapes, "backbone.pretrained=false", "train.steps=1000000", "train.ema=null", "train.workers=0",
         f"train.precision={arguments.precision}"],
    )  # fmt: skip
    assembly = Assembly(recipe)
    return Trainer(assembly, RunFolder(folder / "run").create(recipe, assembly.infos))


def bare_step(trainer: Trainer, batches: dict[str, Batch]) -> Callable[[], None]:
    """The same step written by hand, on the trainer's own modules."""
    model, optimizer, precision = trainer.model, trainer.optimizer, trainer.options.precision
    faces, objects = batches["faces"], batches["objects"]
    backbone: Any = model.sharing.backbone

    def step() -> None:
        images = torch.cat([faces.images, objects.images]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(trainer.parts.device.type, torch.bfloat16, enabled=precision == "bf16"):
            maps = backbone((images - model.mean) / model.std)
            of_faces = model.heads["faces"]([part[: len(faces)] for part in maps])
            of_objects = model.heads["objects"]([part[len(faces) :] for part in maps])
            loss = sum(model.losses["faces"](of_faces, faces.targets["faces"]).values())
            loss = loss + sum(model.losses["objects"](of_objects, objects.targets["objects"]).values())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), trainer.options.clip_grad or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
