"""How the kit is called: from pytest, from the shell, with options, and for kinds of target of a stranger's own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from command import mtframe
from fake_dist import make_dist
from mtframe.errors import RecipeError
from mtframe.testing import Kit, Skip, conformance

BALANCER = '''
class Total:
    """Adds."""

    def __init__(self, tasks, *, factor: float = 1.0):
        self.factor = factor

    def __call__(self, losses):
        return sum(losses.values()) * self.factor


class Mute:
    """Forgets what it is for."""

    def __init__(self, tasks):
        pass

    def __call__(self, losses):
        raise KeyError("nothing")
'''

# A kind of target of its own, a count, with all that speaks it.
COUNTS = '''
import torch
from torch import nn

from mtframe.data import DataInfo, Inputs, Placement, Sample
from mtframe.marks import Text


class Count:
    """How many dots there are: `count` () float, NaN where nobody has counted."""

    mixes = False

    def __init__(self):
        pass

    def unknown(self):
        return {"count": torch.tensor(torch.nan)}

    def known(self, targets):
        return ~targets["count"].isnan()

    def placed(self, parts):
        return {"count": parts[0][0]["count"]}

    def collate(self, labels):
        return {"count": torch.stack([label["count"] for label in labels])}

    def restored(self, views):
        return {"count": torch.stack([prediction["count"] for prediction, _ in views]).mean()}

    def plain(self, prediction):
        return float(prediction["count"])

    def label_marks(self, label):
        return [Text(f"{float(label['count']):.0f} dots")]

    def marks(self, prediction):
        return self.label_marks(prediction)

    def perfect(self, sample):
        return {"count": sample.target["count"]}


class Counted:
    """Pictures of several dots, in number."""

    target = "count"
    splits = ("train",)

    def __init__(self, split, *, length: int):
        self.info, self.length, self.decode_size = DataInfo("count", ()), length, None

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index >= self.length:
            raise IndexError(index)
        image = torch.full((3, 16, 16), index * 9, dtype=torch.uint8)
        return Sample(image, {"count": torch.tensor(float(index))}, (16, 16), index, f"picture {index}")


class Stacked:
    """Puts pictures on a stack."""

    fixed_size, decode_size = True, None

    def __init__(self, size, train):
        self.size = size

    def __call__(self, samples, rng):
        images = torch.stack([sample.image for sample in samples]).repeat_interleave(self.size // 16, 2)
        scale = self.size / 16, self.size / 16
        return Inputs(
            images.repeat_interleave(self.size // 16, 3),
            [(Placement.scaled((16, 16), (self.size,) * 2, scale, sample=n),) for n in range(len(samples))],
        )


class Counter(nn.Module):
    """Counts."""

    target = "count"

    def __init__(self, features, info):
        super().__init__()
        self.linear = nn.Linear(features[-1].channels, 1)

    def forward(self, maps):
        return {"count": self.linear(maps[-1].mean((2, 3)))[:, 0]}

    def predict(self, outputs, bounds):
        return [{"count": value} for value in outputs["count"].float()]


class Squared(nn.Module):
    """How far it is off."""

    target = "count"

    def forward(self, outputs, targets):
        known = self.known(targets["count"])
        error = torch.where(known, outputs["count"].float() - targets["count"].nan_to_num(), 0.0)
        return {"square": error.square().sum() / known.sum().clamp(min=1)}

    def known(self, counts):
        return ~counts.isnan()


class UnknownAsNone(Squared):
    """Takes the unknown for none."""

    def known(self, counts):
        return torch.ones_like(counts, dtype=torch.bool)


class Off:
    """How far it is off."""

    target, primary, higher_is_better = "count", "mae", False

    def __init__(self):
        self.reset()

    def reset(self):
        self.errors = []

    def update(self, predictions, samples):
        pairs = zip(predictions, samples, strict=True)
        self.errors += [abs(float(p["count"]) - float(s.target["count"])) for p, s in pairs]

    def merge(self, other):
        self.errors += other.errors

    def compute(self):
        return {"mae": sum(self.errors) / len(self.errors)}
'''

ENTRIES = {
    "mtframe.target": {"count": "counting_parts:Count"},
    "mtframe.dataset": {"counted": "counting_parts:Counted"},
    "mtframe.transform": {"stacked": "counting_parts:Stacked"},
    "mtframe.head": {"counter": "counting_parts:Counter"},
    "mtframe.loss": {"squared": "counting_parts:Squared"},
    "mtframe.metric": {"off": "counting_parts:Off"},
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "installed"
    entries = {"mtframe.balancer": {"total": "adding_parts:Total", "mute": "adding_parts:Mute"}}
    make_dist(folder, "adding", entries, {"adding_parts": BALANCER})
    make_dist(folder, "counting", ENTRIES, {"counting_parts": COUNTS})
    monkeypatch.syspath_prepend(str(folder))
    return folder


def outcomes(kit: Kit) -> dict[str, str]:
    """By id, `ok`, what it was skipped for, or what failed; without imports, which take seconds."""
    found = {}
    for case in kit.cases():
        if case.check.name == "imports-silently":
            continue
        try:
            case.run()
            found[case.id] = "ok"
        except Skip as reason:
            found[case.id] = f"skipped: {reason}"
        except Exception as error:
            found[case.id] = f"failed: {error}"
    return found


def test_a_contract_test_of_two_lines(installed: Path, tmp_path: Path) -> None:
    test = tmp_path / "test_contract.py"
    test.write_text(
        "from mtframe.testing import conformance\ntest_contract = conformance('adding')\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--tb=short", str(test)]
    environment = {"PYTHONPATH": str(installed), "PATH": "", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "test_contract.py::test_contract[balancer:total-pulls-on-every-task] PASSED" in done.stdout
    # The component's own exception, where it was raised.
    assert "test_contract[balancer:mute-finite]" in done.stdout
    assert 'raise KeyError("nothing")' in done.stdout
    assert re.search(r"5 failed, 21 passed, 2 skipped", done.stdout), done.stdout


def test_the_same_from_the_shell(installed: Path) -> None:
    result = mtframe("plugins", "check", "adding")
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert "ok      balancer:total-unit-does-not-matter" in lines
    (failed,) = (line for line in lines if "mute-finite" in line)
    assert re.fullmatch(r"FAILED  balancer:mute-finite: KeyError: 'nothing' \(.*adding_parts.py:\d+\)", failed)
    assert lines[-1] == "21 ok, 5 failed, 2 skipped"
    assert len(lines) == 29


def test_options_come_from_the_command_line_and_one_kind_can_be_chosen(installed: Path) -> None:
    without = mtframe("plugins", "check", "counting", "-k", "dataset")
    assert without.code == 0
    assert "skipped dataset:counted-picklable: it needs length: " in without.out
    result = mtframe("plugins", "check", "counting", "dataset:counted.length=12", "-k", "dataset")
    assert result.code == 0, result.out
    assert "ok      dataset:counted-workers" in result.out
    assert "head:" not in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["addding"], "no installed distribution 'addding' offers components; did you mean 'adding'?"),
        (["adding", "length=3"], "'length=3': expected KIND:NAME.OPTION=VALUE, as in dataset:kites.root=data/kites"),
        (["adding", "balancer:totl.factor=3"], "balancer:totl: no such component; did you mean 'balancer:total'?"),
        (["adding", "-k", "balancr"], "no kind 'balancr'; did you mean 'balancer'?"),
    ],
)
def test_mistakes_of_the_call(installed: Path, arguments: list[str], said: str) -> None:
    result = mtframe("plugins", "check", *arguments)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_a_kind_of_target_of_ones_own_is_checked_with_parts_of_ones_own(installed: Path) -> None:
    found = outcomes(Kit("counting", {"dataset:counted": {"length": 12}}))
    assert not [key for key, said in found.items() if said.startswith("failed")], found
    # The kind rates no predictions: the metric tells whether the loss teaches.
    assert found["loss:squared-teaches"] == "ok"
    assert found["head:counter-exports"] == "ok"
    assert found["loss:squared-nothing-known"] == found["loss:squared-unknown-takes-no-part"] == "ok"
    assert found["metric:off-perfect-is-best"] == found["metric:off-merges"] == "ok"
    assert found["target:count-there-and-back"] == found["transform:stacked-pixels-where-placed"] == "ok"
    assert found["target:count-form"] == "skipped: it does not check labels and predictions (ChecksForm)"
    assert found["dataset:counted-labels"].endswith("their kind of target does not say (ChecksForm)")


def test_parts_for_another_distribution_s_kind_of_target_find_its_parts(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dist(tmp_path, "abacus", {"mtframe.head": {"abacus": "counting_parts:Counter"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    found = outcomes(Kit("abacus", {"dataset:counted": {"length": 12}}))
    assert {key.partition("-")[0] for key in found} == {"head:abacus"}
    assert not [key for key, said in found.items() if said != "ok" and key != "head:abacus-views"], found


def test_what_is_unknown_is_the_kind_s_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {**ENTRIES, "mtframe.loss": {"squared": "wrongly_counting:UnknownAsNone"}}
    make_dist(tmp_path, "wrongly-counting", places(entries, "wrongly_counting"), {"wrongly_counting": COUNTS})
    monkeypatch.syspath_prepend(str(tmp_path))
    found = outcomes(Kit("wrongly-counting", {"dataset:counted": {"length": 12}}))
    failed = {key: said for key, said in found.items() if said.startswith("failed")}
    assert list(failed) == ["loss:squared-unknown-takes-no-part"], failed
    assert "at an image of which nothing is known, expected 0" in failed["loss:squared-unknown-takes-no-part"]


def places(entries: dict[str, dict[str, str]], module: str) -> dict[str, dict[str, str]]:
    """The same entry points in another module, which is imported anew."""
    return {
        group: {name: f"{module}:{value.partition(':')[2]}" for name, value in named.items()}
        for group, named in entries.items()
    }


def test_what_has_no_companion_says_what_to_pass(installed: Path) -> None:
    found = outcomes(Kit("counting"))
    said = found["head:counter-gradients"]
    assert said.startswith(
        "skipped: no data set with targets of kind 'count' is at hand (tried dataset:counted: it needs"
    )
    assert said.endswith("options={'dataset:NAME': {'root': ...}}")


def test_a_component_that_cannot_be_imported_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dist(tmp_path, "gone", {"mtframe.balancer": {"gone": "gone_parts:Gone"}}, {"gone_parts": "import nowhere"})
    monkeypatch.syspath_prepend(str(tmp_path))
    results = {}
    for case in Kit("gone").cases():
        try:
            case.run()
        except Skip as reason:
            results[case.check.name] = f"skipped: {reason}"
        except Exception as error:
            results[case.check.name] = f"failed: {error}"
    assert "No module named 'nowhere'" in results.pop("imports-silently")
    assert set(results.values()) == {"skipped: it cannot be imported; see the check imports-silently"}


def test_each_kind_of_target_and_each_example_is_checked_by_itself() -> None:
    kit = Kit("mtframe")
    found = {str(case.subject): case.subject for case in kit.cases()}
    assert {"head:classifier[label]", "head:classifier[labels]", "head:dense", "loss:cosface"} <= set(found)
    assert [found[f"dataset:csv[{name}]"].options["root"] for name in ("label", "labels", "value")].count(
        found["dataset:csv[label]"].options["root"]
    ) == 3
    assert found["dataset:csv[labels]"].options["labels"] == ["sun", "birds", "fence"]
    assert found["head:classifier[labels]"].kit.companions(found["head:classifier[labels]"]).info.target == "labels"
    assert found["backbone:timm"].member == "test_resnet"
    # What is passed takes the place of examples.
    assert "dataset:csv" in {str(case.subject) for case in Kit("mtframe", {"dataset:csv": {"root": "x"}}).cases()}


def test_distributions_are_found_by_any_spelling(installed: Path) -> None:
    assert Kit("Counting").components == Kit("counting").components
    with pytest.raises(RecipeError, match="no installed distribution 'kites'"):
        conformance("kites")


def test_checks_leave_torchs_random_numbers_alone(installed: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    outcomes(Kit("counting", {"dataset:counted": {"length": 12}}))
    assert torch.equal(torch.get_rng_state(), before)
