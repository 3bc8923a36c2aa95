"""What a recipe's model costs, before it is trained. Imports torch."""

from __future__ import annotations

from mtframe.assembly import Assembly
from mtframe.cli._app import table
from mtframe.errors import MtframeError
from mtframe.model import Cost, cost_of
from mtframe.recipe import Choice, Recipe
from mtframe.training import freeze_parts


def summarise(recipe: Recipe) -> str:
    """A table of what each task takes, and a line on what separate models would.

    Raises:
        MtframeError: The model cannot be built, for whose heads the training data has to be there, or has no part that
            `train.freeze` names.
    """
    try:
        assembly = Assembly(recipe)
    except MtframeError as error:
        raise type(error)(
            f"{error}\n--summary builds the model, for which the training data has to be there: it says how many "
            "classes there are"
        ) from error
    cost = _cost(assembly, recipe)
    # What is frozen may have no place in it, and does not change what it costs.
    train = recipe.train.model_copy(update={"freeze": []})
    plain = recipe.model_copy(update={"sharing": Choice(name="network"), "train": train})
    alone = cost if recipe.sharing.name == "network" else _cost(assembly, plain)
    rows = [
        [
            task,
            str(recipe.tasks[task].size),
            *map(_thousands, (own.shared, own.own, own.head, own.total)),
            _giga(own.flops),
        ]
        for task, own in cost.tasks.items()
    ]
    header = ["TASK", "PIXELS", "SHARED", "OWN", "HEAD", "PARAMETERS", "GFLOPS A PASS"]
    heads = sum(own.head for own in alone.tasks.values())
    separate = len(rows) * (alone.parameters - heads) + heads, sum(own.flops for own in alone.tasks.values())
    trained = "" if cost.trained == cost.parameters else f", of which {_thousands(cost.trained)} are trained"
    lines = [
        f"parameters: {_thousands(cost.parameters)}{trained}; separate models have {_thousands(separate[0])}",
        f"a pass over one image for all tasks: {_giga(cost.flops)} GFLOPs; separate models take {_giga(separate[1])}",
    ]
    if losses := sum(own.loss for own in cost.tasks.values()):
        lines.append(f"losses have {_thousands(losses)} parameters more, which only training needs")
    return "\n".join([table(header, rows), "", *lines])


def _cost(assembly: Assembly, recipe: Recipe) -> Cost:
    # The data that was read once serves both.
    model = Assembly(recipe, assembly.infos).model(restoring=True)
    freeze_parts(model, recipe.train.freeze)
    return cost_of(model, {task: part.size for task, part in recipe.tasks.items()})


def _thousands(count: int) -> str:
    return f"{count:,}"


def _giga(flops: int) -> str:
    return f"{flops / 1e9:.3g}"
