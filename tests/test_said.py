"""What commands print: strangers' names neither steer the terminal nor begin lines of their own."""

from __future__ import annotations

import ast
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from command import Result, mtframe
from fake_dist import make_dist
from mtframe import cli
from mtframe.cli import _app, _health
from mtframe.errors import BadImageError, one_line, one_message, printable

EVIL = "z\x1b[31m\x1b]0;title\a\x1b[2J\u202e\nval: ok"

# Where the standard streams may be written to: everything else says what it says through these.
DOORS = {("_app.py", "say"), ("_app.py", "print_document"), ("_work.py", "print_scores"), ("_work.py", "_print_kept")}


def harmless(result: Result) -> str:
    said = result.out + result.err
    assert all(line.isprintable() for line in said.split("\n")), said
    assert not [line for line in said.split("\n") if line.startswith("val: ok")]
    return said


def test_names_of_files_are_shown_in_a_line(tmp_path: Path) -> None:
    for name in ("a", EVIL):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / "good.jpg")
    (tmp_path / "train" / "a" / f"{EVIL}.jpg").write_bytes(b"no picture")
    said = harmless(mtframe("data", "check", "image-folder", tmp_path))
    assert r"z\x1b[31m\x1b]0;title\x07\x1b[2J\u202e\nval: ok.jpg" in said


def test_skipped_files_are_shown_in_a_line(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / f"{EVIL}.jpg").write_bytes(b"no picture")
    for folder in (tmp_path / "gallery" / EVIL, tmp_path / "gallery" / "a"):
        folder.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "good.png")
    shutil.copy(tmp_path / "good.png", tmp_path / "gallery" / "a")
    result = mtframe("predict", small_run, tmp_path / "good.png", tmp_path / f"{EVIL}.jpg",
                     "--gallery", tmp_path / "gallery", "--out", tmp_path / "out")  # fmt: skip
    said = harmless(result)
    assert result.code == 1
    assert said.count(r"skipped ") == 2, said


def test_names_of_distributions_are_shown_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "e\x1b[31m\u202e"
    entries = {"mtframe.head": {f"h{evil}": f"gone:H{evil}"}, f"mtframe.heads{evil}": {f"s{evil}": "gone:S"}}
    make_dist(tmp_path, "evil", entries)
    metadata = tmp_path / "evil-1.2.3.dist-info" / "METADATA"
    metadata.write_text(f"Name: evil{evil}\nVersion: 1{evil}\n", encoding="utf-8")
    broken = make_dist(tmp_path, "x\nval: ok\x1b", {"mtframe.head": {"other": "gone:H"}})
    (broken / "x\nval: ok\x1b-1.2.3.dist-info" / "METADATA").unlink()
    monkeypatch.syspath_prepend(tmp_path)
    said = harmless(mtframe("plugins", "list"))
    assert r"he\x1b[31m\u202e" in said
    assert r"note: evile\x1b[31m\u202e 1e\x1b[31m\u202e offers se\x1b[31m\u202e in group" in said
    assert r"x\nval: ok\x1b" in said
    harmless(mtframe("plugins", "show", "head", "hx"))


