"""A threshold from the validation pairs to the answer: kept with the weights, shown, used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from command import mtframe
from mtframe.errors import CheckpointError, RecipeError
from mtframe.inference import Gallery, Predictor, load_run, verify
from mtframe.metrics import Thresholds
from mtframe.run import Checkpoint
from sealed import reseal
from small import Small

CHOSEN = Thresholds("accuracy", {"accuracy": 0.5, "far=1e-1": 0.625}, "9 pairs of one person and 9 of two")


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_run, tmp_path / "run")


@pytest.fixture
def pictures(small: Small, tmp_path: Path) -> tuple[Path, Path]:
    people = sorted(folder for folder in (small.faces / "lfw-deepfunneled").iterdir() if folder.is_dir())
    return sorted(people[0].iterdir())[0], sorted(people[1].iterdir())[0]


def with_thresholds(run: Path, text: str, checkpoint: str = "best") -> Path:
    folder = run / "checkpoints" / checkpoint
    (folder / "thresholds.json").write_text(text, encoding="utf-8")
    reseal(folder)
    return folder


def chosen(value: float) -> str:
    return json.dumps({"faces": {"chosen": "accuracy", "values": {"accuracy": value}, "data": "4 pairs"}})


def test_a_training_keeps_the_thresholds_of_its_validation_pairs_with_the_weights(small_run: Path) -> None:
    for name in ("best", "last", "best_faces"):
        checkpoint = Checkpoint.open(small_run / "checkpoints" / name)
        assert "thresholds.json" in checkpoint.manifest.files
        found = checkpoint.thresholds()
        assert list(found) == ["faces"]
        values = json.loads((small_run / "metrics.json").read_text(encoding="utf-8"))["evaluations"][-1]["tasks"][
            "faces"
        ]
        told = {f"threshold@{name}": value for name, value in found["faces"].values.items()}
        assert told == {name: value for name, value in values.items() if name in told}
        assert "threshold@accuracy" in told
    # Weights that nobody has scored have none: here those that the training began with.
    assert Checkpoint.open(small_run / "checkpoints" / "previous").thresholds() == {}


def test_thresholds_that_were_changed_or_are_none_are_refused(run: Path) -> None:
    file = run / "checkpoints" / "best" / "thresholds.json"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace("accuracy", "accuracies"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"thresholds.json: not the file that was saved"):
        load_run(run)
    for text, said in (
        (chosen(0.5).replace("0.5", "NaN"), r"faces.values.accuracy: expected a finite number"),
        (chosen(0.5).replace("0.5", '"0.5"'), r"faces.values.accuracy: expected a valid number"),
        ("[]", "expected an object"),
        ("[" * 10_000, "JSON"),
        (chosen(0.5).replace("data", "date"), "faces.data: required; faces.date"),
    ):
        with_thresholds(run, text)
        with pytest.raises(CheckpointError, match=rf"thresholds.json: not thresholds by task: .*{said}"):
            load_run(run)


def test_verify_answers_by_the_run_s_threshold(run: Path, pictures: tuple[Path, Path]) -> None:
    first, second = pictures
    predictor = load_run(run)
    one, other = (predictor.predict(file, ["faces"])["faces"]["embedding"] for file in pictures)
    similarity = float(one @ other)
    for threshold, answer in ((similarity - 0.01, "the same"), (similarity + 0.01, "not the same")):
        with_thresholds(run, chosen(threshold))
        result = mtframe("verify", run, first, second)
        assert (result.code, result.err) == (0, ""), result
        assert result.out == f"{answer}: similarity {similarity:.4f}, threshold {threshold:.4f}\n"
    said = json.loads(mtframe("verify", run, first, second, "--accept", "-1", "-t", "faces", "--json").out)
    assert said == {"task": "faces", "first": str(first), "second": str(second), "same": True,
                    "similarity": pytest.approx(similarity, abs=1e-5), "threshold": -1.0}  # fmt: skip
    assert json.loads(mtframe("verify", run, first, first, "--json").out)["similarity"] == pytest.approx(1, abs=1e-5)
    # All digits: a threshold that is chosen from them lies on the right side.
    exact = json.loads(mtframe("verify", run, first, second, "--json").out)["similarity"]
    again = mtframe("verify", run, first, second, "--json", "--accept", repr(exact))
    assert json.loads(again.out)["same"] is True
    assert exact == verify(load_run(run), first, second, accept="0").similarity


def test_verify_says_what_it_lacks(run: Path, pictures: tuple[Path, Path]) -> None:
    first, second = pictures
    for arguments, said in (
        (("-t", "objects"), "verify: none of the tasks objects gives embeddings"),
        (("-t", "faecs"), "no such task; the tasks of this run are faces, objects"),
        (("--accept", "far=1e-9"), "'far=1e-9'; for task faces it has those for accuracy"),
        (("--accept", "nan"), "expected a similarity, -1 to 1"),
        (("--accept", "2"), "expected a similarity, -1 to 1"),
    ):
        result = mtframe("verify", run, first, second, *arguments)
        assert (result.code, result.out) == (2, "")
        assert said in result.err, result.err
    with_thresholds(run, "{}")
    result = mtframe("verify", run, first, second)
    assert result.code == 2
    assert "verify: task faces of this run has no threshold: none was chosen with these weights" in result.err
    assert "--accept 0.4" in result.err
    with_thresholds(run, chosen(0.25).replace('"chosen": "accuracy"', '"chosen": "far=1e-3"'))
    result = mtframe("verify", run, first, second)
    assert "could not tell the one for far=1e-3" in result.err
    assert "--accept accuracy for 0.2500" in result.err
    (broken := run / "broken.jpg").write_bytes(b"no picture")
    result = mtframe("verify", run, first, broken, "--accept", "0")
    assert (result.code, "broken.jpg" in result.err) == (1, True)


def test_several_tasks_that_give_embeddings_must_be_told_apart(run: Path, pictures: tuple[Path, Path]) -> None:
    predictor = load_run(run)
    predictor.targets["objects"] = predictor.targets["faces"]
    with pytest.raises(
        RecipeError, match="verify: the tasks faces, objects give embeddings; say which one with --task"
    ):
        verify(predictor, *pictures)
    assert verify(predictor, *pictures, "faces").task == "faces"


def test_a_gallery_rejects_whom_the_threshold_rejects(run: Path, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = pictures
    (tmp_path / "gallery" / "Ann").mkdir(parents=True)
    shutil.copy(first, tmp_path / "gallery" / "Ann")
    predictor = load_run(run)
    one, other = (predictor.predict(file, ["faces"])["faces"]["embedding"] for file in pictures)
    similarity = float(one @ other)
    with_thresholds(run, chosen(similarity + 1e-3))
    known = (run, first, second, "-t", "faces", "--gallery", tmp_path / "gallery", "--out", tmp_path / "out", "--json")
    result = mtframe("predict", *known)
    assert (result.code, result.err) == (0, ""), result
    matches = [said["match"]["faces"] for said in json.loads(result.out)]
    assert matches == [{"name": name, "threshold": pytest.approx(similarity + 1e-3)} for name in ("Ann", None)]
    result = mtframe("predict", *known, "--accept", str(similarity - 1e-3))
    assert [said["match"]["faces"]["name"] for said in json.loads(result.out)] == ["Ann", "Ann"]
    with_thresholds(run, "{}")
    result = mtframe("predict", *known)
    assert result.code == 0
    assert "faces: the run has no threshold, so the most similar name is shown, but nobody is rejected" in result.err
    assert all("match" not in said for said in json.loads(result.out))
    result = mtframe("predict", run, first, "--accept", "0.5", "--out", tmp_path / "out")
    assert (result.code, "--accept: says who of a gallery is a match" in result.err) == (2, True)


def test_a_gallery_that_will_take_strangers_for_somebody_is_told(
    run: Path, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("Ann", "Bob"):
        (tmp_path / "gallery" / name).mkdir(parents=True)
        shutil.copy(pictures[0], tmp_path / "gallery" / name)
    kept = {"chosen": "accuracy", "values": {"accuracy": 0.25, "far=1e-2": 0.5}, "data": "4 pairs"}
    with_thresholds(run, json.dumps({"faces": {**kept, "rates": {"accuracy": 0.0625, "far=1e-2": 0.01}}}))
    known = ("predict", run, pictures[1], "-t", "faces", "--gallery", tmp_path / "gallery", "--out", tmp_path / "out")
    said = mtframe(*known).err
    assert "faces: many strangers will be taken for one of these 2: each is compared with all" in said
    assert "(accuracy: 0.2500) 0.062 of the validation's pairs of two were taken for one; stricter are " in said
    assert "--accept far=1e-2, or a number" in said
    for accept in ("far=1e-2", "0.25"):
        assert mtframe(*known, "--accept", accept).err == ""


def test_a_gallery_has_a_threshold_of_its_own_by_its_size(
    run: Path, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("Ann", "Bob"):
        (tmp_path / "gallery" / name).mkdir(parents=True)
        shutil.copy(pictures[0], tmp_path / "gallery" / name)
    sized = [{"size": 1, "value": 0.25}, {"size": 3, "value": 0.5}]
    gallery = {"chosen": "fpir=1e-2", "values": {"fpir=1e-2": sized, "fpir=1e-1": [{"size": 1, "value": -0.5}]}}
    pairs = {"chosen": "accuracy", "values": {"accuracy": 0.125}, "data": "4 pairs", "rates": {"accuracy": 0.5}}
    with_thresholds(run, json.dumps({"faces": {**pairs, "gallery": {**gallery, "data": "9 probes"}}}))
    known = ("predict", run, pictures[1], "-t", "faces", "--gallery", tmp_path / "gallery", "--out", tmp_path / "out")

    def threshold(*options: str) -> tuple[float, str]:
        result = mtframe(*known, "--json", *options)
        assert result.code == 0, result
        return json.loads(result.out)[0]["match"]["faces"]["threshold"], result.err

    # Two people: that of up to three, and nothing to warn of.
    assert threshold() == (0.5, "")
    # Of these one alone was told.
    value, said = threshold("--accept", "fpir=1e-1")
    assert (value, "the run knows thresholds for up to 1" in said) == (-0.5, True)
    assert threshold("--accept", "accuracy")[0] == 0.125
    shutil.copytree(tmp_path / "gallery" / "Ann", tmp_path / "gallery" / "Eve")
    shutil.copytree(tmp_path / "gallery" / "Ann", tmp_path / "gallery" / "Joe")
    value, said = threshold()
    assert value == 0.5
    assert "there are 4 in this gallery, and the run knows thresholds for up to 3: that one (0.5000) lets more" in said
    result = mtframe(*known, "--accept", "fpir=1e-3")
    assert "for task faces it has those for accuracy, fpir=1e-2, fpir=1e-1" in result.err
    # Two pictures are compared by that for pairs.
    assert verify(load_run(run), *pictures).threshold == 0.125


def test_as_similar_as_the_threshold_is_a_match() -> None:
    gallery = Gallery(("Ann", "Bob"), torch.eye(2), threshold=0.75)
    assert gallery.match(torch.tensor([0.75, 0.5])) == "Ann"
    assert gallery.match(torch.tensor([0.5, 0.7499])) is None
    assert Gallery(("Ann",), torch.eye(1)).match(torch.tensor([-1.0])) == "Ann"


def test_evaluate_scores_the_kept_threshold_and_says_where_it_was_chosen(run: Path, small: Small) -> None:
    result = mtframe("evaluate", run, "-t", "faces", "--json")
    assert result.code == 0, result
    values = json.loads(result.out)["faces"]
    assert values["threshold@kept"] == pytest.approx(values["threshold@accuracy"])
    assert values["accuracy@kept"] >= values["accuracy"]
    assert "faces: the run's threshold was chosen on this split" in result.err
    elsewhere = shutil.copytree(small.faces, run.parent / "elsewhere")
    result = mtframe("evaluate", run, "-t", "faces", "--json", f"tasks.faces.dataset.root={elsewhere}")
    assert "accuracy@kept" in json.loads(result.out)["faces"]
    assert "chosen on this split" not in result.err


def test_other_eyes_than_those_that_chose_are_told(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = "task faces looks at pictures otherwise than when its threshold was chosen"
    load_run(run, overrides=["tasks.faces.batch_size=2"])
    assert said not in caplog.text
    load_run(run, overrides=["tasks.faces.flip_test=false"])
    assert said in caplog.text


def test_a_run_without_another_task_keeps_the_thresholds(run: Path, tmp_path: Path) -> None:
    result = mtframe("remove-task", run, "objects", "--out", tmp_path / "one")
    assert result.code == 0, result
    for name in ("best", "last"):
        before, after = (
            Checkpoint.open(folder / "checkpoints" / name).thresholds() for folder in (run, tmp_path / "one")
        )
        assert after == before != {}
    result = mtframe("remove-task", run, "faces", "--out", tmp_path / "other")
    assert Checkpoint.open(tmp_path / "other" / "checkpoints" / "best").thresholds() == {}


def test_thresholds_of_a_task_that_is_not_trained_stay_while_its_answers_do(
    run: Path, small: Small, tmp_path: Path
) -> None:
    more = f"more=object-detection:{small.objects}"
    small_ones = ("tasks.more.size=64", "tasks.more.batch_size=2", "tasks.more.head.width=32", "train.steps=2")
    result = mtframe("add-task", run, more, *small_ones, "--out", tmp_path / "two")
    assert result.code == 0, result
    old = Checkpoint.open(run / "checkpoints" / "best").thresholds()
    assert Checkpoint.open(tmp_path / "two" / "checkpoints" / "best").thresholds() == old != {}
    # The same without anything frozen: the trunk learns, and the old threshold is of other embeddings.
    recipe = (tmp_path / "two" / "recipe.yaml").read_text(encoding="utf-8")
    (tmp_path / "free.yaml").write_text(recipe, encoding="utf-8")
    result = mtframe("train", tmp_path / "free.yaml", "train.freeze=[]", "--out", tmp_path / "free")
    assert result.code == 0, result
    assert Checkpoint.open(tmp_path / "free" / "checkpoints" / "best").thresholds() == {}


def test_a_predictor_tells_its_thresholds(small_run: Path) -> None:
    predictor: Predictor = load_run(small_run)
    predictor.thresholds["faces"] = CHOSEN
    assert predictor.threshold("faces") == 0.5
    assert predictor.threshold("faces", "far=1e-1") == 0.625
    assert predictor.threshold("faces", "0.125") == 0.125
    assert predictor.threshold("objects") is None
