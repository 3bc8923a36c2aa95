"""Each check is proven by a component that is broken in just this: it fails this check and no other."""

from __future__ import annotations

import sys

import kit_parts
import kit_presets
import pytest

from fake_dist import make_dist
from mtframe.import_probe import probe
from mtframe.testing import Kit, Skip, _kit

# Check, component, and a word that the message says, by kind.
BROKEN: dict[str, list[tuple[str, str, str]]] = {
    "backbone": [
        ("maps", "WrongStride", "expected"),
        ("deterministic", "Dropping", "different maps"),
        ("deterministic", "Mingling", "images beside it"),
        ("gradients", "Unused", "spare.weight"),
        ("gradients", "TimesZero", "no gradient reaches dead: it is zero"),
        ("bf16", "Fp32Only", "same scalar type"),
        ("saves-and-loads", "Forgetful", "persistent buffer"),
        ("stages", "HalfStaged", "body.0.weight is under no prefix"),
        ("normalisation", "Flat", "above 0"),
    ],
    "sharing": [
        ("maps", "OtherFeatures", "expected"),
        ("images-of-another-task", "Lonely", "scenes"),
        ("tasks-alone", "AllAtOnce", ""),
        ("gradients", "Stopping", "no gradient reaches"),
        ("own-parameters", "Overclaiming", "scale.of faces"),
        ("own-parameters", "Underclaiming", "which shared_parameters leaves out"),
        ("copies", "Holding", "hold on to the original"),
        ("threads", "Overwriting", "'faces' differ while another thread asks for those of 'objects'"),
        ("saves-and-loads", "ForgetfulSharing", "persistent buffer"),
        ("bf16", "Fp32Sharing", "same scalar type"),
    ],
    "head": [
        ("static-shapes", "Ragged", "brightness"),
        ("exports", "Branching", ""),
        ("batch-of-one", "Centring", "logits of an image alone"),
        ("predictions", "FirstOnly", "each of 3 images, got 1"),
        ("predictions", "Overflowing", "inside the image"),
        ("gradients", "HeadWithSpare", "spare.weight"),
        ("gradients", "HeadTimesZero", "no gradient reaches spare.weight, spare.bias"),
        ("bf16", "Fp32Head", "same scalar type"),
        ("views", "OtherViews", "expected label of merged views, got views"),
    ],
    "loss": [
        ("finite", "Detached", "no gradient"),
        ("an-image-without-targets", "AllOrNone", "-1"),
        ("unknown-takes-no-part", "UnknownAsClass", "an image of which nothing is known"),
        ("unknown-takes-no-part", "UnknownAsNought", "an image of which nothing is known"),
        ("no-targets-at-all", "MeanOfNone", "nan"),
        ("teaches", "WrongSign", "is its sign wrong?"),
    ],
    "dataset": [
        ("splits", "OtherInfo", "identity"),
        ("splits", "NoVal", "declare 'val', which cannot be opened: "),
        ("samples", "FloatImages", "float32"),
        ("positions", "AlwaysFirst", "index is 0"),
        ("labels-within-info", "OneBased", "expected a label of -1 to 1, got 2"),
        ("ends-with-index-error", "Endless", "number 20"),
        ("picklable", "Unpicklable", "pickle"),
        ("workers", "OtherInWorkers", "another image"),
        ("labels-by-id", "Mislabelling", "target_of"),
        ("order", "Shuffled", "same generator"),
    ],
    "transform": [
        ("size", "OffByOne", "65"),
        ("deterministic", "Unseeded", "same generator"),
        ("evaluation-is-exact", "Trembling", "train is False"),
        ("one-sample", "Squeezing", "expected one image, got 3"),
        ("pictures", "AlwaysLabelled", "label"),
        ("geometry", "Misplacing", "where there is none"),
        ("picklable", "UnpicklableTransform", "pickle"),
    ],
    "metric": [
        ("primary", "OtherPrimary", "primary is 'top1'"),
        ("perfect-is-best", "UpsideDown", "higher_is_better"),
        ("order-does-not-matter", "Recent", "backwards"),
        ("reset", "Remembering", "after reset()"),
        ("merges", "Selfish", "merged of two halves"),
    ],
    "balancer": [
        ("summary", "Undescribed", "docstring"),
        ("signature", "Unannotated", "factor"),
        ("signature", "Unresolved", "Factor"),
        ("signature", "Miswired", "factor"),
        ("refuses-unknown-options", "Swallowing", "**options"),
        ("options-round-trip", "WrongDefault", "(0.5, 0.5)"),
        ("builds", "Refusing", "must be above 0"),
        ("builds", "Uncallable", "__call__"),
        ("builds", "Exiting", "raised SystemExit: 0"),
        ("finite", "OneRow", "one scalar"),
        ("pulls-on-every-task", "Largest", "'faces' is 0"),
        ("order-does-not-matter", "FirstFirst", "another order"),
        ("unit-does-not-matter", "Squares", "ten times larger"),
        ("tasks-alone", "EveryTask", "objects"),
        ("tasks-alone", "ExitingAtOneRow", "it ended the process: SystemExit: one task needs no balancer"),
        ("several-steps", "Forgetting", "in step 2"),
        ("several-steps", "Clinging", "backward through the graph a second time"),
        ("resumes", "Unsaved", "without a state_dict(), 'faces' weighs"),
        ("finite", "Dividing", "with gradients of which one is 0"),
        ("finite", "Scribbling", "it changes the tensor"),
        ("finite", "Single", "torch.float32"),
        ("pulls-on-every-task", "Longest", "'faces' is 0"),
        ("order-does-not-matter", "Seniority", "another order"),
        ("unit-does-not-matter", "Measured", "ten times larger"),
        ("tasks-alone", "OfAllTasks", "weigh of 2 tasks gives shape (3,)"),
    ],
    "preset": [
        ("fills-a-recipe", "Sizeless", "size: required"),
        ("fills-a-recipe", "NumberedData", "dataset: expected a component's name, or {'name': ...}, got 5"),
        ("fills-a-recipe", "NamelessHead", "head: expected a component's name, or {'name': ...}, got {'dropout': 0.1}"),
        ("fills-a-recipe", "OneMetric", "metrics: expected components' names in a tuple, got 'classification'"),
        ("names-resolve", "NoSuchHead", "did you mean 'classifier'?"),
        ("names-resolve", "OtherTarget", "coco-ap"),
        ("imports-no-torch", "TorchPreset", "imports torch"),
    ],
    "hooks": [
        ("known-hooks", "Deaf", "@hookimpl"),
        ("known-hooks", "Mistaken", "loss"),
        ("survives-a-training", "Raising", ""),
    ],
}  # fmt: skip