@pytest.mark.parametrize("text", [b"[mtframe.head]\nodd\xff = gone:H\n", b"[pytest\xff]\n", b"[x]\nno value\n"])
def test_broken_metadata_are_named(tmp_path: Path, text: bytes) -> None:
    make_dist(tmp_path, "stranger", {})
    (tmp_path / "stranger-1.2.3.dist-info" / "entry_points.txt").write_bytes(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def said(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "mtframe", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    code, listing = said("plugins", "list", "head")
    assert code == 0
    assert "dense" in listing
    assert ("note: stranger 1.2.3: its entry_points.txt cannot be read" in listing) == (b"mtframe" not in text)
    code, health = said("plugins", "doctor")
    assert code == 1
    assert "PROBLEM  stranger 1.2.3: its entry_points.txt cannot be read" in health
    assert "What to do: pip install --force-reinstall stranger" in health
    for arguments in (["plugins", "check", "mtframe"], ["plugins", "show", "head", "dense"], ["backbones", "resnet18"]):
        code, message = said(*arguments)
        assert code == 2
        assert "torch, which reads those of all distributions, cannot be imported. Try: pip install" in message
    if b"mtframe" in text:
        assert "broken: its entry_points.txt is not UTF-8" in listing
        assert (
            "PROBLEM  head 'odd\ufffd': its entry_points.txt is not UTF-8" in said("plugins", "doctor", "stranger")[1]
        )


def test_metadata_that_cannot_be_read_end_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dist(tmp_path, "kite-kit", {"mtframe.head": {"h": "json:JSONDecoder"}}, requires=["kite-wind>=1", "kite-sea"])
    make_dist(tmp_path, "kite-wind", {}, version="x\x1b")
    make_dist(tmp_path, "kite-sea", {})
    (tmp_path / "kite_sea-1.2.3.dist-info" / "METADATA").write_bytes(b"Name: kite-sea\xff\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [finding.text for finding in _health.requirements("kite-kit")]
    assert found == ["requires kite-wind>=1, and x\x1b is installed", "requires kite-sea, and it is not installed"]
    assert not list(_health.requirements("kite-sea"))


def test_a_line_is_one_line() -> None:
    assert one_line("a b\tc\nd\re\x85f\u2028g\u3000ä") == r"a b\tc\nd\re\x85f\u2028g" + "\u3000ä"
    assert printable("a\tb\nc\u2028\x85") == "a\tb\nc\\u2028\\x85"
    error = BadImageError("a\nb", "why")
    assert (str(error), error.path) == (r"a\nb: why", "a\nb")


def test_no_line_of_a_message_passes_for_a_message() -> None:
    assert one_message("a\nb\n  - c\n\n\td\x1b\n") == "a\n  b\n  - c\n\n\td\\x1b\n"


def test_what_loggers_below_ours_say_is_one_message_too(capsys: pytest.CaptureFixture[str]) -> None:
    mtframe("--version")
    assert logging.lastResort is not None
    logger = logging.getLogger("mtframe.hooks")
    try:
        raise ValueError("c\x1b\nval: ok")
    except ValueError as error:
        raised = (type(error), error, error.__traceback__)
    record = logger.makeRecord(logger.name, logging.WARNING, "f", 1, "%s\nval: ok", ("a\x1b",), raised)
    logging.lastResort.handle(record)
    said = capsys.readouterr().err
    assert said.startswith("a\\x1b\n  val: ok\n")
    assert "ValueError: c\\x1b\n  val: ok" in said


@pytest.mark.parametrize("source", ["yolo", "voc", "coco", "image-folder", "identity-folders", "lfw"])
def test_a_folder_begins_no_line_of_an_error(tmp_path: Path, source: str) -> None:
    result = mtframe("data", "check", source, tmp_path / EVIL)
    assert result.code != 0
    assert "\n  val: ok" in harmless(result) or "\\nval: ok" in result.err


def test_json_has_no_control_characters() -> None:
    text = _app.as_json({"a\x7f\x1b\n": "\u202e\x85"})
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == {"a\x7f\x1b\n": "\u202e\x85"}


def _prints(tree: ast.AST, where: str = "") -> Iterator[tuple[str, int]]:
    """Functions and lines that write to the terminal by themselves."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            writes = called.endswith("write") and not called.startswith("report.")
            if writes or called.endswith(("echo", "print", "print_exception", "print_exc")):
                yield where, node.lineno
        yield from _prints(node, node.name if isinstance(node, ast.FunctionDef) else where)


def test_every_command_speaks_through_one_door() -> None:
    found = {
        (file.name, function, line)
        for file in Path(cli.__file__).parent.glob("*.py")
        for function, line in _prints(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert {door[:2] for door in found} == DOORS
    examples = "def f():\n typer.secho(a)\n print(a)\n sys.stdout.write(a)\n CONSOLE.print(a)\n say(a)"
    assert [line for _, line in _prints(ast.parse(examples))] == [2, 3, 4, 5]
