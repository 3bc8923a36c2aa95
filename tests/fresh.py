"""A fresh environment beside mtframe: what a stranger has who has installed it, and nothing else."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

# As pip writes it. Processes that read images import it once more, hence the condition.
_SCRIPT = """
from mtframe.cli import main

if __name__ == "__main__":
    main()
"""


def needs(tool: str) -> pytest.MarkDecorator:
    """Skips a test where a tool of the extra `dev` is not installed; `.ci/run` installs it."""
    missing = importlib.util.find_spec(tool) is None
    return pytest.mark.skipif(missing, reason=f"{tool} is not installed; it comes with pip install 'mtframe[dev]'")


class Fresh:
    """A virtual environment of its own, which sees the packages of the one that the tests run in.

    So torch is there without being installed once more, and what is installed goes into this one. Nothing is
    fetched: pip has no index, and builds with what is there.

    Args:
        folder: Where to make it; must not exist.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        (site,) = folder.glob("lib/python*/site-packages")
        # addsitedir, not the path alone: an editable install is a .pth file in there.
        (site / "beside.pth").write_text(
            f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", encoding="utf-8"
        )
        script = folder / "bin" / "mtframe"
        # A path after #! may have no spaces. To Python these lines are a string.
        start = f"#!/bin/sh\n'''exec' {shlex.quote(str(folder / 'bin' / 'python'))} \"$0\" \"$@\"\n' '''\n"
        script.write_text(start + _SCRIPT, encoding="utf-8")
        script.chmod(0o755)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "PIP_"))}
        self.environment = clean | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(folder),
            "PIP_NO_INDEX": "1",
            # Of pip's negative options it is the value that counts: 0 means no isolation.
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, command: str, cwd: Path) -> str:
        """Runs lines of bash in the environment; returns what they printed, and asserts that all went well."""
        done = subprocess.run(
            ["bash", "-euc", command], cwd=cwd, env=self.environment, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def bash_blocks(readme: Path) -> dict[str, str]:
    """The one bash block of each section of a README that has one, by heading."""
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {heading: re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for heading, text in sections}
    return {heading: block for heading, (block,) in ((h, blocks) for h, blocks in found.items() if blocks)}
