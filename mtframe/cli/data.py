"""`mtframe data`: get data, make it, check it, look at it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mtframe._fit import targets_of
from mtframe._recognised import targets_of_preset
from mtframe.cli._app import Trusted, say, trust_recipe
from mtframe.errors import RecipeError
from mtframe.kinds import Downloads, Synthesizes
from mtframe.registry import at_hand, resolve

# What a data set has to have for a command.
_ABILITIES: dict[str, type] = {"download": Downloads, "synthesize": Synthesizes}

Name = Annotated[str, typer.Argument(help="A data set, e.g. lfw or coco.")]
Root = Annotated[Path, typer.Argument(help="Its folder.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options.")]


def download(name: Name, root: Root) -> None:
    """Fetch a data set from its publisher.

    mtframe data download lfw data/lfw
    """
    _say(_method(name, "download")(root))
    say(f"downloaded {name} to {root}")


def synthesize(name: Name, root: Root, arguments: Overrides = None) -> None:
    """Generate a small data set of this format from a seed, without a download.

    mtframe data synthesize coco data/scenes seed=1 train=500
    """
    from mtframe import options
    from mtframe.recipe import apply_overrides

    make = _method(name, "synthesize")
    checked = options.check(make, ("root",), apply_overrides({}, arguments or []), f"data synthesize {name}")
    _say(make(root, **checked))
    say(f"made {name} in {root}")


def check(
    source: Annotated[str, typer.Argument(metavar="NAME|RECIPE", help="A data set, or a recipe file.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ROOT|KEY=VALUE", help="A data set's folder, then options.")
    ] = None,
    workers: Annotated[int, typer.Option("-j", "--workers", min=1, help="Processes that decode images.")] = 1,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="FINDING", help="A finding that is no mistake, by its name; may be repeated."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("-t", "--task", metavar="PRESET", help="Preset whose transform and size a data set is judged at."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels of the inputs that a data set is judged at, if not the preset's.")
    ] = None,
) -> None:
    """Read every label and decode every image of every split; say what is there, and what is wrong.

    Exit code 1 if anything cannot be meant, unless it is allowed.

    mtframe data check coco data/coco -j 8

    mtframe data check yolo data/cats --size 640

    mtframe data check recipe.yaml --allow same-file
    """
    from mtframe.cli._surveys import check_data_set, check_recipe

    given = arguments or []
    if Path(source).suffix in (".yaml", ".yml"):
        if task is not None or size is not None:
            raise RecipeError("-t and --size: a recipe says them itself; change it with tasks.NAME.size=PIXELS")
        whole = check_recipe(source, given, workers, allow or [])
    elif not given or "=" in given[0]:
        raise RecipeError(f"expected the folder of data set {source!r} behind its name, or a recipe file (.yaml)")
    else:
        whole = check_data_set(source, Path(given[0]), given[1:], workers, allow or [], task, size)
    if not whole:
        raise typer.Exit(1)


def preview(
    source: Annotated[str, typer.Argument(metavar="NAME|RECIPE", help="A data set, or a recipe file.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ROOT] KEY=VALUE", help="A data set's folder, then options.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write; for a recipe, one per task.")] = Path("preview.png"),
    images: Annotated[int, typer.Option(min=1, max=200, help="Number of images.")] = 24,
    task: Annotated[
        str | None,
        typer.Option("-t", "--task", help="Preset whose augmentation is shown; for a recipe, the only task."),
    ] = None,
    trust: Trusted = False,
) -> None:
    """Draw a sheet of augmented training images with their labels.

    mtframe data preview coco data/coco transform.mosaic=1 size=320

    mtframe data preview recipe.yaml
    """
    from mtframe.assembly import Assembly
    from mtframe.drawing import save_picture
    from mtframe.inference import preview as draw
    from mtframe.recipe import assemble_recipe, load_recipe

    given = arguments or []
    if Path(source).suffix in (".yaml", ".yml"):
        trust_recipe(trust, source)
        recipe = load_recipe(source, given)
        if task is not None and task not in recipe.tasks:
            raise RecipeError(f"-t {task}: no such task; the tasks of this recipe are {', '.join(recipe.tasks)}")
        files = {name: out.with_stem(f"{out.stem}-{name}") for name in ([task] if task else recipe.trained)}
    else:
        if not given or "=" in given[0]:
            raise RecipeError(f"expected the folder of data set {source!r} behind its name, or a recipe file (.yaml)")
        preset = task or _preset_for(source)
        overrides = [f"tasks.preview.{argument}" for argument in (f"dataset.name={source}", *given[1:])]
        # No model is built, so the backbone is only a name.
        recipe = assemble_recipe("none", [f"preview={preset}:{given[0]}"], overrides)
        files = {"preview": out}
    assembly = Assembly(recipe)
    for name, file in files.items():
        save_picture(draw(assembly, name, images=images), file)
        say(f"wrote {file}")


def _method(name: str, method: str) -> Any:
    component = resolve("dataset", name).component
    ability = _ABILITIES[method]
    if not isinstance(component, ability):
        able = [other for other, loaded in at_hand("dataset") if isinstance(loaded, ability)]
        raise RecipeError(f"data set {name!r} has no {method}; these have: {', '.join(able) or 'none'}")
    return getattr(component, method)


def _preset_for(dataset: str) -> str:
    found = fitting_preset(dataset)
    if found is None:
        raise RecipeError(f"no preset fits data set {dataset!r}; name one with -t (see mtframe plugins list preset)")
    return found


def fitting_preset(dataset: str, target: str | None = None) -> str | None:
    """The first preset that uses a data set where a recipe names none; else the first for its kind of target.

    Args:
        dataset: Its name.
        target: The kind of target that it gives, if it is known; else any of those that it may give.
    """
    gives = {*targets_of(resolve("dataset", dataset).component)} if target is None else {target}
    presets = dict(at_hand("preset"))
    fitting = [name for name, preset in presets.items() if targets_of_preset(preset) & gives]
    using = [name for name in fitting if getattr(presets[name], "dataset", None) == dataset.partition("@")[0]]
    return next(iter((*using, *fitting)), None)


def _say(counts: Any) -> None:
    if isinstance(counts, Mapping):
        say(", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in counts.items()))
