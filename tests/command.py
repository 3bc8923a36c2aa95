"""The command line inside the test's process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from mtframe.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def mtframe(*arguments: object) -> Result:
    """Runs `mtframe ARGUMENTS`; an exception that leaves it is a bug, and is raised."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["mtframe", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())
