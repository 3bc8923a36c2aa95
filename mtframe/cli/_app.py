"""What the commands share: the application, printing, and the exit codes."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mtframe import __version__
from mtframe.errors import (
    MtframeError,
    Printable,
    UntrustedError,
    described,
    is_memory_short,
    one_line,
    one_message,
    printable,
)

app = typer.Typer(
    name="mtframe",
    no_args_is_help=True,
    # Text of users and plugins may hold [brackets], which are not markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"mtframe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Use built-in components only; MTFRAME_PLUGINS=a,b allows some others.")
    ] = False,
) -> None:
    """Train, evaluate and run one vision model for several tasks.

    A shared backbone, one head per task, each task with its own data.
    """
    if no_plugins:
        # In the environment, so that worker processes see it too.
        os.environ["MTFRAME_PLUGINS"] = ""
    # What is wrong with plugins can be asked for all the same.
    if context.invoked_subcommand != "plugins":
        from mtframe.registry import check_entry_points

        check_entry_points()


# One, however often the command line is called in a process.
_PRINTABLE = Printable()


def run() -> None:
    """Runs the command line; a user's mistake becomes one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files and tasks may have letters that the terminal's encoding has not.
            stream.reconfigure(errors="backslashreplace")
    # Warnings go to the terminal, too. A filter of a logger is not asked for what loggers below it say.
    if logging.lastResort is not None:
        logging.lastResort.addFilter(_PRINTABLE)
    try:
        try:
            app()
        except UntrustedError as error:
            if not _agrees(error):
                raise
            # It is raised before anything is done.
            app()
    except MtframeError as error:
        say(one_message(f"error: {error}"), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _interrupted()
    except OSError as error:
        # A disk, a path or a permission; whatever it is, it is no bug that a traceback would help to find.
        place = f"{one_line(error.filename)}: " if error.filename is not None else ""
        say(one_message(f"error: {place}{error.strerror or error}"), err=True)
        sys.exit(MtframeError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            # Where a class is being made, Python wraps it.
            _interrupted()
        if not is_memory_short(error):
            raise
        advice = "Lower batch sizes, sizes, widths or train.workers"
        say(one_message(f"error: out of memory ({described(error)}). {advice}"), err=True)
        sys.exit(MtframeError.exit_code)


def _interrupted() -> NoReturn:
    say("interrupted", err=True)
    sys.exit(130)


def _agrees(error: UntrustedError) -> bool:
    """Asks the user whether to run a run's code, if there is somebody to ask; remembers the answer yes."""
    asked: BaseException | None = error
    while isinstance(asked, UntrustedError) and not asked.code:
        # One that says where the other came from.
        asked = asked.__cause__
    if not isinstance(asked, UntrustedError) or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    say("This run brings Python code of its own, which loading it runs:", err=True)
    say([f"  {one_line(one.file)}  SHA-256 {one.digest}" for one in asked.code], err=True)
    question = "Have you read it, and do you trust it? It can do whatever you can. [y/N] "
    say(question, end="", err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        return False
    from mtframe.run import agree

    agree(asked.code, for_good=True)
    return True


def trust_runs(trusted: bool, *runs: Path | str | None) -> None:
    """Agrees to run the code of runs, for `--trust`."""
    if not trusted:
        return
    from mtframe.run import trust

    for run in runs:
        if run is not None:
            trust(run)


def trust_recipe(trusted: bool, file: Path | str) -> None:
    """Agrees to run the code of the run that a recipe's file lies in, if it lies in one, for `--trust`."""
    if trusted:
        from mtframe._trust import agree
        from mtframe.recipe import code_beside, read_recipe

        agree(code_beside(file, read_recipe(file)), for_good=False)


# `--trust` of every command that loads a run, or its recipe.
Trusted = Annotated[
    bool, typer.Option("--trust", help="Run the Python files that the run brings, which somebody else has trained.")
]


def say(said: str | Iterable[str], *, err: bool = False, end: str = "\n") -> None:
    """Prints a text, or several: as they are but for control characters, which strangers' names may have.

    All that commands print goes through here, `print_document`, or a table of `_work`; a test looks for what does not.

    Args:
        said: It. A name from elsewhere goes into a line with `one_line`.
        err: On the standard error instead of the standard output.
        end: What follows each.
    """
    for text in [said] if isinstance(said, str) else said:
        print(printable(text), end=end, file=sys.stderr if err else sys.stdout, flush=True)


def note(text: str) -> None:
    """Prints what is worth knowing before the work starts."""
    say(f"note: {text}", err=True)


def as_json(value: Any) -> str:
    """JSON without control characters: json.dumps escapes all but DEL."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def json_line(value: Any) -> str:
    """The same on one line."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def print_document(text: str) -> None:
    """Prints what is to be read as a file: in UTF-8, whatever the terminal's encoding."""
    if sys.stdout.isatty():
        text = printable(text)
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        binary.write(text.encode(errors="backslashreplace"))
    sys.stdout.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what is in them, so that names stay whole on narrow terminals and in pipes."""
    lines = [[one_line(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
