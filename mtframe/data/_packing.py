"""How what a loader's worker has made gets to the training process: at most one file descriptor an item.

torch sends each tensor of an item as shared memory of its own, with a descriptor that stays open as long as somebody
keeps the tensor: a metric that keeps the boxes of each image has used up the usual 1,024 after 144 images. Here, large
tensors lie in one block of shared memory, which goes with the batch; samples, which are kept, are copied out of it.
"""

# Shapes: N bytes of all large tensors of an item.

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._sample import Batch, Sample

# Bytes: smaller tensors are copied out of the block, since they cost less than a block that is kept for them.
_LARGE = 1 << 14

# Where a tensor begins in the block, so that any type of number can be read there.
_ALIGNED = 64


@dataclass(slots=True)
class Packed:
    """An item on its way.

    Attributes:
        block: (N,) uint8, in shared memory: its large tensors, then all else as bytes. Nothing else crosses the pipe
            between the processes: a long message would be half written, and waited for, if its writer was killed.
        large: How many of the bytes are large tensors.
    """

    block: Tensor
    large: int

    def opened(self) -> Any:
        """The item; its large tensors are views of the block."""
        content = self.block[self.large :].numpy().tobytes()
        return _Unpickler(io.BytesIO(content), self.block).load()

    def pin_memory(self) -> Any:
        """The item, with its batches in page-locked memory (called by torch's DataLoader)."""
        return _pinned(self.opened())


def _pinned(item: Any) -> Any:
    if isinstance(item, dict):
        return {name: _pinned(value) for name, value in item.items()}
    return item.pin_memory() if isinstance(item, Batch) else item


def packed(item: Any) -> Packed:
    """An item made ready to be sent."""
    content, large = io.BytesIO(), list[tuple[int, Tensor]]()
    pickler = _Pickler(content, large)
    pickler.dump(item)
    # In shared memory from the start, so that nothing is copied twice.
    storage = torch.UntypedStorage._new_shared(pickler.size + content.tell())
    block = torch.empty(0, dtype=torch.uint8).set_(storage)
    block[pickler.size :] = torch.frombuffer(content.getbuffer(), dtype=torch.uint8)
    for place, tensor in large:
        _view(block, place, tensor.dtype, tensor.shape, _stride(tensor)).copy_(tensor)
    return Packed(block, pickler.size)


class _Pickler(pickle.Pickler):
    """Sets large tensors aside, in `large` with their places, but those of samples."""

    def __init__(self, content: io.BytesIO, large: list[tuple[int, Tensor]]) -> None:
        super().__init__(content, protocol=pickle.HIGHEST_PROTOCOL)
        self.large, self.size = large, 0

    def persistent_id(self, thing: Any) -> Any:
        if type(thing) is not Tensor or thing.layout != torch.strided or thing.device.type != "cpu":
            return None
        tensor = thing.detach()
        if tensor.nbytes < _LARGE:
            return "bytes", *_bytes_of(tensor)
        place = -(-self.size // _ALIGNED) * _ALIGNED
        self.size = place + tensor.nbytes
        self.large.append((place, tensor))
        return "block", place, tensor.dtype, tensor.shape, _stride(tensor)

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is not Sample:
            return NotImplemented
        tensors = {name: _bytes_of(value) if type(value) is Tensor else value for name, value in thing.target.items()}
        return _sample, (_bytes_of(thing.image), tensors, thing.size, thing.index, thing.id)


class _Unpickler(pickle.Unpickler):  # noqa: S301 - what this process's own worker has written
    def __init__(self, content: io.BytesIO, block: Tensor) -> None:
        super().__init__(content)
        self.block = block

    def persistent_load(self, found: Any) -> Tensor:
        kind, *rest = found
        if kind == "bytes":
            return _of_bytes(*rest)
        return _view(self.block, *rest)


# A tensor as bytes: its type, its shape and its values in memory order.
_Bytes = tuple[torch.dtype, torch.Size, bytearray]


def _bytes_of(tensor: Tensor) -> _Bytes:
    # Not by `contiguous`: what has one element is that with any stride, and cannot be seen as bytes.
    values = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return tensor.dtype, tensor.shape, bytearray(values.flatten().view(torch.uint8).numpy())


def _of_bytes(dtype: torch.dtype, shape: torch.Size, values: bytearray) -> Tensor:
    return torch.frombuffer(values, dtype=dtype).view(shape) if values else torch.empty(shape, dtype=dtype)


def _sample(image: _Bytes, target: dict[str, Any], size: tuple[int, int], index: int, id: str) -> Sample:
    tensors = {name: _of_bytes(*value) if isinstance(value, tuple) else value for name, value in target.items()}
    return Sample(_of_bytes(*image), tensors, size, index, id)


def _stride(tensor: Tensor) -> tuple[int, ...]:
    """How a tensor lies in the block: as it does, if without gaps; else row by row."""
    whole = torch.empty_like(tensor, device="meta")
    return whole.stride()


def _view(block: Tensor, place: int, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    values = block[place : place + shape.numel() * dtype.itemsize].view(dtype)
    return values.as_strided(shape, stride, storage_offset=values.storage_offset())
