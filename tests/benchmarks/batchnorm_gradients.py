"""How near the gradients that balancers get with BatchNorm are to the derivative of each task's loss.

    python tests/benchmarks/batchnorm_gradients.py [--backbone timm/test_resnet] [--at 0 5 15 30 60]

Trains on the three synthetic tasks of `does_it_help.py` with the plain sum and looks at some steps: the cosine of each
task's gradient with ∂L_t/∂θ, their lengths, and the cosines between tasks, of both.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import combinations
from pathlib import Path

import torch
from does_it_help import synthetic
from torch import Tensor

from mtframe.assembly import assemble
from mtframe.data import Batch
from mtframe.gradients import GradientEngine
from mtframe.model import MultiTaskModel
from mtframe.recipe import Recipe
from mtframe.training import Trainer


def main() -> None:
    """Prints a table a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="timm/test_resnet")
    parser.add_argument("--at", type=int, nargs="+", default=[0, 5, 15, 30, 60])
    parser.add_argument("--work", type=Path, default=Path("data/does-it-help"), help="where data is made")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train = {"steps": max(arguments.at) + 1, "lr": 2e-3, "clip_grad": None, "ema": None, "precision": "fp32",
             "evaluate_every": None, "workers": 0, "device": "cpu"}  # fmt: skip
    backbone = {"name": arguments.backbone, "pretrained": False}
    recipe = Recipe.from_plain({"backbone": backbone, "tasks": synthetic(arguments.work), "hooks": [], "train": train})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(assemble(recipe), Path(folder) / "run")
        trainer.model.train()
        for step, group in zip(range(max(arguments.at) + 1), trainer.grouped_batches(), strict=False):
            if step in arguments.at:
                print(f"\nstep {step}")
                compare(trainer.model, group[0])
            trainer.train_step(group)


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
