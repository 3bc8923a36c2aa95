"""What is not known takes no part in a loss: each that is built in, with and without labels."""

# Shapes: B images, C classes.

from __future__ import annotations

import inspect
import math
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.kinds import FeatureSpec

ENTRIES = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]
LOSSES: dict[str, str] = ENTRIES["mtframe.loss"]
CLASSES = ("a", "b", "c")

# Of each loss, the head that it needs and the kind of target. Kinds of whole images know that they do not know.
HEADS = {
    "softmax": ("embedding", "identity"),
    "cosface": ("embedding", "identity"),
    "arcface": ("embedding", "identity"),
    "adaface": ("embedding", "identity"),
    "triplet": ("embedding", "identity"),
    "tutorial-face": ("tutorial-face", "identity"),
    "cross-entropy": ("classifier", "label"),
    "binary-cross-entropy": ("classifier", "labels"),
    "regression": ("regressor", "value"),
    "detection": ("dense", "boxes"),
    "cross-entropy-iou": ("dense", "boxes"),
    "tutorial-detector": ("tutorial-detector", "boxes"),
    "pixel-cross-entropy": ("semantic-fpn", "mask"),
}
WHOLE = [name for name, (_, kind) in HEADS.items() if kind != "boxes"]
BOXES = [name for name, (_, kind) in HEADS.items() if kind == "boxes"]


def component(kind: str, name: str, **wired: Any) -> Any:
    """A built-in component with its defaults."""
    module, _, attribute = ENTRIES[f"mtframe.{kind}"][name].partition(":")
    cls = getattr(import_module(module), attribute)
    return cls(**{key: value for key, value in wired.items() if key in inspect.signature(cls).parameters})


def parts(name: str) -> tuple[nn.Module, nn.Module]:
    """A loss with its head, both in training, with the same weights each time."""
    torch.manual_seed(0)
    head_name, kind = HEADS[name]
    info = DataInfo(kind, CLASSES)
    head = component("head", head_name, features=(FeatureSpec("map", 6, 8),), info=info)
    return head, component("loss", name, head=head, info=info)


def outputs_of(head: nn.Module, images: int) -> dict[str, Tensor]:
    return head([torch.randn(images, 6, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()])


def targets_of(kind: str, known_B: list[bool], seed: int = 0) -> dict[str, Tensor]:
    """Random targets, those of some images unknown."""
    generator = torch.Generator().manual_seed(seed)
    mask_B = torch.tensor(known_B)
    if kind in ("identity", "label"):
        return {"label": torch.randint(len(CLASSES), (len(known_B),), generator=generator).where(mask_B, -1)}
    if kind == "mask":
        pixels_BHW = torch.randint(len(CLASSES), (len(known_B), 32, 32), generator=generator)
        return {"mask": pixels_BHW.where(mask_B[:, None, None], 255)}
    numbers_BC = torch.rand(len(known_B), len(CLASSES), generator=generator)
    numbers_BC = numbers_BC.round() if kind == "labels" else numbers_BC
    return {kind: numbers_BC.where(mask_B[:, None], math.nan)}


def rows(values: dict[str, Tensor], mask_B: list[bool]) -> dict[str, Tensor]:
    return {key: value.detach()[torch.tensor(mask_B)] for key, value in values.items() if len(value) == len(mask_B)}


def test_every_loss_is_among_them() -> None:
    assert set(HEADS) == set(LOSSES)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=15, deadline=None)
@given(known_B=st.lists(st.booleans(), min_size=2, max_size=8).filter(any), seed=st.integers(0, 99))
def test_a_loss_is_that_of_the_known_images_alone(name: str, known_B: list[bool], seed: int) -> None:
    head, loss = parts(name)
    targets = targets_of(HEADS[name][1], known_B, seed)
    outputs = {key: value.detach().requires_grad_() for key, value in outputs_of(head, len(known_B)).items()}
    values = loss(outputs, targets)
    # Anew, for what losses and heads remember of a batch.
    _, again = parts(name)
    expected = again(rows(outputs, known_B), rows(targets, known_B))
    for term, value in values.items():
        torch.testing.assert_close(value, expected[term], rtol=1e-5, atol=1e-6)
    sum(values.values()).backward()
    for output in outputs.values():
        if output.grad is not None:
            assert output.grad.isfinite().all()
            assert not output.grad[~torch.tensor(known_B)].any()


@pytest.mark.parametrize("name", WHOLE)
def test_where_nothing_is_known_the_loss_and_every_gradient_are_0(name: str) -> None:
    head, loss = parts(name)
    maps = [torch.randn(4, 6, 8, 8).requires_grad_()]
    values = loss(head(maps), targets_of(HEADS[name][1], [False] * 4))
    sum(values.values()).backward()
    assert [value.item() for value in values.values()] == [0.0] * len(values)
    for tensor in (*maps, *head.parameters(), *loss.parameters()):
        assert tensor.grad is None or torch.equal(tensor.grad, torch.zeros_like(tensor))
    assert all(buffer.isfinite().all() for module in (head, loss) for buffer in module.buffers())


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("padding", [0, 2])
def test_images_without_any_box_teach_that_nothing_is_there(name: str, padding: int) -> None:
    head, loss = parts(name)
    targets = {
        "boxes": torch.zeros(3, padding, 4), "labels": torch.zeros(3, padding, dtype=torch.long),
        "valid": torch.zeros(3, padding, dtype=torch.bool),
        "ignore": torch.zeros(3, padding, 4), "ignore_valid": torch.zeros(3, padding, dtype=torch.bool),
    }  # fmt: skip
    values = loss(outputs_of(head, 3), targets)
    sum(values.values()).backward()
    assert all(value.isfinite() for value in values.values())
    assert values["box"] == 0 < sum(values.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
