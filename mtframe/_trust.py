"""Whose code is run: a run's own files, as the run recorded them, once the user has agreed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mtframe import files
from mtframe.errors import Code, RecipeError, UntrustedError
from mtframe.paths import regular
from mtframe.recipe import Recipe
from mtframe.registry import split_local

from ._files import file_digest

# The folder of a run's own files.
COMPONENTS = "components"

# Digests that this process may run, besides those that the user has agreed to for good.
_AGREED: set[str] = set()


def code_of(recipe: Recipe, run: Path, recorded: Mapping[str, str]) -> list[Code]:
    """The Python files that a run's recipe names: as parts, as presets, and in options.

    Args:
        recipe: The recipe, its names of files resolved.
        run: The run's folder.
        recorded: SHA-256 by file, relative to the folder, as the run has written it down.

    Raises:
        RecipeError: One lies outside of the run's `components/`, is not there, or is not what the run recorded.
    """
    # Not through a link: the folder itself may be one.
    home = run.resolve() / COMPONENTS
    found: dict[Path, Code] = {}
    for where, name in recipe.named_files():
        local = split_local(name)
        if local is None or local[0] in found:
            continue
        file = local[0].resolve()
        if not file.is_relative_to(home):
            raise RecipeError(
                f"{where}: {file} is outside of {run / COMPONENTS}; of a run, only files in there are run. If it is "
                "yours, install it as a package, or train a recipe of your own that names it"
            )
        try:
            digest = file_digest(file)
        except OSError as error:
            raise RecipeError(f"{where}: {file} cannot be read ({error.strerror or error})") from None
        relative = file.relative_to(run.resolve()).as_posix()
        if recorded.get(relative, digest) != digest:
            raise RecipeError(
                f"{where}: {file} is not what the run was trained with: its SHA-256 is {digest[:16]}…, and "
                f"environment.json has {recorded[relative][:16]}…. Put it back, or train a recipe of your own with it"
            )
        found[local[0]] = Code(file, digest)
    return list(found.values())


def check_trusted(code: Iterable[Code], run: Path) -> None:
    """Raises UntrustedError if the user has not agreed to run some of it."""
    known = _AGREED | _remembered()
    if unknown := [one for one in code if one.digest not in known]:
        files = ", ".join(f"{one.file} (SHA-256 {one.digest[:16]}...)" for one in unknown)
        raise UntrustedError(
            f"{run}: has Python code of its own, which loading it would run, and which this user has neither trained "
            f"nor agreed to: {files}. Read it; if you trust it, add --trust, or call mtframe.run.trust(...) in Python",
            unknown,
        )


def agree(code: Iterable[Code], *, for_good: bool) -> None:
    """Notes that the user agrees to run some code.

    Args:
        code: It; by content, so a file that changes is another one.
        for_good: Whether later processes may run it too. Where that cannot be written, this one may.
    """
    digests = {one.digest for one in code}
    _AGREED.update(digests)
    if not for_good or digests <= (known := _remembered()):
        return
    file = _memory()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(file, json.dumps(sorted(known | digests), indent=0), private=True)


def _memory() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(os.environ.get("MTFRAME_STATE") or os.path.join(home, "mtframe"), "trusted.json")


def _remembered() -> set[str]:
    file = _memory()
    try:
        # What others may write says nothing of what this user agreed to.
        if hasattr(os, "getuid") and file.stat().st_uid != os.getuid():
            return set()
        found = json.loads(regular(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()
