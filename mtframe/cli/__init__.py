"""The command line. Commands import what is heavy when they run, so that `mtframe --help` is immediate."""

import typer

from . import (
    add_task,
    affinity,
    backbones,
    check,
    data,
    demo,
    doctor,
    evaluate,
    init,
    new,
    plugins,
    predict,
    remove_task,
    train,
    verify,
)
from ._app import app as app
from ._app import run

app.command()(demo.demo)
app.command()(init.init)
app.command()(train.train)
app.command()(affinity.affinity)
app.command()(add_task.add_task)
app.command()(remove_task.remove_task)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(verify.verify)
app.command()(backbones.backbones)

_plugins = typer.Typer(no_args_is_help=True, help="List, check and begin plugins.")
_plugins.command("list")(plugins.list_components)
_plugins.command("show")(plugins.show)
_plugins.command("doctor")(doctor.doctor)
_plugins.command("check")(check.check)
_plugins.command()(new.new)
app.add_typer(_plugins, name="plugins")

_data = typer.Typer(no_args_is_help=True, help="Download, generate, check and preview data.")
_data.command()(data.download)
_data.command()(data.synthesize)
_data.command()(data.check)
_data.command()(data.preview)
app.add_typer(_data, name="data")


def main() -> None:
    """The console script."""
    run()
