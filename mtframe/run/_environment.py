"""What a run was trained with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from mtframe._origins import origins
from mtframe.data import DataInfo
from mtframe.recipe import Recipe

# What is in a run's folder, and how; another number where a version could not read another one's.
FORMAT = 3


def environment(recipe: Recipe, infos: Mapping[str, DataInfo]) -> dict[str, Any]:
    """Versions of Python, the machine and every distribution that supplied a component, and which supplied which."""
    components = origins(recipe, {task: info.target for task, info in infos.items()})
    suppliers = {origin["distribution"] for origin in components.values() if "distribution" in origin}
    distributions = {"mtframe", "torch", "torchvision", "timm", *suppliers}
    versions = {}
    for name in sorted(distributions):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "distributions": versions,
        "components": components,
    }
