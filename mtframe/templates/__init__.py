"""The packages that `mtframe plugins new` writes: files with `$names` in them, and what fills these.

`common` holds the files that all packages have, a folder a kind those of its own, which go before the common ones; each
is at its place in the package, and `PACKAGE` in a path is the package's name. No torch is imported here.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import shutil
import sys
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

from mtframe import __version__
from mtframe.errors import RecipeError
from mtframe.files import all_to_disk, partial_beside, write_text
from mtframe.registry import discover, kind_of

# What the component of each kind is, behind "A plugin of mtframe: ".
TOYS = {
    "backbone": "a small convolutional backbone with three feature maps.",
    "sharing": "a sharing that gives each task a scale and a shift of every channel of the backbone's maps.",
    "head": "a classifier that looks at several feature maps.",
    "loss": "focal cross-entropy.",
    "dataset": "a data set of shapes, drawn when they are asked for.",
    "target": "a kind of target, the one circle on a picture, and all that a task of it needs.",
    "transform": "a transform that stretches whole pictures to the network's square.",
    "metric": "balanced accuracy.",
    "balancer": "a balancer that takes the mean of the logarithms of the tasks' losses.",
    "schedule": "a schedule that trains one task after the other, several steps in a row.",
    "preset": "a preset for telling small pictures apart.",
    "hooks": "an observer that keeps the best scores of a run in a file.",
}

# Those that come with data of their own.
_WITH_DATA = ("dataset", "target")

_SMALL_DATA = "mtframe data synthesize csv data/scenes train=128 val=64 size=48"
_TRAIN = "mtframe train recipe.yaml"
_ENDING = ".tmpl"

# Files that become part of others, by the name that these have for them.
_PARTS = {"entry_points": "ENTRY_POINTS", "contents": "CONTENTS"}


def write_package(name: str, kind: str, out: Path | None = None) -> tuple[Path, list[str]]:
    """Writes a distribution with one working component: the whole folder, or nothing.

    Args:
        name: Of the distribution and of its component; written as packaging normalises it.
        kind: Of the component.
        out: The folder; None for one of the distribution's name in the current folder.

    Returns:
        The folder, and the commands that come next: to install it, to train with it and to test it.

    Raises:
        RecipeError: The name cannot be a distribution's or a package's, or is taken; there is no such kind; or the
            folder is not empty or cannot be written.
    """
    kind = kind_of(kind).name
    dist = re.sub(r"[-_.]+", "-", name).lower()
    package = dist.replace("-", "_")
    _check_name(name, dist, package, kind)
    folder = out or Path(dist)
    templates = _templates(kind, package)
    fields = {
        "name": dist,
        "package": package,
        "class_name": _class_name(dist, kind, templates),
        "kind": kind,
        # As in our own plugins: presets of a package are in one module, which imports no torch.
        "module": "presets" if kind == "preset" else kind,
        "summary": TOYS[kind],
        "requirement": requirement(__version__),
        "train": _TRAIN if kind in _WITH_DATA else f"{_SMALL_DATA} && {_TRAIN}",
        "year": str(date.today().year),
    }
    for field, file in _PARTS.items():
        fields[field] = Template(templates.pop(file)).substitute(fields).rstrip()
    _write(folder, {path: Template(text).substitute(fields) for path, text in templates.items()})
    install = f"cd {shlex.quote(str(folder))} && python -m pip install -e '.[test]'"
    return folder, [install, fields["train"], "python -m pytest"]


def requirement(running: str) -> str:
    """The versions of mtframe that a plugin made with version `running` works with: up to the next that may break it.

    A development version or a release candidate counts itself in.
    """
    major, minor = (int(part) for part in re.findall(r"\d+", running)[:2])
    public = running.partition("+")[0]
    least = f"{major}.{minor}" if re.fullmatch(r"[\d.]+", public) else public
    return f"mtframe>={least},<{major + 1 if major else f'0.{minor + 1}'}"


def _check_name(name: str, dist: str, package: str, kind: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise RecipeError(
            f"NAME: expected a distribution's name, of letters, digits, '-', '_' and '.', with a letter or a digit at "
            f"both ends, got {name!r}"
        )
    if not package.isidentifier() or keyword.iskeyword(package):
        raise RecipeError(f"NAME: the package's name {package!r} would be no name for Python; choose "
                          f"another name, as in my-{dist}")  # fmt: skip
    if dist in ("null", "true", "false"):
        raise RecipeError(f"NAME: {dist!r} would be no text in a recipe; choose another name, as in my-{dist}")
    for component in discover(kind):
        if component.name == dist:
            raise RecipeError(f"NAME: there is a {kind} {dist!r} already, of {component.dist} {component.version}; "
                              "choose another name")  # fmt: skip
    with suppress(PackageNotFoundError):
        raise RecipeError(f"NAME: there is a distribution {dist!r} {version(dist)} already, which the package would "
                          "replace; choose another name")  # fmt: skip
    if _is_module(package):
        raise RecipeError(f"NAME: there is a module {package!r} already, which the package's name would hide; choose "
                          f"another name, as in my-{dist}")  # fmt: skip


def _is_module(package: str) -> bool:
    if package in sys.stdlib_module_names:
        return True
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return True
    # A folder without an __init__, which may be one that was written here, is in nobody's way.
    return found is not None and found.origin is not None


def _class_name(dist: str, kind: str, templates: dict[str, str]) -> str:
    """`MyHead` of `my-head`; with the kind behind a name that its module uses already: `TensorHead` of `tensor`."""
    name = "".join(part.capitalize() for part in dist.split("-"))
    used = any(re.search(rf"\b{name}\b", text) for path, text in templates.items() if path.endswith(".py"))
    return name + kind.capitalize() if used or keyword.iskeyword(name) else name


def _templates(kind: str, package: str) -> dict[str, str]:
    """Text of every file by its path in the package's folder."""
    here = Path(__file__).parent
    return {
        file.relative_to(root).as_posix().removesuffix(_ENDING).replace("PACKAGE", package): file.read_text("utf-8")
        for root in (here / "common", here / kind)
        for file in sorted(root.rglob(f"*{_ENDING}"))
    }


def _write(folder: Path, files: dict[str, str]) -> None:
    """Writes the files beside the folder, and moves them there: it gets all of them or none."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"--out: {folder} already exists and is not empty; choose another folder")
    # Of its own, should another process write the same one.
    partial = partial_beside(folder.resolve())
    try:
        for path, text in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            write_text(partial / path, text, flush=False)
        all_to_disk()
        if not folder.exists():
            partial.rename(folder)
            return
        # Into an empty folder, not in place of it: a shell may be in there.
        for entry in partial.iterdir():
            entry.rename(folder / entry.name)
    except OSError as error:
        raise RecipeError(f"--out: {folder} cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
