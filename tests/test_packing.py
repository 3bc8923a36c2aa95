"""What a loader's workers send costs few file descriptors on the way, and none where it is kept."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtframe.data import Batch, Sample
from mtframe.data._loader import load
from mtframe.data._packing import packed
from mtframe.errors import BadImageError

DTYPES = [torch.uint8, torch.int64, torch.bool, torch.float32, torch.float64, torch.bfloat16, torch.complex64]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda values: values,
    "channels last": lambda values: (
        values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values
    ),
    "turned": lambda values: values.mT if values.dim() > 1 else values,
    "every other": lambda values: values[::2] if values.dim() else values,
    "repeated": lambda values: values[:1].expand(values.shape) if values.dim() and len(values) else values,
}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def at_most(files: int) -> Iterator[None]:
    """A limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def sample(index: int) -> Sample:
    target = {
        "boxes": torch.full((3, 4), float(index)),
        "labels": torch.tensor([index, 1, 2]),
        "mask": torch.ones(99, 999),
    }
    return Sample(torch.empty(0, dtype=torch.uint8), target, (480, 640), index, f"{index}.jpg")


class Boxes:
    """Batches of large images, each with a sample of three tensors."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def __getitem__(self, number: int) -> Batch:
        images = torch.full((self.batch, 3, 64, 64), number, dtype=torch.uint8)
        return Batch(images, samples={"one": [sample(number) for _ in range(self.batch)]})


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 70), max_size=4), st.sampled_from(sorted(LAYOUTS)))
@example(torch.int64, [1], "repeated")
@example(torch.uint8, [2, 3, 64, 64], "channels last")
@example(torch.float32, [], "rows")
def test_a_tensor_arrives_as_it_was(dtype: torch.dtype, shape: list[int], layout: str) -> None:
    values = LAYOUTS[layout](torch.randint(0, 2 if dtype == torch.bool else 100, shape).to(dtype))
    item = {"a": values, "again": values[:1] if shape else values, "text": ["b", 1]}
    found = packed(item).opened()
    for name in ("a", "again"):
        assert found[name].dtype == dtype
        assert torch.equal(found[name], item[name])
    if layout in ("rows", "channels last") and values.numel():
        assert found["a"].stride() == values.stride()
    assert found["text"] == ["b", 1]
    if found["a"].numel():
        # To be written to, as a worker's tensor is.
        found["a"].zero_()


def test_what_is_no_plain_tensor_arrives_too() -> None:
    error = BadImageError("a.jpg", "is empty")
    assert str(packed(error).opened()) == str(error)
    parameter = packed(torch.nn.Parameter(torch.ones(3))).opened()
    assert isinstance(parameter, torch.nn.Parameter)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        packed(lambda: None)


def test_a_sample_does_not_keep_its_batch() -> None:
    item = packed(Boxes(2)[5])
    batch: Batch = item.opened()
    kept: Sample = batch.samples["one"][0]  # type: ignore[assignment]

    def memory(tensor: Tensor) -> int:
        return tensor.untyped_storage().data_ptr()

    assert memory(batch.images) == memory(item.block)
    assert all(memory(tensor) != memory(item.block) for tensor in kept.target.values())
    assert torch.equal(kept.target["mask"], torch.ones(99, 999))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts the files of this process in /proc")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("batch", [1, 64])
def test_kept_samples_hold_no_file_open(batch: int) -> None:
    before = descriptors()
    kept: list[Any] = []
    # 200 batches of 64 images would have held 38,400 open.
    with at_most(before + 60):
        for number, item in enumerate(load(Boxes(batch), range(200), 2, pin_memory=False)):
            assert (item.images == number).all()
            kept += item.samples["one"]
            del item
        assert descriptors() <= before + 20
    assert [int(one.target["labels"][0]) for one in kept[::batch]] == list(range(200))
