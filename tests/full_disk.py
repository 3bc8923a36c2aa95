"""A disk that is full: what is written through `mtframe.files` gets half of its bytes there, then an error."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

import pytest

from mtframe import files


def fill(monkeypatch: pytest.MonkeyPatch, after: int = 0, error: BaseException | None = None) -> None:
    """Fills the disk.

    Args:
        monkeypatch: Empties it again.
        after: How many files still find room.
        error: What comes of writing in place of a full disk's error.
    """
    left = after

    class Full(io.BufferedRandom):
        def write(self, content: Any, /) -> int:
            half = bytes(content)
            super().write(half[: len(half) // 2])
            raise error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(path: Any, mode: str, **options: Any) -> Any:
        nonlocal left
        left -= 1
        file: Any = open(path, mode, **options)  # noqa: SIM115 - closed by who asked for it
        return file if left >= 0 else Full(file.detach())

    monkeypatch.setattr(files, "open", opened, raising=False)
