"""What was seen of plugins when they were last imported or used, so that listings, which import none, can say so.

Kept in the user's cache folder (`MTFRAME_CACHE`), by environment. Nothing depends on it: where it cannot be read or
written, listings say less.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from functools import lru_cache
from pathlib import Path

from mtframe.files import write_text
from mtframe.paths import regular


def noted(label: str) -> str:
    """What was wrong with a component when it was last imported, or last used, with the day; empty if nothing is known.

    Args:
        label: Kind, name, distribution and version, as messages call it.
    """
    return _read(_file()).get(_key(label), "")


def note(label: str, problem: str) -> None:
    """Remembers what is wrong with a component, or with an empty text that nothing is."""
    file = _file()
    known = _read(file)
    line = f"{problem} ({time.strftime('%Y-%m-%d')})" if problem else ""
    if known.get(_key(label), "") == line:
        return
    known[_key(label)] = line
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({key: text for key, text in known.items() if text}, indent=2))


def _file() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("MTFRAME_CACHE") or os.path.join(home, "mtframe"), "plugins.json")


def _key(label: str) -> str:
    # The same distribution in another environment is another one.
    return f"{sys.prefix}: {label}"


@lru_cache(maxsize=4)
def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(regular(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(key): str(text) for key, text in found.items()} if isinstance(found, dict) else {}
