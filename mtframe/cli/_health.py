"""What `mtframe plugins doctor` looks at besides components: the environment, and what distributions require."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from mtframe._installed import REQUIRES_MTFRAME, unreadable, versions_of
from mtframe.errors import described, pasted


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        good: Whether it is as it should be; None for what is only worth knowing.
        text: What it is.
        advice: What to do about it.
        traceback: Of the exception behind it.
    """

    good: bool | None
    text: str
    advice: str = ""
    traceback: str = ""


def environment() -> list[Finding]:
    """Python, torch and torchvision, devices, and decoders."""
    found = [Finding(True, f"Python {platform.python_version()} on {platform.platform()}")]
    for broken in unreadable():
        said = f"{broken}. Until then torch, which reads those of all distributions, cannot be imported"
        found.append(Finding(False, said, f"pip install --force-reinstall {pasted(broken.dist)}"))
    if len(found) > 1:
        return found
    for probe, advice in (
        (_torch, "pip install --upgrade torch torchvision installs a pair that fits"),
        (_devices, "a driver that fits torch, or a torch that fits the driver: https://pytorch.org/get-started"),
        (_decoders, "pip install --force-reinstall pillow simplejpeg"),
    ):
        found.append(_probed(probe, advice))
    return found


def requirements(dist: str) -> Iterator[Finding]:
    """What a distribution requires and is not there, or not in a version that fits."""
    here = versions_of(dist)
    if len(here) > 1:
        said = f"versions {' and '.join(here)} are on the path; the first one found hides the other"
        yield Finding(False, said, f"pip uninstall {dist} until none is left, then install it again")
    for text in _required(dist):
        # What it needs of mtframe is reported with its components, which are refused for it.
        if REQUIRES_MTFRAME.match(text):
            continue
        try:
            needed = Requirement(text)
            applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
        except Exception as error:
            yield Finding(False, f"requires {text!r}, which cannot be read: {described(error)}", "tell its authors")
            continue
        if not applies:
            continue
        there = _version(needed.name)
        if there is None or not _fits(needed, there):
            has = f"{there} is" if there else "it is not"
            yield Finding(False, f"requires {needed}, and {has} installed", f"pip install {pasted(needed)}")


def _required(dist: str) -> list[str]:
    try:
        return requires(dist) or []
    except (PackageNotFoundError, ValueError, OSError):
        # Its metadata are damaged, which is reported with its components.
        return []


def _version(dist: str) -> str | None:
    """The version that is installed, if any can be read."""
    try:
        return version(dist)
    except (PackageNotFoundError, ValueError, OSError, KeyError):
        return None


def _fits(needed: Requirement, there: str) -> bool:
    try:
        return needed.specifier.contains(there, prereleases=True)
    except ValueError:
        # It is no version.
        return False


def _probed(probe: Callable[[], str], advice: str) -> Finding:
    """What a probe found to be well, or the exception that it raised."""
    try:
        return Finding(True, probe())
    # Whatever a broken installation raises: an operator that is not there, a library that does not load.
    except Exception as error:
        name = probe.__name__.strip("_")
        return Finding(False, f"{name}: {described(error)}", advice, traceback.format_exc())


def _torch() -> str:
    import torch
    import torchvision

    # Compiled for another torch, it is imported and has no operators.
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    return f"torch {torch.__version__} with torchvision {torchvision.__version__}: operators load"


def _devices() -> str:
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    for number in range(torch.cuda.device_count()):
        # A device that is listed need not work.
        torch.ones(2, device=f"cuda:{number}").sum().item()
        found.append(f"cuda:{number} ({torch.cuda.get_device_name(number)})")
    if torch.backends.mps.is_available():
        found.append("mps")
    return f"devices: {', '.join(found)}"


def _decoders() -> str:
    import io

    import numpy as np
    import simplejpeg
    from PIL import Image, features

    grey = np.full((16, 16, 3), 128, np.uint8)
    if abs(int(simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(grey)).mean()) - 128) > 1:
        raise ValueError("simplejpeg does not give back what it encodes")
    with io.BytesIO() as file:
        Image.fromarray(grey).save(file, "PNG")
        Image.open(file).load()
    webp = "WebP" if features.check("webp") else "no WebP"
    return f"pictures: JPEG by simplejpeg; PNG, {webp} and others by Pillow {Image.__version__}"
