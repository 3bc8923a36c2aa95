"""Each check is proven by a component that is broken in just this: it fails this check and no other."""

from __future__ import annotations

import signal
import sys

import kit_parts
import kit_presets
import kit_targets
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
        ("lr-layers", "TwiceLayered", "body.0.bias is in layer 2 of lr_layers and in one before it"),
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
        ("predictions", "Overrating", "scores of 0 to 1"),
        ("rectangles", "SquareHead", "unflatten"),
        ("gradients", "HeadWithSpare", "spare.weight"),
        ("gradients", "HeadTimesZero", "no gradient reaches spare.weight, spare.bias"),
        ("bf16", "Fp32Head", "same scalar type"),
        ("views", "OtherViews", "expected probabilities of merged views, got views"),
        ("near-misses", "MergingInVain", "'merge_view' is nearly 'merge_views'"),
    ],
    "loss": [
        ("finite", "Detached", "no gradient"),
        ("near-misses", "StandingStill", "'set_progres' is nearly 'set_progress'"),
        ("an-unknown-image", "AllOrNone", "-1"),
        ("unknown-takes-no-part", "UnknownAsClass", "an image of which nothing is known"),
        ("unknown-takes-no-part", "UnknownAsNought", "an image of which nothing is known"),
        ("nothing-known", "MeanOfNone", "nan"),
        ("teaches", "WrongSign", "is its sign wrong?"),
    ],
    "dataset": [
        ("recognised", "RecognisesAll", "in which nothing of it is, for its own"),
        ("annotated", "Relabelling", "annotated(0) of train: label is"),
        ("image-files", "Homeless", "train[0]: no file 'nowhere/toy/0.jpg'"),
        ("findings", "Misnaming", "train: it finds 'to-dark', which is not among its findings ('too-dark',)"),
        ("omissions", "OmitsMany", "hidden files: expected a count, got 'many'"),
        ("splits", "OtherInfo", "identity"),
        ("splits", "NoVal", "declare 'val', which cannot be opened: "),
        ("samples", "FloatImages", "float32"),
        ("positions", "AlwaysFirst", "index is 0"),
        ("splits", "Unheard", "no target 'lable'; did you mean 'label'?"),
        ("labels", "OneBased", "train[0]: expected 'label', a whole number of -1 to 1, got 2"),
        ("ends-with-index-error", "Endless", "number 20"),
        ("picklable", "Unpicklable", "pickle"),
        ("workers", "OtherInWorkers", "another image"),
        ("labels-by-id", "Mislabelling", "target_of('toy/0.jpg') in train: label is"),
        ("labels-by-id", "Guessing", "target_of an image that it does not have says something: label 0"),
        ("labels-by-id", "OtherIds", "ids() has 'toy/19.jpg' for train[0], which is 'toy/0.jpg'"),
        ("near-misses", "HalfLabelling", "it has target_of and not ids: LabelsImages takes both"),
        ("near-misses", "DecodingInVain", "'decode_sizes' is nearly 'decode_size'"),
        ("order", "Shuffled", "same generator"),
    ],
    "target": [
        ("unknown", "KnowingAll", "`known` is true of the label of an image of which nothing is known, as it is"),
        ("collates", "Flattening", "a row of 'points' for each of"),
        ("collates", "MovingLabels", "the label of sample 0 is changed"),
        ("there-and-back", "Unpadding", "sample 0, twice as large and padded: 'points' comes back as"),
        ("mirrored-twice", "Cycling", "'labels' comes back as"),
        (
            "follows-its-image", "OneOff",
            "sample 0, mirrored: point (23.3, 14.5) of Point 'red' belongs at (24.7, 14.5) of the input, and the "
            "nearest Point of the placed label is 1.0 pixels from there, expected 0.5 or less",
        ),
        ("min-visible", "Uncut", "(XYXY) shows 0.2 of Polyline"),
        ("min-visible", "Overasking", "is seen whole, and is not among the marks of the placed label"),
        ("unknown-part", "HalfKnowing", "sample 0 beside an image of which nothing is known has the label that it has"),
        ("each-view", "FirstView", "restored to what the first says, whatever the second says"),
        ("several-in-one", "LastOnly", "samples 0 and 1 side by side: Point("),
        ("several-in-one", "SeeingThrough", "is drawn, and alone is not"),
        ("equal-views", "Doubling", "4 views of sample 0: 'points' comes back with shape (4, 2), expected (1, 2)"),
        ("plain-is-json", "Numbering", "comes back from JSON"),
        ("plain-is-json", "TensorsAsJson", "Tensor is not JSON serializable"),
        ("marks", "Unclipped", "lies beyond what is seen"),
        ("marks", "Sketching", "expected marks of mtframe.marks"),
        ("perfect", "Pessimistic", "perfect predictions are right by 0.0"),
        ("form", "Trusting", "check_prediction raises no ValueError of an empty dictionary"),
        ("files", "Suffixless", "expected the end of a file's name, as 'mask.png', got 'points'"),
        ("embedding", "Lengthy", "expected an embedding of unit length"),
        ("surveyed", "Miscounting", "its total is 1, and its classes add up to"),
        ("picklable", "UnpicklableTarget", "pickle"),
        ("near-misses", "RatingInVain", "'rightnes' is nearly 'rightness'"),
    ],
    "transform": [
        ("inputs", "OffByOne", "65"),
        ("placements", "OthersFirst", "input 1: expected the placement of its own sample 1 first, got [0]"),
        ("placements", "OtherSize", "its placement is of an original of (72, 72)"),
        ("placements", "MixingInSecret", "is made of 4 images, but `mixes` is not True"),
        ("deterministic", "Unseeded", "same generator"),
        ("evaluation-is-exact", "Trembling", "train is False"),
        ("one-sample", "Squeezing", "expected one input, got 3"),
        ("pictures", "AlwaysLabelled", "label"),
        ("pixels-where-placed", "Misplacing", "the spot on an image is seen at"),
        ("pixels-where-placed", "MirroringInSecret", "the spot on an image is seen at"),
        ("pixels-where-placed", "OfDecoded", "the spot on an image is seen at"),
        ("pixels-where-placed", "Blank", "spots are not seen where placements have them"),
        ("picklable", "UnpicklableTransform", "pickle"),
    ],
    "metric": [
        ("primary", "OtherPrimary", "primary is 'top1'"),
        ("perfect-is-best", "UpsideDown", "higher_is_better"),
        ("order-does-not-matter", "Recent", "backwards"),
        ("gaps", "ExplainingOthers", "gaps() has 'top5'"),
        ("order-does-not-matter", "FirstCome", "in batches of"),
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
        ("near-misses", "WeighingInVain", "'weighs_head' is nearly 'weighs_heads'"),
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
    "schedule": [
        ("one-batch-at-most", "Doubled", "step 0 takes"),
        ("one-batch-at-most", "Resting", "step 3 takes no batch"),
        ("every-task-gets-its-turn", "Hasty", "'faces' gets 1 batches of 7"),
        ("function-of-the-step", "Counting", "in another order"),
        ("late-steps-are-cheap", "Stepwise", "s, and it is asked twice a step"),
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
    "GoodMerging": "head",
    "GoodBoxes": "head",
    "GoodParameterless": "head",
    "GoodLoss": "loss",
    "GoodValueLoss": "loss",
    "GoodData": "dataset",
    "GoodPoints": "target",
    "GoodBare": "target",
    "GoodStrokes": "target",
    "GoodTransform": "transform",
    "GoodLetterbox": "transform",
    "GoodMetric": "metric",
    "GoodBalancer": "balancer",
    "GoodAveraging": "balancer",
    "GoodWeighing": "balancer",
    "GoodCombining": "balancer",
    "GoodSchedule": "schedule",
    "GoodPreset": "preset",
    "GoodObserver": "hooks",
}

# What they leave out: it is optional, or nothing of theirs is trained.
LEFT_OUT = {
    "GoodData": {"recognised", "omissions", "annotated", "image-files", "findings"},
    "GoodFrozen": {"gradients"},
    "GoodParameterless": {"gradients"},
    "GoodPoints": {"min-visible", "surveyed"},
    "GoodBare": {"form", "files", "embedding", "min-visible", "surveyed"},
    "GoodStrokes": {"surveyed"},
}

# What keeps other checks from being made is told once, by the check that it breaks.
ROWS = [(kind, *row) for kind, rows in BROKEN.items() for row in rows]
PARTS = {name: kind for kind, _, name, _ in ROWS} | GOOD


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each class is what a distribution of its name offers."""
    folder = tmp_path_factory.mktemp("installed")
    for name, kind in PARTS.items():
        entries = {f"mtframe.{kind}": {name.lower(): value(name)}}
        if kind == "target":
            entries["mtframe.dataset"] = {f"{name.lower()}-data": f"kit_targets:{kit_targets.data_of(name)}"}
        make_dist(folder, name, entries)
    sys.path.append(str(folder))
    # All in one process: each would import torch.
    _kit._PROBED.update((one.value, one) for one in probe([value(name) for name in PARTS]))
    yield
    sys.path.remove(str(folder))


def value(name: str) -> str:
    modules = (kit_parts, kit_targets, kit_presets)
    return f"{next(module for module in modules if hasattr(module, name)).__name__}:{name}"


def results(dist: str, kind: str) -> tuple[dict[str, str], list[str], int]:
    """What failed with what, what was skipped, and how many passed; of one kind."""
    failed, skipped, passed = {}, [], 0
    for case in Kit(dist).cases():
        if case.subject.kind != kind:
            continue
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
    failed, _, _ = results(name, kind)
    assert list(failed) == [check], failed
    assert says in failed[check]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_good_passes(offered: None, name: str) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    failed, skipped, passed = results(name, GOOD[name])
    assert failed == {}
    # torch's would raise in whatever line a worker's death is noticed, in trainings of the same process.
    assert signal.getsignal(signal.SIGCHLD) is before
    assert passed >= 7
    assert set(skipped) - {"views"} == LEFT_OUT.get(name, set())


def test_every_check_is_proven() -> None:
    proven = {(kind, check) for kind, check, _, _ in ROWS}
    for kind, checks in _kit.CHECKS.items():
        for check in checks:
            of = "balancer" if kind == "every" else kind
            # By modules of their own, since importing is what they break.
            assert (of, check.name) in proven or check.name == "imports-silently", f"{kind}: {check.name}"
