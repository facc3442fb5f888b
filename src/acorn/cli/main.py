"""The command `acorn`: signals, and how every error becomes a message and an exit code. Its verbs are in `app.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from acorn.cli.stdout import ReaderGoneError, occupy_closed_files, open_stdout

_OUT_OF_MEMORY = """\
acorn: Out of memory.
  where: this process, to which the system gives no more
  fix:   lower train.micro_batch_size or the model's sizes, or end other programs; checkpoints still stand"""
_SPINS = "10000"
"""How often a thread of GNU's OpenMP, PyTorch's on Linux, looks whether it can go on before it sleeps (300,000 by
itself): half a millisecond, longer than a step's pauses. Where other programs share the cores, a thread that looks
keeps a core from the thread that it waits for: beside one of them a step of the demo takes 0.8 of the time with this,
alone the same."""


def main() -> None:
    """Runs the command line and exits with the contract's code."""
    try:
        _main()
    except KeyboardInterrupt:  # between an error and its message
        os._exit(130)


def _main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    occupy_closed_files()
    if sys.stderr is None:  # closed by whoever started us; print() would turn to stdout
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open as long as the program
    sys.stdout = open_stdout()
    _catch_signals(_stop)
    if "OMP_WAIT_POLICY" not in os.environ:  # which it would overrule
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when PyTorch is loaded
    # Imported only now, so that a signal finds its handler, and an error of starting up its message.
    import typer
    from typer.exceptions import TyperException

    from acorn.cli.app import app
    from acorn.cli.arguments import check_arguments
    from acorn.cli.usage import usage_error
    from acorn.errors import AcornError
    from acorn.runtime.address_space import is_out_of_memory

    try:
        check_arguments(arguments)
        code = app(arguments, prog_name="acorn", standalone_mode=False)
        sys.stdout.flush()
    except AcornError as error:
        _leave(f"acorn: {error}", error.exit_code)
    except TyperException as error:
        _leave(f"acorn: {usage_error(error)}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _leave("acorn: stopped.", 130)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        _leave(_OUT_OF_MEMORY, 6)
    except ReaderGoneError:
        sys.exit(0)
    except OSError as error:
        where = f"\n  where: {error.filename}" if error.filename else ""
        _leave(
            f"acorn: Reading or writing failed: {error.strerror or error}.{where}\n  fix:   check the disk and the "
            "rights of that place; a run goes on with --resume",
            6,
        )
    if code == 130:  # typer makes an exit code of Ctrl-C, and says nothing
        print("acorn: stopped.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _leave(message: str, code: int) -> None:
    """Ends the program. Called while an error is being handled; `--debug` shows that error whole."""
    _catch_signals(signal.SIG_IGN)  # an impatient second Ctrl-C: the program is ending anyway
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(
        Exception
    ):  # the error is told; that some output before it was lost as well is nothing new
        sys.stdout.flush()
    with contextlib.suppress(OSError):  # a full disk behind stderr
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def _catch_signals(answer: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Sets how the program answers to being stopped; signals that are ignored already stay so."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, answer)


def _stop(number: int, frame: FrameType | None) -> None:
    """Outside training: unwinds where Python runs, so that temporary folders are removed.

    Where a module is being imported it ends the process at once. Nothing has begun then that would have to be cleaned
    up, and libraries swallow an exception in the middle of their import, or break.
    """
    if _is_importing(frame):
        os.write(2, b"acorn: stopped.\n")
        os._exit(128 + number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    os.write(2, b"acorn: stopped.\n")  # print() must not be entered again from within itself
    sys.exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
