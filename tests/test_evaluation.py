from __future__ import annotations

import math

import pytest
import torch

from mtframe.assembly import Assembly
from mtframe.evaluation import evaluate_task, mean_relative_gain
from mtframe.recipe import Recipe
from toy import ToyData, ToyMetric, ToyTransform, toy_recipe


def test_mean_relative_gain_by_hand() -> None:
    # +10 % where more is better, and an error that falls from 0.2 to 0.15 is +25 %.
    gain = mean_relative_gain({"a": 0.55, "b": 0.15}, {"a": 0.5, "b": 0.2}, {"a": True, "b": False})
    assert gain == pytest.approx((0.10 + 0.25) / 2)


def test_a_reference_of_nothing_says_nothing_and_a_broken_score_loses_all() -> None:
    higher = {"a": True, "b": True}
    assert mean_relative_gain({"a": 0.3, "b": 0.6}, {"a": 0.0, "b": 0.5}, higher) == pytest.approx(0.1)
    assert mean_relative_gain({"a": math.nan, "b": 0.5}, {"a": 0.5, "b": 0.5}, higher) == pytest.approx(-0.5)


def test_evaluation_scores_each_image_once_and_leaves_the_model_as_it_was() -> None:
    model = Assembly(Recipe.from_plain(toy_recipe())).model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    dataset = ToyData("val", count=9, bad=4)
    result = evaluate_task(model, "one", dataset, ToyTransform(32, False), [ToyMetric()], batch_size=4)
    assert result.images == 8
    assert result.skipped == ["toy/4.jpg: made to be bad"]
    assert 0 <= result.score <= 1
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_flip_test_merges_the_outputs_of_both_mirror_images() -> None:
    model = Assembly(Recipe.from_plain(toy_recipe())).model()
    asked = []
    model.heads["one"].merge_flip = lambda outputs, mirrored: asked.append(1) or outputs
    evaluate_task(
        model, "one", ToyData("val", count=4), ToyTransform(32, False), [ToyMetric()], batch_size=4, flip=True
    )
    assert asked == [1]
