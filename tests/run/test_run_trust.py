"""Somebody else's run runs no code without a word: only its own files, as it recorded them, once the user agrees."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import mtframe
from mtframe.errors import RecipeError, UntrustedError, printable
from mtframe.inference import load_run
from mtframe.run import RunFolder, _trust, trust
from mtframe.training import Trainer


@pytest.fixture
def foreign(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that this user has not trained: its code leaves a trace where it runs."""
    code = run / "components" / "toy.py"
    code.write_text(code.read_text(encoding="utf-8") + f"\nPath({str(tmp_path / 'ran')!r}).touch()\n", encoding="utf-8")
    file = run / "environment.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    known["files"] = {"components/toy.py": _trust.file_digest(code)}
    file.write_text(json.dumps(known), encoding="utf-8")
    monkeypatch.setenv("MTFRAME_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(_trust, "_AGREED", set())
    return run


def ran(run: Path) -> bool:
    return run.with_name("ran").exists()


COMMANDS = {
    "evaluate": ("evaluate", "{run}"),
    "predict": ("predict", "{run}", "{run}/nothing.jpg"),
    "resume": ("train", "--resume", "{run}"),
    "add-task": ("add-task", "{run}", "more=scene-recognition:nowhere"),
    "remove-task": ("remove-task", "{run}", "one"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_runs_foreign_code_unasked(foreign: Path, name: str) -> None:
    result = mtframe(*(part.format(run=foreign) for part in COMMANDS[name]))
    assert result.code == 2
    assert "has Python code of its own" in result.err
    assert f"{foreign}/components/toy.py (SHA-256 " in result.err
    assert "add --trust" in result.err
    assert not ran(foreign)


def test_from_runs_none_even_where_it_trains(foreign: Path, tmp_path: Path, stopped_run: Path) -> None:
    _trust.agree(RunFolder.open(stopped_run).code(), for_good=False)
    out = tmp_path / "out"
    result = mtframe("train", stopped_run / "recipe.yaml", "train.steps=1", "--from", foreign, "--out", out)
    assert result.code == 0, result
    assert not ran(foreign)


def test_trust_runs_it_this_once(foreign: Path) -> None:
    assert mtframe("evaluate", foreign, "--trust").code == 0
    assert ran(foreign)
    _trust._AGREED.clear()
    assert mtframe("evaluate", foreign).code == 2


def test_in_python_a_call_agrees(foreign: Path) -> None:
    with pytest.raises(UntrustedError):
        load_run(foreign)
    with pytest.raises(UntrustedError):
        Trainer.resume(foreign)
    trust(foreign)
    load_run(foreign)


def test_whoever_trained_it_is_not_asked_in_another_process_either(run: Path) -> None:
    code = "import sys; from mtframe.run import RunFolder; RunFolder.open(sys.argv[1]).recipe()"
    subprocess.run([sys.executable, "-c", code, run], check=True)
    other = {**os.environ, "MTFRAME_STATE": str(run / "nobody")}
    done = subprocess.run(
        [sys.executable, "-c", code, run], env=other, capture_output=True, encoding="utf-8", check=False
    )
    assert "UntrustedError" in done.stderr


@pytest.mark.parametrize(("answer", "agreed"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_the_user_is_asked_once(foreign: Path, answer: str, agreed: bool) -> None:
    environment = {**os.environ, "MTFRAME_STATE": str(foreign.with_name("state")), "COLUMNS": "200"}
    command = [sys.executable, "-m", "mtframe", "evaluate", str(foreign)]
    terminal, end = pty.openpty()
    process = subprocess.Popen(command, stdin=end, stdout=subprocess.DEVNULL, stderr=end, env=environment)
    os.close(end)
    os.write(terminal, f"{answer}\n".encode())
    said = io.BytesIO()
    try:
        while chunk := os.read(terminal, 4096):
            said.write(chunk)
    except OSError:
        pass  # What a terminal whose other end is closed gives.
    os.close(terminal)
    assert process.wait() == (0 if agreed else 2)
    text = said.getvalue().decode()
    assert f"{foreign}/components/toy.py  SHA-256 " in text
    assert "do you trust it?" in text
    assert ran(foreign) == agreed
    again = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert again.returncode == (0 if agreed else 2)


@pytest.mark.parametrize("how", ["outside", "above", "link", "folder"])
def test_files_outside_of_the_run_are_refused_even_with_trust(foreign: Path, tmp_path: Path, how: str) -> None:
    evil = tmp_path / "evil.py"
    shutil.copy(foreign / "components" / "toy.py", evil)
    recipe = foreign / "recipe.yaml"
    names = {"outside": str(evil), "above": "./components/../../evil.py", "link": "./components/link.py",
             "folder": "./components/evil.py"}  # fmt: skip
    if how == "link":
        (foreign / "components" / "link.py").symlink_to(evil)
    if how == "folder":
        shutil.rmtree(foreign / "components")
        (foreign / "components").symlink_to(tmp_path)
    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace("./components/toy.py:ToyBackbone", f"{names[how]}:ToyBackbone"),
        encoding="utf-8",
    )
    result = mtframe("evaluate", foreign, "--trust")
    assert result.code == 2
    assert f"{evil} is outside of {foreign}/components; of a run, only files in there are run" in result.err
    assert not ran(foreign)


def test_code_that_is_not_what_was_trained_is_refused_even_with_trust(foreign: Path) -> None:
    code = foreign / "components" / "toy.py"
    code.write_text(code.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    result = mtframe("evaluate", foreign, "--trust")
    assert result.code == 2
    assert "toy.py is not what the run was trained with: its SHA-256 is " in result.err
    assert not ran(foreign)


def test_what_others_may_write_is_no_consent(foreign: Path, tmp_path: Path) -> None:
    for text in ("{", "[1, 2]", "{}", ""):
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / "trusted.json").write_text(text, encoding="utf-8")
        assert mtframe("evaluate", foreign).code == 2


def test_agreeing_works_where_nothing_can_be_remembered(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTFRAME_STATE", "/proc/nowhere")
    _trust.agree(RunFolder.open(foreign).code(), for_good=True)
    load_run(foreign)


def test_names_of_strangers_do_not_steer_the_terminal(foreign: Path) -> None:
    assert printable("a\x1b[31mb\u202ec\nd\té\udcff") == "a\\x1b[31mb\\u202ec\nd\té\\udcff"
    file = foreign / "environment.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    evil = {"kind": "head", "name": "dense", "distribution": "x\x1b[2J'; rm -rf ~", "version": "1'; id"}
    known["components"]["tasks.one.other"] = evil
    file.write_text(json.dumps(known), encoding="utf-8")
    result = mtframe("train", "--resume", foreign, "--trust")
    assert "\x1b" not in result.out + result.err
    # What is warned of reaches the terminal by the log, which other tests of this process listen to as well.
    command = [sys.executable, "-m", "mtframe", "evaluate", str(foreign), "--trust"]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stderr
    assert "\x1b" not in said
    assert r"The run was trained with x\x1b[2J'; rm -rf ~ 1'; id" in said
    assert f"pip install {shlex.quote(printable(evil['distribution'] + '==' + evil['version']))}" in said


def test_commands_to_paste_are_quoted(run: Path) -> None:
    odd = run.with_name("my run; id")
    run.rename(odd)
    Trainer.resume(odd).fit()
    result = mtframe("train", "--resume", odd)
    assert f"mtframe train --resume '{odd}' train.steps=24" in result.err


def test_a_run_without_code_of_its_own_asks_nobody(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        trust(tmp_path / "nowhere")
