"""Checkpoints that tests change on purpose, whole again by their digests."""

from __future__ import annotations

import json
from pathlib import Path

from mtframe.run._files import file_digest


def reseal(folder: Path) -> None:
    """Gives a checkpoint the digests of its files, as if it had been saved so."""
    file = folder / "checkpoint.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["files"] = {name: file_digest(folder / name) for name in manifest["files"]}
    file.write_text(json.dumps(manifest), encoding="utf-8")
