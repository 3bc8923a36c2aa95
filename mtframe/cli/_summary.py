"""What a recipe's model costs, before it is trained. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mtframe.assembly import Assembly
from mtframe.cli._app import table
from mtframe.errors import MtframeError
from mtframe.evaluation import View, task_views_of, views_of
from mtframe.model import Cost, MultiTaskModel, cost_of
from mtframe.recipe import CheckedRecipe, Choice, Recipe
from mtframe.training import freeze_parts


def summarise(checked: CheckedRecipe) -> str:
    """Tables of what each task takes and of the passes that a picture takes, and what separate models would.

    Raises:
        MtframeError: The model cannot be built, for whose heads the training data has to be there, or has no part that
            `train.freeze` names.
    """
    recipe = checked.recipe
    try:
        assembly = Assembly(checked)
    except MtframeError as error:
        raise type(error)(
            f"{error}\n--summary builds the model, for which the training data has to be there: it says how many "
            "classes there are"
        ) from error
    task_views = task_views_of(assembly)
    views = [view for group in assembly.input_groups() for view in views_of(task_views, group)]
    model = assembly.model(restoring=True)
    freeze_parts(model, recipe.train.freeze)
    cost = _cost(model, recipe, views)
    own = [view for task in recipe.tasks for view in views_of(task_views, [task])]
    # What is frozen may have no place in it, and does not change what it costs.
    alone = _cost(assembly.model(restoring=True, sharing=Choice(name="network")), recipe, own)
    rows = [
        [task, str(recipe.tasks[task].size), *map(_thousands, (its.shared, its.own, its.head, its.total))]
        for task, its in cost.tasks.items()
    ]
    heads = sum(its.head for its in alone.tasks.values())
    separate = len(rows) * (alone.parameters - heads) + heads
    trained = "" if cost.trained == cost.parameters else f", of which {_thousands(cost.trained)} are trained"
    taken, apart = (sum(map(_flops, of, its.passes)) for of, its in ((views, cost), (own, alone)))
    lines = [
        table(["TASK", "PIXELS", "SHARED", "OWN", "HEAD", "PARAMETERS"], rows),
        "",
        table(["PASS FOR", "PIXELS", "IMAGES", "GFLOPS"], [*map(partial(_row, recipe), views, cost.passes)]),
        "",
        f"parameters: {_thousands(cost.parameters)}{trained}; separate models have {_thousands(separate)}",
        f"predicting a picture takes {_giga(taken)} GFLOPs; separate models take {_giga(apart)}",
    ]
    if losses := sum(its.loss for its in cost.tasks.values()):
        lines.append(f"losses have {_thousands(losses)} parameters more, which only training needs")
    return "\n".join(lines)


def _row(recipe: Recipe, view: View, flops: int) -> list[str]:
    """One pass of a picture: whom it serves, and what it takes."""
    images = len(view.mirrored)
    mirrored = " (with the mirror image)" if images > 1 else " (the mirror image)" if view.mirrored[0] else ""
    side = view.side(recipe.tasks[view.tasks[0]].size)
    return [", ".join(view.tasks), str(side), f"{images}{mirrored}", _giga(_flops(view, flops))]


def _flops(view: View, each: int) -> int:
    return each * len(view.mirrored)


def _cost(model: MultiTaskModel, recipe: Recipe, views: Sequence[View]) -> Cost:
    sizes = {task: part.size for task, part in recipe.tasks.items()}
    return cost_of(model, sizes, [(view.tasks, view.side(sizes[view.tasks[0]])) for view in views])


def _thousands(count: int) -> str:
    return f"{count:,}"


def _giga(flops: int) -> str:
    return f"{flops / 1e9:.3g}"
