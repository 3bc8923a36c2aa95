"""Decoding an image that is in memory."""

from __future__ import annotations

from torch import Tensor

from mtframe.data import DecodeSize
from mtframe.data import _images as images
from mtframe.errors import BadImageError


def decode_image(data: bytes, name: str, decode_size: DecodeSize | None = None) -> tuple[Tensor, tuple[int, int]]:
    """Placeholder until the framework has it."""
    import torch

    try:
        decode = (
            images._decode_jpeg(data, decode_size) if data.startswith(b"\xff\xd8\xff") else images._decode_other(data)
        )
    except images._Refused as error:
        raise BadImageError(name, str(error)) from None
    except Exception as error:
        raise BadImageError(name, f"cannot be decoded ({str(error).strip() or type(error).__name__})") from None
    return torch.from_numpy(decode[0]).permute(2, 0, 1), decode[1]
