"""How near the gradients that balancers get with BatchNorm are to the derivative of each task's loss.

    python tests/benchmarks/batchnorm_gradients.py [--backbone timm/test_resnet] [--at 0 5 15 30 60]
    python tests/benchmarks/batchnorm_gradients.py --data ../shared/data --table --at 0 20 --batch 4 12 32
        --backbone timm/test_resnet timm/resnet18 timm/tf_efficientnet_lite0
        [--weights ../shared/data/weights/tf_efficientnet_lite0.safetensors]

Trains on the synthetic tasks of `does_it_help.py`, or with `--data` on its photographs, with the plain sum, and looks
at some steps: the cosine of each task's gradient with ∂L_t/∂θ, their lengths, and the cosines between tasks, of both.
`--table` prints a line for each backbone, number of images a task and step, with the means over tasks and pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from does_it_help import real, synthetic
from torch import Tensor

from mtframe.assembly import assemble
from mtframe.data import Batch
from mtframe.gradients import GradientEngine
from mtframe.model import MultiTaskModel
from mtframe.recipe import Recipe
from mtframe.training import Trainer


def main() -> None:
    """Prints a table a step, or a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["timm/test_resnet"])
    parser.add_argument("--at", type=int, nargs="+", default=[0, 5, 15, 30, 60])
    parser.add_argument("--batch", type=int, nargs="+", default=[0], help="images of each task; 0: each its own")
    parser.add_argument("--weights", help="pretrained ones, of the backbone")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--data", type=Path, help="folder of lfw/ and coco/")
    parser.add_argument("--work", type=Path, default=Path("data/does-it-help"), help="where data is made")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = synthetic(arguments.work) if arguments.data is None else real(arguments.data, arguments.work)
    if arguments.table:
        print("| backbone | images a task | step | cosine with ∂L_t/∂θ | ratio of norms | between tasks | truly |")
        print("|---|---|---|---|---|---|---|")
    for name, batch in product(arguments.backbone, arguments.batch):
        sized = {task: {**part, **({"batch_size": batch} if batch else {})} for task, part in tasks.items()}
        backbone = {"name": name, **({"weights": arguments.weights} if arguments.weights else {"pretrained": False})}
        follow({"backbone": backbone, "tasks": sized, "hooks": []}, arguments)


def follow(plain: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Trains, and prints what some steps are like."""
    train = {"steps": max(arguments.at) + 1, "lr": arguments.lr, "clip_grad": None, "ema": None, "precision": "fp32",
             "evaluate_every": None, "workers": 0, "device": "cpu"}  # fmt: skip
    recipe = Recipe.from_plain({**plain, "train": train})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(assemble(recipe), Path(folder) / "run")
        trainer.model.train()
        for step, group in zip(range(max(arguments.at) + 1), trainer.grouped_batches(), strict=False):
            if step in arguments.at and arguments.table:
                sizes = "/".join(str(part.batch_size) for part in recipe.tasks.values())
                print(f"| `{recipe.backbone.name}` | {sizes} | {step} | {line(trainer.model, group[0])} |", flush=True)
            elif step in arguments.at:
                print(f"\nstep {step}")
                compare(trainer.model, group[0])
            trainer.train_step(group)


def line(model: MultiTaskModel, batches: dict[str, Batch]) -> str:
    """One step's cells of the table."""
    near, own = (gradients_of(model, batches, exact) for exact in (False, True))
    cosines = [torch.cosine_similarity(near[task], own[task], dim=0).item() for task in own]
    ratios = [(near[task].norm() / own[task].norm()).item() for task in own]
    between = [
        [torch.cosine_similarity(each[a], each[b], dim=0).item() for a, b in combinations(own, 2)]
        for each in (near, own)
    ]
    return " | ".join(" / ".join(f"{value:.2f}" for value in values) for values in (cosines, ratios, *between))


def compare(model: MultiTaskModel, batches: dict[str, Batch]) -> None:
    """Prints one step's table."""
    near, own = (gradients_of(model, batches, exact) for exact in (False, True))
    print(f"{'':18} {'near':>7} {'∂L_t/∂θ':>8} {'cosine':>7}")
    for task in own:
        cosine = torch.cosine_similarity(near[task], own[task], dim=0)
        print(f"{task:18} {near[task].norm():7.2f} {own[task].norm():8.2f} {cosine:7.3f}")
    for a, b in combinations(own, 2):
        pair = [torch.cosine_similarity(each[a], each[b], dim=0) for each in (near, own)]
        print(f"{f'{a}, {b}':18} {pair[0]:7.3f} {pair[1]:8.3f}")


def gradients_of(model: MultiTaskModel, batches: dict[str, Batch], exact: bool) -> dict[str, Tensor]:
    """By task, all in one; leaves the model as it was."""
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(0)
        outputs = model({task: batch.images for task, batch in batches.items()})
        return {task: torch.stack(list(model.loss(task, outputs[task], batch.targets[task]).values())).sum()
                for task, batch in batches.items()}  # fmt: skip

    engine = GradientEngine(model, exact=exact)
    _, found = engine.gradients({task: batch.images for task, batch in batches.items()}, {}, losses)
    model.zero_grad()
    model.load_state_dict(state)
    return {
        task: torch.cat([g.flatten() for g in of_task.values() if g is not None]) for task, of_task in found.items()
    }


if __name__ == "__main__":
    main()
