"""Where a run's components came from, so that the run can be loaded when plugins have changed or gone."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from mtframe.errors import PluginError, TrainingError, described, one_line, pasted
from mtframe.files import write_bytes
from mtframe.kinds import Migrates
from mtframe.paths import regular
from mtframe.recipe import TRAINING_ONLY, Recipe
from mtframe.registry import only_files, qualified, resolve, split_local

LOG = logging.getLogger("mtframe")

# https://packaging.python.org/en/latest/specifications/name-normalization/#name-format
_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")

# By place in the recipe: kind, name as written, and distribution and version where it was installed.
Origins = Mapping[str, Mapping[str, str]]


def origins(recipe: Recipe, targets: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Where each component of a recipe comes from, kinds of target included.

    Args:
        recipe: Of a run that begins.
        targets: By task, the name of its kind of target.

    Returns:
        By place in the recipe.

    Raises:
        PluginError: A component cannot be found.
    """
    presets = {f"tasks.{name}.preset": task.preset for name, task in recipe.tasks.items() if task.preset}
    named = {where: (kind, choice.name) for where, kind, choice in recipe.choices()}
    named |= {where: ("preset", preset) for where, preset in presets.items()}
    for task, target in targets.items():
        named.setdefault(f"tasks.{task}.target", ("target", target))
    found = {}
    for where, (kind, name) in named.items():
        origin = recipe.resolve(kind, name).origin
        installed = {"distribution": origin.dist, "version": origin.version or ""} if origin.dist else {}
        found[where] = {"kind": kind, "name": name, **installed}
    return found


def keep_sources(recipe: Recipe, folder: Path) -> Recipe:
    """Copies the files that a recipe's components live in, and names these copies; not those that are there already.

    Args:
        recipe: Of a run that begins, or goes on.
        folder: The run's; copies go into its subfolder `components`.

    Raises:
        TrainingError: A file cannot be copied.
    """
    copies: dict[Path, str] = {}

    def keep(name: str) -> str:
        local = split_local(name)
        if local is None:
            return name
        file, rest = local
        if file not in copies and file.resolve().is_relative_to((folder / "components").resolve()):
            copies[file] = file.resolve().relative_to(folder.resolve()).as_posix()
        if file not in copies:
            there = (f"components/{known.name}" for known in folder.glob("components/*"))
            copies[file] = _free_name(file.stem, {*copies.values(), *there})
            try:
                (folder / "components").mkdir(exist_ok=True)
                write_bytes(folder / copies[file], regular(file).read_bytes(), follow=False)
            except OSError as error:
                raise TrainingError(f"{file} could not be copied into the run ({error.strerror})") from error
        return f"./{copies[file]}{rest}"

    kept = recipe.renamed(keep)
    kinds = {where: kind for where, kind, _ in kept.choices()}
    for where, name in kept.named_files():
        try:
            resolve(kinds.get(where, "component"), name, folder)
        except PluginError as error:
            raise PluginError(
                f"{where}: a run keeps a copy of the file alone, and this copy cannot be used. Put what it needs "
                f"into the file or into an installed package\n{error}"
            ) from error
    return kept


def _free_name(stem: str, taken: Collection[str]) -> str:
    """A place in a run for the copy of a file of this name."""
    name, number = f"components/{stem}.py", 1
    while name in taken:
        number += 1
        name = f"components/{stem}_{number}.py"
    return name


def revive(plain: Mapping[str, Any], known: Origins) -> dict[str, Any]:
    """A run's recipe as it was written, in the terms of what is installed now.

    A name that others offer too by now still means the distribution that the run was trained with, and components that
    have changed their options since bring old ones up to date (`migrate`).
    """
    revived = deepcopy(dict(plain))
    for where, origin in known.items():
        holder, key = _place(revived, where)
        part = holder[key] if holder is not None else None
        name = part.get("name") if isinstance(part, Mapping) else part
        if holder is None or name != origin["name"] or "distribution" not in origin:
            continue
        name = qualified(origin["kind"], name, origin["distribution"])
        options = {key: value for key, value in part.items() if key != "name"} if isinstance(part, Mapping) else {}
        if _installed(origin["distribution"]) not in (None, origin["version"]):
            options = _migrated(where, origin, name, options)
        holder[key] = {"name": name, **options} if options else name
    return revived


def changed(known: Origins, *, training: bool) -> list[str]:
    """What to install for exactly the distributions that a run was trained with, a sentence each.

    Args:
        known: The run's origins.
        training: Whether what only training needs counts: balancer, schedule and hooks.
    """
    # Presets have filled the recipe, and are not asked again.
    unneeded = ("preset",) if training else ("preset", *TRAINING_ONLY)
    needed = {
        (origin["distribution"], origin["version"])
        for origin in known.values()
        if "distribution" in origin and origin["kind"] not in unneeded
    }
    advice = []
    for dist, then in sorted(needed):
        if not _can_be_installed(dist, then):
            # pip would take it for an option or an address.
            advice.append(f"The run's environment.json has no package's name and version: {dist!r}, {then!r}")
            continue
        now = _installed(dist)
        how = f"pip install {pasted(f'{dist}=={then}')}"
        known_as = f"{one_line(dist)} {one_line(then)}"
        if now is None:
            advice.append(f"The run was trained with {known_as}, which is not installed. Install it with: {how}")
        elif now != then:
            advice.append(f"The run was trained with {known_as}, and {now} is installed. For the same one: {how}")
    return advice


def _migrated(where: str, origin: Mapping[str, str], name: str, options: dict[str, Any]) -> dict[str, Any]:
    try:
        # A run's environment.json is data: it has no file run.
        with only_files(()):
            component = resolve(origin["kind"], name).component
    except PluginError:
        # Reported with its place when the recipe is checked.
        return options
    if not isinstance(component, Migrates):
        return options
    try:
        return dict(component.migrate(dict(options), origin["version"]))
    except Exception as error:
        raise PluginError(
            f"{where}: {name!r} cannot bring its options of version {origin['version']} up to date: {described(error)}"
        ) from error


def _can_be_installed(dist: str, version: str) -> bool:
    """Whether these are a distribution's name and version: what a command may be made of."""
    try:
        Version(version)
    except InvalidVersion:
        return False
    return _DISTRIBUTION.fullmatch(dist) is not None and version.isascii() and version == version.strip()


def _installed(dist: str) -> str | None:
    try:
        return version(dist)
    except (PackageNotFoundError, ValueError):
        # ValueError of an empty name, as a damaged environment.json may have.
        return None


def _place(plain: Any, where: str) -> tuple[Any, Any]:
    """What holds the part at a place of a recipe, and its key there; None for a place that is not there."""
    *way, last = [int(part) if part.isdecimal() and len(part) < 10 else part for part in where.split(".")]
    for key in way:
        plain = _item(plain, key)
    return (plain, last) if _item(plain, last) is not None else (None, last)


def _item(holder: Any, key: Any) -> Any:
    try:
        return holder[key]
    except (LookupError, TypeError):
        return None
