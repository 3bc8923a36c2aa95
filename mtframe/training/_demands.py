"""Numbers that no machine like this one can serve, refused before anything is built."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mtframe.errors import RecipeError
from mtframe.recipe import Recipe

# Processes that read images: more than so many a processor only wait for each other.
_WORKERS_A_PROCESSOR, _WORKERS = 8, 32

# Bytes of a pixel: as it was read, and as the network's input in float32.
_BYTES = 3 + 3 * 4


def check_demands(recipe: Recipe) -> None:
    """Raises RecipeError if a step's images, or the processes that read them, are beyond this machine."""
    train, processors = recipe.train, os.cpu_count() or 1
    most = max(_WORKERS, _WORKERS_A_PROCESSOR * processors)
    if train.workers > most:
        raise RecipeError(
            f"train.workers: {train.workers} processes that read images, on a machine of {processors} processors; "
            f"expected at most {most}"
        )
    if (memory := memory_size()) is None:
        return
    for name in recipe.trained:
        task = recipe.tasks[name]
        needed = task.batch_size * task.size**2 * _BYTES * train.accumulate
        if task.images is None and needed > memory:
            step = f" x {train.accumulate} batches" if train.accumulate > 1 else ""
            raise RecipeError(
                f"tasks.{name}: {task.batch_size} images of {task.size} pixels{step} a step take {_amount(needed)} "
                f"before the network has begun, and this machine has {_amount(memory)}. Lower batch_size or size"
            )


def memory_size() -> int | None:
    """Bytes that this process may have: the machine's, or its control group's limit; None if nobody knows."""
    sizes = []
    if hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    # There may be no such file, or "max" in it.
    with suppress(OSError, ValueError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min((size for size in sizes if size > 0), default=None)


def _amount(size: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
