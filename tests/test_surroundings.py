"""Commands as cron, containers and other users run them: no home, terminal or locale, and signals ignored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from small import Small

ROOT = Path(__file__).resolve().parents[1]
# Python does not find an editable install at such a path.
pytestmark = pytest.mark.skipif(not str(ROOT).isascii(), reason=f"an ASCII locale has no name for {ROOT}")
OURS = tuple(f"{ROOT / folder}{os.sep}" for folder in ("mtframe", "plugins"))
SURROUNDINGS = {
    "PATH": os.defpath,
    "HOME": "/dev/null",
    # ASCII, which Python would otherwise replace with UTF-8.
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONWARNDEFAULTENCODING": "1",
    "PYTHONWARNINGS": "default::EncodingWarning",
    "OMP_NUM_THREADS": "1",
    "TZ": "Pacific/Kiritimati",
}


def barely(*arguments: str, cwd: Path) -> str:
    """What `mtframe ARGUMENTS` prints in such surroundings."""
    command = ["sh", "-c", 'trap "" INT HUP; umask 077; exec "$@"', "sh", sys.executable, "-m", "mtframe", *arguments]
    done = subprocess.run(
        [os.fsencode(word) for word in command],
        cwd=cwd, env=SURROUNDINGS, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False,
    )  # fmt: skip
    said = done.stderr.decode()
    assert done.returncode == 0, said
    # A warning begins with the file that opens another one without saying the encoding.
    assert not [line for line in said.splitlines() if line.startswith(OURS)], said
    return done.stdout.decode()


def test_a_run_is_made_and_used_in_bare_surroundings(small: Small, tmp_path: Path) -> None:
    assert "face-recognition" in barely("plugins", "list", cwd=tmp_path)
    assert "run: run" in barely("train", *small.parts, "--out", "run", cwd=tmp_path)
    # A name that the tests' own locale may lack as well.
    name = os.fsdecode("höhe.jpg".encode())
    shutil.copy(next(small.objects.rglob("*.jpg")), tmp_path / name)
    barely("predict", "run", name, "--out", "out", cwd=tmp_path)
    assert (tmp_path / "out" / name).is_file()


def test_a_file_that_the_locale_cannot_name_is_told(tmp_path: Path) -> None:
    read = r"regular('h\xf6he.yaml')"
    code = f"from mtframe.paths import regular\ntry: {read}\nexcept OSError as error: print(error.strerror)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=SURROUNDINGS, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "has letters that ascii, this locale's encoding, has not; try LC_ALL=C.UTF-8\n"
