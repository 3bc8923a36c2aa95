from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_face.embedding import EmbeddingHead
from mtframe_face.identity import Identity
from placed import placed_at

FEATURES = (FeatureSpec("fine", 4, 16), FeatureSpec("coarse", 6, 32))


def _maps(count: int = 5, side: int = 4) -> list[torch.Tensor]:
    return [torch.randn(count, 4, 2 * side, 2 * side), torch.randn(count, 6, side, side)]


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize("side", [3, 4, 7])
def test_any_map_becomes_one_embedding(grid: int, side: int) -> None:
    head = EmbeddingHead(FEATURES, dim=16, grid=grid)
    assert head(_maps(side=side))["embedding"].shape == (5, 16)


def test_only_the_last_map_counts_and_a_grid_keeps_places() -> None:
    torch.manual_seed(0)
    maps = _maps()
    turned = [maps[0] + 1, maps[1].flip(2)]
    plain, placed = EmbeddingHead(FEATURES, dim=16).eval(), EmbeddingHead(FEATURES, dim=16, grid=4).eval()
    torch.testing.assert_close(plain(turned), plain(maps))
    assert not torch.allclose(placed(turned)["embedding"], placed(maps)["embedding"])


def test_embeddings_are_computed_in_float32_under_autocast() -> None:
    head, maps = EmbeddingHead(FEATURES, dim=16), _maps()
    expected = head(maps)["embedding"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(maps)["embedding"], expected)


def test_one_image_is_nothing_to_learn_from() -> None:
    head, maps = EmbeddingHead(FEATURES, dim=16), _maps(count=1)
    with pytest.raises(RecipeError, match=r"needs 2 images or more in a step .*set the task's batch_size to 2 or more"):
        head(maps)
    assert head.eval()(maps)["embedding"].shape == (1, 16)


def test_training_and_evaluation_agree_once_the_statistics_are_known() -> None:
    torch.manual_seed(0)
    head = EmbeddingHead(FEATURES, dim=16)
    head.norm.momentum = 1.0
    maps = _maps(count=400)
    trained = head(maps)["embedding"]
    # The running variance is the unbiased one, 400 / 399 of the batch's.
    torch.testing.assert_close(head.eval()(maps)["embedding"], trained, rtol=5e-3, atol=5e-3)


def test_predictions_have_unit_length() -> None:
    head = EmbeddingHead(FEATURES, dim=16).eval()
    predictions = head.predict(head(_maps()), torch.tensor([[0.0, 0, 64, 64]] * 5))
    assert len(predictions) == 5
    for prediction in predictions:
        assert prediction["embedding"].shape == (16,)
        assert prediction["embedding"].norm().item() == pytest.approx(1, abs=1e-5)


def test_views_are_merged_by_adding_unit_embeddings() -> None:
    place = placed_at((64, 64))
    views = [({"embedding": torch.tensor([1.0, 0.0])}, place), ({"embedding": torch.tensor([0.0, 1.0])}, place)]
    identity = Identity(DataInfo("identity", ("a", "b")))
    torch.testing.assert_close(identity.restored(views)["embedding"], F.normalize(torch.ones(2), dim=0))
    assert identity.restored(views[:1])["embedding"].tolist() == [1, 0]


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="dim: must be 1 or more, got 0"):
        EmbeddingHead(FEATURES, dim=0)
    with pytest.raises(RecipeError, match="dropout"):
        EmbeddingHead(FEATURES, dropout=1.0)
