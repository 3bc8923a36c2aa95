"""Somebody else's run runs no code without a word: only its own files, as it recorded them, once the user agrees."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import mtframe
from mtframe import _trust
from mtframe._origins import changed
from mtframe.errors import Code, RecipeError, UntrustedError, printable
from mtframe.inference import load_run
from mtframe.run import RunFolder, trust
from mtframe.training import Trainer
from mtframe.yaml import dump_yaml, parse_yaml


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


@pytest.fixture
def elsewhere(foreign: Path) -> str:
    """Code of the run that is not in its components: a class, by its file."""
    file = foreign / "extra" / "d.py"
    file.parent.mkdir()
    file.write_text(
        f"from pathlib import Path\nPath({str(foreign.with_name('ran elsewhere'))!r}).touch()\n"
        "class D:\n    head = loss = target = None\n    def __init__(self, *given, **named): pass\n"
        "    def __call__(self, image): return None\n",
        encoding="utf-8",
    )
    return f"{file}:D"


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    recipe = run / "recipe.yaml"
    plain = parse_yaml(recipe.read_text(encoding="utf-8"), "recipe")
    change(plain)
    recipe.write_text(dump_yaml(plain), encoding="utf-8")


@pytest.mark.parametrize("how", ["text", "list", "key"])
def test_an_option_runs_no_file_outside_of_the_run_even_with_trust(foreign: Path, elsewhere: str, how: str) -> None:
    value = {"text": elsewhere, "list": [{"a": elsewhere}], "key": {elsewhere: 1}}[how]
    edit(foreign, lambda plain: plain["tasks"]["one"].update(transform={"name": "face-align", "detector": value}))
    for command in COMMANDS.values():
        result = mtframe(*(part.format(run=foreign) for part in command), "--trust")
        assert result.code == 2
        where = f"tasks.one.transform.detector: {elsewhere.removesuffix(':D')} is outside of {foreign}/components; of a"
        assert where in result.err
        assert not foreign.with_name("ran elsewhere").exists()


def test_an_option_names_a_file_relative_to_the_run_and_is_asked_for(foreign: Path, elsewhere: str) -> None:
    shutil.move(elsewhere.removesuffix(":D"), foreign / "components" / "d.py")
    edit(
        foreign,
        lambda plain: plain["tasks"]["one"].update(
            transform={"name": "face-align", "detector": "./components/d.py:D", "aligned": True}
        ),
    )
    _trust.agree([code for code in RunFolder.open(foreign).code() if code.file.name == "toy.py"], for_good=False)
    result = mtframe("evaluate", foreign)
    assert f"{foreign}/components/d.py (SHA-256 " in result.err
    assert not foreign.with_name("ran elsewhere").exists()
    assert "is outside" not in mtframe("evaluate", foreign, "--trust").err
    assert foreign.with_name("ran elsewhere").exists()


def test_what_a_part_composes_is_no_way_to_other_files(
    foreign: Path, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mtframe_face.alignment as face

    found = face.find_detector
    monkeypatch.setattr(face, "find_detector", lambda name: found(name + "py:D"))
    edit(
        foreign,
        lambda plain: plain["tasks"]["one"].update(
            transform={"name": "face-align", "detector": elsewhere.removesuffix("py:D")}
        ),
    )
    result = mtframe("evaluate", foreign, "--trust")
    assert "the recipe names no such file, so it is not run" in result.err
    assert not foreign.with_name("ran elsewhere").exists()


def test_a_preset_in_a_file_is_code_too(foreign: Path, elsewhere: str) -> None:
    edit(foreign, lambda plain: plain["tasks"]["one"].update(preset=elsewhere))
    result = mtframe("remove-task", foreign, "two", "--trust")
    assert "tasks.one.preset: " in result.err
    assert "is outside of" in result.err
    assert not foreign.with_name("ran elsewhere").exists()


def test_labels_run_no_file(foreign: Path, elsewhere: str) -> None:
    file = foreign / "labels.json"
    labels = json.loads(file.read_text(encoding="utf-8"))
    labels["one"]["target"] = elsewhere
    file.write_text(json.dumps(labels), encoding="utf-8")
    for folder in (foreign / "checkpoints").iterdir():
        manifest = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        manifest["labels"] = _trust.file_digest(file)
        (folder / "checkpoint.json").write_text(json.dumps(manifest), encoding="utf-8")
    for command in COMMANDS.values():
        result = mtframe(*(part.format(run=foreign) for part in command), "--trust")
        assert f"labels.json: one.target: {elsewhere!r} is a Python file, and labels run none" in result.err
        assert not foreign.with_name("ran elsewhere").exists()


def test_where_parts_came_from_runs_no_file(foreign: Path, elsewhere: str) -> None:
    edit(foreign, lambda plain: plain["train"].update(start=elsewhere))
    file = foreign / "environment.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    known["components"]["train.start"] = {
        "kind": "head", "name": elsewhere, "distribution": "mtframe", "version": "0.0"}  # fmt: skip
    file.write_text(json.dumps(known), encoding="utf-8")
    mtframe("evaluate", foreign, "--trust")
    assert not foreign.with_name("ran elsewhere").exists()


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "plots", ".lock"])
def test_a_training_that_goes_on_writes_nothing_out_of_the_run(run: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("tensorboard")
    victim = tmp_path / "victim"
    if name == "checkpoints":
        shutil.move(run / name, victim)
    elif name == ".lock":
        (run / name).unlink(missing_ok=True)
    else:
        shutil.rmtree(run / name, ignore_errors=True)
        victim.mkdir()
    (run / name).symlink_to(victim)
    before = {file: file.stat().st_mtime_ns for file in victim.rglob("*")}
    result = mtframe("train", "--resume", run, "--with", "tensorboard")
    assert name in result.err, result
    assert result.code in ((0,) if name in ("plots", "tensorboard") else (1, 2)), result
    assert {file: file.stat().st_mtime_ns for file in victim.rglob("*")} == before
    assert victim.exists() == (name != ".lock")


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
    assert f"no package's name and version: {evil['distribution']!r}, {evil['version']!r}" in said
    assert "pip install" not in said


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("--index-url=http://evil/simple", "1.0"), ("-rhttp://evil/r.txt", "1.0"), ("git+https://evil/x", "1.0"),
        ("kit @ https://evil/x.zip", "1.0"), ("kit[all]", "1.0"), ("kit", "1.0 --pre"), ("kit", "1.0 "), ("kit", "١"),
        ("kit-", "1.0"), ("kit\n", "1.0"), ("kıt", "1.0"), ("", ""),
    ],
)  # fmt: skip
def test_no_command_is_made_of_what_is_no_package(name: str, version: str) -> None:
    (said,) = changed({"a": {"kind": "head", "name": "x", "distribution": name, "version": version}}, training=False)
    assert said == f"The run's environment.json has no package's name and version: {name!r}, {version!r}"


def test_what_a_command_installs_is_a_package() -> None:
    (said,) = changed({"a": {"kind": "head", "name": "x", "distribution": "A-kit.x_1", "version": "1!2.0rc1+cu118"}},
                      training=False)  # fmt: skip
    assert said.endswith("is not installed. Install it with: pip install 'A-kit.x_1==1!2.0rc1+cu118'")


def test_commands_to_paste_are_quoted(run: Path) -> None:
    odd = run.with_name("my run; id")
    run.rename(odd)
    Trainer.resume(odd).fit()
    result = mtframe("train", "--resume", odd)
    assert f"mtframe train --resume '{odd}' train.steps=24" in result.err


def test_a_run_without_code_of_its_own_asks_nobody(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        trust(tmp_path / "nowhere")


def test_a_change_names_a_file_of_the_current_folder_and_none_of_the_run(
    foreign: Path, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(elsewhere.removesuffix(":D"), foreign / "d.py")
    _trust.agree(RunFolder.open(foreign).code(), for_good=False)
    monkeypatch.chdir(tmp_path)
    change = "tasks.one.transform={name: face-align, aligned: true, detector: %s}"
    said = mtframe("evaluate", foreign, change % "./d.py:D").err
    assert f"cannot read {tmp_path}/d.py" in said
    said = mtframe("evaluate", foreign, change % f"{foreign}/d.py:D").err
    assert f"{foreign}/d.py is outside of {foreign}/components" in said
    assert not foreign.with_name("ran elsewhere").exists()
    (tmp_path / "d.py").write_text(
        f"open({str(tmp_path / 'ran mine')!r}, 'w').close()\nclass D:\n    __call__ = print\n", encoding="utf-8"
    )
    mtframe("evaluate", foreign, change % "./d.py:D")
    assert (tmp_path / "ran mine").exists()
    assert not foreign.with_name("ran elsewhere").exists()


BY_RECIPE = {
    "train": ("train", "{run}/recipe.yaml", "--out", "{run}/out"),
    "from": ("train", "{run}/recipe.yaml", "--from", "{run}", "--out", "{run}/out"),
    "init": ("init", "{run}/recipe.yaml", "--summary"),
    "affinity": ("affinity", "{run}/recipe.yaml", "--steps", "1"),
    "preview": ("data", "preview", "{run}/recipe.yaml", "--out", "{run}/a.png"),
}


@pytest.mark.parametrize("name", BY_RECIPE)
@pytest.mark.parametrize("recorded", [True, False])
def test_the_recipe_of_a_run_is_no_way_around(foreign: Path, name: str, recorded: bool) -> None:
    if not recorded:
        (foreign / "environment.json").unlink()
    call = [part.format(run=foreign) for part in BY_RECIPE[name]]
    result = mtframe(*call)
    assert result.code == 2
    assert "has Python code of its own" in result.err
    assert not ran(foreign)
    if name == "init":
        assert mtframe(*call, "--trust").code == 0
        assert ran(foreign)


def test_a_preset_in_the_recipe_of_a_run_is_not_asked_first(foreign: Path, elsewhere: str) -> None:
    edit(foreign, lambda plain: plain["tasks"]["one"].update(preset=elsewhere))
    result = mtframe("train", foreign / "recipe.yaml", "--trust", "--out", foreign.with_name("out"))
    assert "is outside of" in result.err
    assert not foreign.with_name("ran elsewhere").exists()


def test_a_run_without_checkpoints_advises_nothing_before_it_is_trusted(foreign: Path) -> None:
    shutil.rmtree(foreign / "checkpoints")
    assert "has Python code of its own" in mtframe("train", "--resume", foreign).err


def test_consents_given_at_once_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTFRAME_STATE", str(tmp_path))
    monkeypatch.setattr(_trust, "_AGREED", set())
    write, others = _trust.files.write_text, []

    def slowly(path: Path, text: str, **options: Any) -> None:
        if not others:
            # Another process agrees between this one's reading and writing.
            code = "import sys\nfrom mtframe._trust import agree, Code\nagree([Code('b.py', 'bb')], for_good=True)"
            others.append(subprocess.Popen([sys.executable, "-c", code]))
            with pytest.raises(subprocess.TimeoutExpired):
                others[0].wait(0.5)
        write(path, text, **options)

    monkeypatch.setattr(_trust.files, "write_text", slowly)
    _trust.agree([Code(Path("a.py"), "aa")], for_good=True)
    assert others[0].wait() == 0
    assert json.loads((tmp_path / "trusted.json").read_text(encoding="utf-8")) == ["aa", "bb"]
