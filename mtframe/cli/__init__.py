"""The command line. Commands import what is heavy when they run, so that `mtframe --help` is immediate."""

import typer

from . import backbones, evaluate, init, plugins, predict, train
from ._app import app as app
from ._app import run

app.command()(init.init)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(backbones.backbones)

_plugins = typer.Typer(no_args_is_help=True, help="See what is installed.")
_plugins.command("list")(plugins.list_components)
_plugins.command("show")(plugins.show)
app.add_typer(_plugins, name="plugins")


def main() -> None:
    """The console script."""
    run()
