"""The command `acorn`: its verbs, and how every error becomes a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from typer.exceptions import TyperException

from acorn.cli import data, demo, evaluate, generate, plan, pretrain, report, tokenizer, verify
from acorn.errors import AcornError

app = typer.Typer(
    name="acorn",
    help="Grow a language model from scratch out of your own text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("pretrain")(pretrain.pretrain)
app.command("evaluate")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("report")(report.report)
app.command("verify")(verify.verify)
app.command("plan")(plan.plan)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")


_OUT_OF_MEMORY = """\
acorn: Out of memory.
  where:   this process, to which the system gives no more
  to mend: lower train.micro_batch_size or the model's sizes, or end other programs; checkpoints still stand"""
_TORCH_OUT_OF_MEMORY = ("DefaultCPUAllocator: ", "out of memory")
"""What PyTorch says where a CPU or a GPU has no more memory. On a CPU the error has no type of its own."""


def _show_version(wanted: bool) -> None:
    if wanted:
        from acorn import __version__

        print(f"acorn {__version__}")
        raise typer.Exit


@app.callback()
def acorn(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere in the line).")
    ] = False,
) -> None:
    """Grow a language model from scratch out of your own text."""


def main() -> None:
    """Runs the command line and exits with the contract's code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(arguments, prog_name="acorn", standalone_mode=False)
    except AcornError as error:
        _leave(f"acorn: {error}", error.exit_code)
    except TyperException as error:
        _leave(f"acorn: {error.format_message()}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _leave("acorn: stopped.", 130)
    except MemoryError:
        _leave(_OUT_OF_MEMORY, 6)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _TORCH_OUT_OF_MEMORY):
            raise
        _leave(_OUT_OF_MEMORY, 6)
    except BrokenPipeError:
        # Whoever read our output has gone; what is still in the buffer has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f"\n  where:   {error.filename}" if error.filename else ""
        _leave(
            f"acorn: Reading or writing failed: {error.strerror or error}.{where}\n  to mend: check the disk and the "
            "rights of that place; a run goes on with --resume",
            6,
        )
    if code == 130:  # typer makes an exit code of Ctrl-C, and says nothing
        print("acorn: stopped.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _leave(message: str, code: int) -> None:
    """Ends the program. Called while an error is being handled; `--debug` shows that error whole."""
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    print(message, file=sys.stderr)
    sys.exit(code)


def _terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM outside training: unwind, so that temporary folders are removed."""
    os.write(2, b"acorn: stopped.\n")  # print() must not be entered again from within itself
    sys.exit(128 + number)
