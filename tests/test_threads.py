"""What a pass knows is its thread's own; and loaded models whose parts had it otherwise. Schemes: tests/sharing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import toy
from mtframe.assembly import Assembly
from mtframe.inference import Predictor
from mtframe.model import PerPass, current_rows, rows_of
from mtframe.recipe import Recipe
from mtframe.testing._lockstep import in_lockstep
from mtframe_timm.backbone import TimmBackbone
from toy import toy_recipe

COUNTS = {"one": 20, "two": 12}


def elsewhere(call):
    """What a call gives in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_a_value_holds_within_a_pass_in_its_thread() -> None:
    value = PerPass[int]()
    assert value.get() is None
    with value.use(1):
        with value.use(2):
            assert value.get() == 2
            assert elsewhere(value.get) is None
        assert value.get() == 1
        with pytest.raises(ZeroDivisionError), value.use(3):
            raise ZeroDivisionError
        assert value.get() == 1
    assert value.get() is None


def test_values_of_two_models_and_of_a_copy_do_not_mix() -> None:
    one, other = PerPass[int](), PerPass[int]()
    (held, again), copied = [one, one], deepcopy([one, one])
    with one.use(1), other.use(2), copied[0].use(3):
        assert (held.get(), again.get(), other.get(), copied[1].get()) == (1, 1, 2, 3)


def test_rows_are_told_by_the_own_thread_alone() -> None:
    with rows_of({"a": 2}):
        assert elsewhere(current_rows) is None
        assert elsewhere(lambda: within({"b": 3})) == {"b": 3}
        assert current_rows() == {"a": 2}
    assert current_rows() is None


def within(counts: dict[str, int]) -> dict[str, int] | None:
    with rows_of(counts):
        return current_rows()


class Layer(nn.Module):
    """Tells what it was given last by whomever."""

    def forward(self, given: Tensor) -> Tensor:
        return given


class Remembering(nn.Module):
    """Keeps on itself what it is about, as no module should."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer()

    def forward(self, given: Tensor) -> Tensor:
        self.given = given
        return self.layer(given) + self.given


def test_in_lockstep_a_race_is_lost_for_certain() -> None:
    module = Remembering()
    given = [torch.tensor(float(number)) for number in range(3)]
    for _ in range(10):
        found = in_lockstep(module, [partial(module, value) for value in given])
        assert found != [2 * value for value in given]
    assert not module.layer._forward_pre_hooks


def test_in_lockstep_threads_that_do_not_meet_go_on() -> None:
    module = Remembering()

    def twice() -> Tensor:
        return module(torch.tensor(1.0)) + module.layer(torch.tensor(1.0))

    assert len(in_lockstep(module, [twice, partial(module, torch.tensor(1.0))])) == 2

    def fails() -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_lockstep(module, [fails, partial(module, torch.tensor(1.0))])


def test_a_predictor_is_called_from_several_threads() -> None:
    """Tasks of two sizes: the chosen statistics are those of the picture's task."""
    torch.manual_seed(0)
    assembly = Assembly(Recipe.from_plain(toy_recipe({"small": {"size": 32}, "large": {"size": 48}})))
    model = assembly.model().train()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        model({"small": 60 * torch.rand(8, 3, 32, 32, generator=generator)})
        model({"large": 195 + 60 * torch.rand(8, 3, 48, 48, generator=generator)})
    predictor = Predictor(assembly, model, torch.device("cpu"))
    pictures = [torch.full((3, 16, 16), 40 * number, dtype=torch.uint8) for number in range(6)]
    asked = [(picture, task) for picture in pictures for task in ("small", "large")]
    seen: list[tuple[int, Tensor]] = []
    for head in model.heads.values():
        head.register_forward_hook(lambda _, __, output: seen.append((threading.get_ident(), output["logits"])))

    def logits(picture: Tensor, task: str) -> Tensor:
        predictor.predict(picture, [task])
        return next(found for thread, found in reversed(seen) if thread == threading.get_ident())

    alone = [logits(*one) for one in asked]
    assert not torch.allclose(alone[0], alone[1])
    for first in range(0, len(asked), 4):
        at_once = in_lockstep(model, [partial(logits, *one) for one in asked[first : first + 4]])
        torch.testing.assert_close(at_once, alone[first : first + 4])


def test_evaluations_at_once_are_those_of_one_thread_alone_and_their_metrics_are_kept() -> None:
    torch.manual_seed(0)
    tasks = {task: {"dataset": {"name": f"{toy.__file__}:ToyData", "count": count}} for task, count in COUNTS.items()}
    assembly = Assembly(Recipe.from_plain(toy_recipe(tasks)).check())
    predictor = Predictor(assembly, assembly.model(), torch.device("cpu"))

    def scores() -> dict[str, tuple[int, dict[str, float]]]:
        return {task: (its.images, its.values) for task, its in predictor.evaluate_many().items()}

    alone = scores()
    assert {task: images for task, (images, _) in alone.items()} == COUNTS
    for _ in range(3):
        assert in_lockstep(predictor.model, [scores] * 4) == [alone] * 4
    assert scores() == alone
    # One for each of those at once; each is lent again, and to one at a time.
    for task in COUNTS:
        with ExitStack() as lent:
            taken = [lent.enter_context(assembly.scoring(task, "val"))[0] for _ in range(4)]
            assert len({id(metric) for metric in taken}) == 4
        assert assembly.metrics(task, "val")[0] in taken


def test_metrics_of_an_evaluation_that_failed_have_forgotten_it() -> None:
    assembly = Assembly(Recipe.from_plain(toy_recipe()).check())
    with suppress(ZeroDivisionError), assembly.scoring("one", "val") as (metric,):
        metric.seen = 5
        raise ZeroDivisionError
    with assembly.scoring("one", "val") as (again,):
        assert (again is metric, again.seen) == (True, 0)


def test_maps_that_timm_collects_by_hooks_are_those_of_the_pass() -> None:
    """timm keeps them by device, in an object that all passes share."""
    hooked = TimmBackbone("pit_ti_224", 224, pretrained=False).eval()
    images = [torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]

    @torch.no_grad()
    def maps(given: Tensor) -> list[Tensor]:
        return hooked(given)

    alone = [maps(given) for given in images]
    at_once = in_lockstep(hooked, [partial(maps, given) for given in images])
    torch.testing.assert_close(at_once, alone)
    assert deepcopy(hooked).network.hooks._feature_outputs == {}
