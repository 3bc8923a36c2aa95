"""What a run was trained with."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from mtframe._origins import Origins, origins
from mtframe.data import DataInfo
from mtframe.paths import regular
from mtframe.recipe import Recipe

LOG = logging.getLogger("mtframe")

# What is in a run's folder, and how; another number where a version could not read another one's.
FORMAT = 3


class Origin(BaseModel):
    """Where a component came from.

    Attributes:
        kind: Of the component.
        name: As the recipe has it.
        distribution: That it was installed with; None for one in a file.
        version: Of the distribution.
    """

    kind: str
    name: str
    distribution: str | None = None
    version: str = ""


class Environment(BaseModel):
    """What of `environment.json` is read again.

    Attributes:
        format: Of the run's folder.
        components: Where each came from, by place in the recipe.
    """

    format: int = 1
    components: dict[str, Origin] = {}

    @property
    def origins(self) -> Origins:
        """Where each component came from, in plain values."""
        return {where: origin.model_dump(exclude_none=True) for where, origin in self.components.items()}

    @classmethod
    def read(cls, file: Path) -> Environment:
        """That of a file; a run can be loaded without, so damage is only a warning."""
        try:
            return cls.model_validate_json(regular(file).read_bytes())
        except FileNotFoundError:
            why = "missing"
        except OSError as error:
            why = f"cannot be read ({error.strerror or error})"
        except ValidationError:
            why = "damaged"
        LOG.warning("%s: %s, so nobody can say whether what is installed is what the run was trained with", file, why)
        return cls(format=FORMAT)


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
        "trained": recipe.train.steps != 0,
        "distributions": versions,
        "components": components,
    }
