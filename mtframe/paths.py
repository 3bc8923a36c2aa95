"""Paths that files of other people name, which must not lead out of the folder that they are in."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath


def stays_inside(name: str) -> bool:
    """Whether a path stays in the folder that it is relative to, on any system."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if not path.name or path.anchor or ".." in path.parts or "\0" in name:
            return False
    return True
