from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_classification.heads import Classifier, Regressor
from mtframe_classification.losses import RegressionLoss
from mtframe_classification.targets import Label, Labels, Value
from placed import placed_at

FEATURES = (FeatureSpec("c2", 3, 4), FeatureSpec("c3", 5, 8))
BOUNDS = torch.tensor([[0.0, 0, 32, 32]] * 2)


def _maps() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]


def test_one_label_is_a_softmax_over_the_mean_of_the_last_map() -> None:
    head = Classifier(FEATURES, DataInfo("label", ("a", "b", "c")))
    maps = _maps()
    outputs = head(maps)
    linear = head.linear[1]
    assert isinstance(linear, nn.Linear)
    torch.testing.assert_close(outputs["logits"], maps[1].mean((2, 3)) @ linear.weight.T + linear.bias)
    predictions = head.predict(outputs, BOUNDS)
    torch.testing.assert_close(predictions[1]["probabilities"], outputs["logits"][1].softmax(0))


def test_several_labels_are_sigmoids() -> None:
    head = Classifier(FEATURES, DataInfo("labels", ("a",)))
    predictions = head.predict({"logits": torch.tensor([[0.0], [2.0]])}, BOUNDS)
    assert [round(float(prediction["probabilities"]), 4) for prediction in predictions] == [0.5, 0.8808]


def test_views_are_averaged() -> None:
    # Wherever they look at the original: at its mirror image, at another size.
    places = placed_at((32, 32)), placed_at((32, 32), 2.0).flipped()
    views = [{"probabilities": torch.tensor([0.2, 0.8])}, {"probabilities": torch.tensor([0.6, 0.4])}]
    for target in (Label(DataInfo("label", ("a", "b"))), Labels(DataInfo("labels", ("a", "b")))):
        merged = target.restored(list(zip(views, places, strict=True)))
        torch.testing.assert_close(merged, {"probabilities": torch.tensor([0.4, 0.6])})
        torch.testing.assert_close(target.restored([(views[0], places[0])]), views[0])
    numbers = [{"values": torch.tensor([3.0])}, {"values": torch.tensor([5.0])}]
    merged = Value(DataInfo("value", ("x",))).restored(list(zip(numbers, places, strict=True)))
    assert merged["values"].tolist() == [4]


def test_outputs_are_float32_under_bf16() -> None:
    for head in (Classifier(FEATURES, DataInfo("labels", ("a",))), Regressor(FEATURES, DataInfo("value", ("x",)))):
        with torch.autocast("cpu", torch.bfloat16):
            assert {output.dtype for output in head([m.bfloat16() for m in _maps()]).values()} == {torch.float32}


def test_dropout_is_for_training() -> None:
    head = Classifier(FEATURES, DataInfo("label", ("a", "b")), dropout=0.5)
    torch.manual_seed(1)
    maps = [torch.ones(2, 5, 4, 4)]
    assert not torch.equal(head(maps)["logits"], head(maps)["logits"])
    head.eval()
    assert torch.equal(head(maps)["logits"], head(maps)["logits"])


def test_statistics_of_labels_are_those_of_all_that_were_known() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(60, 3)) * [1, 1e4, 1e-3] + [5, -3e5, 0]).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:7, 0] = np.nan
    head = Regressor(FEATURES, DataInfo("value", ("x", "y", "z")))
    for part in np.split(values, [7, 8, 30, 30, 59]):
        head.observe(torch.from_numpy(part))
    np.testing.assert_allclose(head.mean, np.nanmean(values.astype(np.float64), 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.std, np.nanstd(values.astype(np.float64), 0), rtol=1e-3)
    np.testing.assert_array_equal(head.seen, (~np.isnan(values)).sum(0))


def test_a_number_that_never_differs_is_not_divided_by_nothing() -> None:
    head = Regressor(FEATURES, DataInfo("value", ("x", "y")))
    assert head.std.tolist() == [1, 1], "before any label"
    for _ in range(5):
        head.observe(torch.tensor([[0.1, torch.nan]] * 3))
    assert head.std.tolist() == [1, 1]
    assert head.mean.tolist() == [pytest.approx(0.1), 0]


def test_numbers_come_in_the_units_of_the_data() -> None:
    head = Regressor(FEATURES, DataInfo("value", ("x", "y")))
    head.observe(torch.tensor([[90.0, 0], [110, 4]]))
    outputs = head(_maps())
    expected = torch.tensor([100.0, 2]) + torch.tensor([10.0, 2]) * outputs["standardised"]
    torch.testing.assert_close(outputs["values"], expected)
    torch.testing.assert_close(head.predict(outputs, BOUNDS)[1]["values"], expected[1])
    assert {"mean", "variance", "seen"} <= head.state_dict().keys(), "a checkpoint keeps them"


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e5])
def test_the_unit_of_a_number_does_not_matter_to_its_training(factor: float) -> None:
    torch.manual_seed(0)
    head = Regressor(FEATURES, DataInfo("value", ("x",)))
    loss = RegressionLoss(head, kind="l2")
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    maps = [torch.randn(40, 5, 2, 2)]
    wanted = factor * (7 + maps[0].mean((2, 3))[:, :1] - maps[0].mean((2, 3))[:, 1:2])
    for _ in range(200):
        optimizer.zero_grad()
        loss(head(maps), {"value": wanted})["l2"].backward()
        optimizer.step()
    head.eval()
    assert (head(maps)["values"] - wanted).abs().max() < 0.05 * factor


def test_options_and_data_are_checked() -> None:
    with pytest.raises(RecipeError, match="dropout: must be 0 or more and below 1, got 1"):
        Classifier(FEATURES, DataInfo("labels", ("a",)), dropout=1.0)
    with pytest.raises(DataError, match="has 1 classes; to tell them apart takes at least 2"):
        Classifier(FEATURES, DataInfo("label", ("a",)))
