"""New parts through the command line: one step each, from data to scores."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from command import mtframe
from mtframe_face.identity_folders import IdentityFolders
from record_files import jpeg, write_training

SMALL = (
    "-b", "timm/test_resnet.r160_in1k", "backbone.pretrained=false", "tasks.faces.size=64",
    "tasks.faces.batch_size=8", "tasks.faces.head.dim=16", "train.steps=2", "train.workers=0",
    "train.precision=fp32", "train.ema=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people") / "people"
    IdentityFolders.synthesize(root, people=4, images=4, test_people=8, size=64, workers=1)
    return root


@pytest.mark.parametrize(
    "options",
    [
        ("tasks.faces.loss.name=adaface", "tasks.faces.loss.sample=0.5"),
        ("tasks.faces.loss=triplet", "tasks.faces.dataset.per_identity=4"),
    ],
)
def test_a_loss_trains_on_folders_and_people_are_identified(
    people: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    result = mtframe("train", *SMALL, "-t", f"faces=face-identification:{people}", *options, "--out", run)
    assert (result.code, result.err) == (0, ""), result
    result = mtframe("evaluate", run, "--json")
    assert result.code == 0, result
    values = json.loads(result.out)["faces"]
    assert 0 <= values["rank-1"] <= values["rank-5"] <= 1
    assert values["enrolled"] == 6  # of 8, a part of 0.3 is unknown
    assert (values["known_probes"], values["unknown_probes"]) == (18, 8)


def test_a_run_keeps_the_detector_in_a_file_that_it_was_trained_with(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    points = "[[20, 20], [40, 20], [30, 32], [22, 44], [38, 44]]"
    Path("d.py").write_text(f"class D:\n    def __call__(self, image):\n        return {points}\n", encoding="utf-8")
    given = ("-t", f"faces=face-identification:{people}", "tasks.faces.transform={name: face-align}")
    result = mtframe("train", *SMALL, *given, "tasks.faces.transform.detector=./d.py:D", "--out", "run")
    assert (result.code, result.err) == (0, ""), result
    Path("d.py").unlink()
    assert "./components/d.py:D" in Path("run/recipe.yaml").read_text(encoding="utf-8")
    assert mtframe("evaluate", "run").code == 0
    # Neither is it of the folder that a command is called in, nor of where the run was made.
    shutil.move("run", "moved")
    monkeypatch.chdir("moved")
    assert mtframe("evaluate", tmp_path / "moved").code == 0


def test_a_run_on_aligned_records_takes_plain_pictures_too(tmp_path: Path, people: Path) -> None:
    root, run = tmp_path / "records", tmp_path / "run"
    write_training(root, [4, 4, 4])
    (root / "lfw.bin").write_bytes(pickle.dumps(([jpeg(n) for n in range(40)], [n % 2 == 0 for n in range(20)])))
    parts = ("tasks.faces.dataset.name=insightface", "tasks.faces.transform.name=face-align")
    given = ("-t", f"faces=face-recognition:{root}", *parts)
    result = mtframe("train", *SMALL, *given, "--out", tmp_path / "refused")
    assert result.code == 2
    assert "no landmarks to align the face by" in result.err
    result = mtframe("train", *SMALL, *given, "tasks.faces.transform.aligned=true", "--out", run)
    assert (result.code, result.err) == (0, ""), result
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, path in enumerate(sorted((people / "val").rglob("*.jpg"))[:2]):
        shutil.copy(path, pictures / f"{number}.jpg")
    result = mtframe("predict", run, pictures, "--json", "--out", tmp_path / "out")
    assert result.code == 0, result
