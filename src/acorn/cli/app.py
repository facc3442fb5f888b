"""The commands of `acorn`, each in its own file."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from acorn.cli import (
    chat,
    config,
    data,
    demo,
    evaluate,
    export,
    finetune,
    generate,
    plan,
    predict,
    presets,
    pretrain,
    report,
    serve,
    sweep,
    tokenizer,
    verify,
)
from acorn.cli.usage import Program, Verbs
from acorn.runtime.address_space import check_address_space

app = Program(
    name="acorn",
    cls=Verbs,
    help="Train a language model from scratch on your own text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("pretrain", cls=presets.WithPresets)(pretrain.pretrain)
app.command("finetune")(finetune.finetune)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("verify")(verify.verify)
app.command("plan", cls=presets.WithPresets)(plan.plan)
app.command("sweep", cls=presets.WithPresets)(sweep.sweep)
app.command("config")(config.config)
app.command("presets")(presets.presets)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")

LIGHT, TRAINING = {"config", "presets", "tokenizer"}, {"demo", "finetune", "plan", "pretrain", "sweep"}
NUMPY = {"data", "verify"}
"""Commands by what they load: no large library (LIGHT), PyTorch for training, NumPy alone. Others load PyTorch."""


def _show_version(wanted: bool) -> None:
    if wanted:
        from acorn import __version__

        print(f"acorn {__version__}")
        raise typer.Exit


@app.callback()
def acorn(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (may stand anywhere on the command line).")
    ] = False,
) -> None:
    """Train a language model from scratch on your own text."""
    verb = context.invoked_subcommand
    if verb not in LIGHT and not {"-h", "--help"} & set(sys.argv):
        check_address_space("training" if verb in TRAINING else "numpy" if verb in NUMPY else "torch")