GOOD = {
    "GoodBackbone": "backbone",
    "OneSizeOnly": "backbone",
    "GoodFrozen": "backbone",
    "GoodHalfFrozen": "backbone",
    "GoodZeroStart": "backbone",
    "GoodSharing": "sharing",
    "GoodOwnScales": "sharing",
    "GoodHead": "head",
    "GoodBoxes": "head",
    "GoodParameterless": "head",
    "GoodLoss": "loss",
    "GoodValueLoss": "loss",
    "GoodData": "dataset",
    "GoodTransform": "transform",
    "GoodBoxTransform": "transform",
    "GoodMetric": "metric",
    "GoodBalancer": "balancer",
    "GoodAveraging": "balancer",
    "GoodWeighing": "balancer",
    "GoodCombining": "balancer",
    "GoodPreset": "preset",
    "GoodObserver": "hooks",
}

# What keeps other checks from being made is told once, by the check that it breaks.
ROWS = [(kind, *row) for kind, rows in BROKEN.items() for row in rows]
PARTS = {name: kind for kind, _, name, _ in ROWS} | GOOD


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each class is what a distribution of its name offers."""
    folder = tmp_path_factory.mktemp("installed")
    for name, kind in PARTS.items():
        make_dist(folder, name, {f"mtframe.{kind}": {name.lower(): value(name)}})
    sys.path.append(str(folder))
    # All in one process: each would import torch.
    _kit._PROBED.update((one.value, one) for one in probe([value(name) for name in PARTS]))
    yield
    sys.path.remove(str(folder))


def value(name: str) -> str:
    return f"{(kit_parts if hasattr(kit_parts, name) else kit_presets).__name__}:{name}"


def results(dist: str) -> tuple[dict[str, str], list[str], int]:
    """What failed with what, what was skipped, and how many passed."""
    failed, skipped, passed = {}, [], 0
    for case in Kit(dist).cases():
        try:
            case.run()
        except Skip:
            skipped.append(case.check.name)
        except Exception as error:
            failed[case.check.name] = f"{type(error).__name__}: {error}"
        else:
            passed += 1
    return failed, skipped, passed


@pytest.mark.parametrize(("kind", "check", "name", "says"), ROWS, ids=[f"{kind}-{name}" for kind, _, name, _ in ROWS])
def test_what_is_broken_fails_its_check_and_no_other(
    offered: None, kind: str, check: str, name: str, says: str
) -> None:
    failed, _, _ = results(name)
    assert list(failed) == [check], failed
    assert says in failed[check]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_good_passes(offered: None, name: str) -> None:
    failed, skipped, passed = results(name)
    assert failed == {}
    assert passed >= 7
    # Of a label nothing is to be placed, and boxes of a grid are not merged.
    untrained = {"gradients"} if name in ("GoodFrozen", "GoodParameterless") else set()
    assert set(skipped) - {"geometry", "views"} == untrained


def test_every_check_is_proven() -> None:
    proven = {(kind, check) for kind, check, _, _ in ROWS}
    for kind, checks in _kit.CHECKS.items():
        for check in checks:
            of = "balancer" if kind == "every" else kind
            # By modules of their own, since importing is what they break.
            assert (of, check.name) in proven or check.name == "imports-silently", f"{kind}: {check.name}"
