"""The program `acorn`: signals, and how errors become messages and exit codes. Its commands are in `app.py`."""

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
  where: this process, to which the system gives no more memory
  fix:   lower train.micro_batch_size or the size of the model, or end other programs; saved checkpoints are intact"""
_SPINS = "10000"
"""How many times an idle thread of GNU OpenMP (PyTorch's on Linux) checks for work before it sleeps; GNU's default is
300,000. 10,000 checks last longer than the pauses within a step. Where other programs share the cores, a spinning
thread keeps a core from the thread it waits for: beside one other program a demo step takes 0.8 of the time with this
value; without other programs it makes no difference."""


def main() -> None:
    """Runs the command line and exits with its exit code."""
    try:
        _main()
    except KeyboardInterrupt:  # Ctrl-C between an error and its message
        os._exit(130)


def _main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    occupy_closed_files()
    if sys.stderr is None:  # closed by the parent process; print() would fall back to stdout
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open as long as the program
    sys.stdout = open_stdout()
    _catch_signals(_stop)
    if "OMP_WAIT_POLICY" not in os.environ:  # GOMP_SPINCOUNT would override it
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when PyTorch is loaded
    # Imported after the signal handlers are set, so that a signal or an error during imports is handled too.
    import typer
    from typer.exceptions import TyperException

    from acorn.cli.app import app
    from acorn.cli.arguments import check_arguments
    from acorn.cli.usage import usage_error
    from acorn.errors import AcornError
    from acorn.files import read_errors
    from acorn.runtime.address_space import is_out_of_memory

    try:
        check_arguments(arguments)
        with read_errors():
            code = app(arguments, prog_name="acorn", standalone_mode=False)
        sys.stdout.flush()
    except AcornError as error:
        _leave(f"acorn: {error}", error.exit_code)
    except TyperException as error:
        _leave(f"acorn: {usage_error(error)}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _leave("acorn: Stopped.", 130)
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
            "permissions there; --resume continues a run",
            6,
        )
    if code == 130:  # typer turns Ctrl-C into an exit code without a message
        print("acorn: Stopped.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _leave(message: str, code: int) -> None:
    """Prints `message` and exits. Called while an error is being handled; `--debug` prints its traceback."""
    _catch_signals(signal.SIG_IGN)  # ignore a second Ctrl-C: the program is ending anyway
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(Exception):  # the error that is printed matters more than lost output
        sys.stdout.flush()
    with contextlib.suppress(OSError):  # a full disk behind stderr
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def _catch_signals(answer: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Sets the handler of the stop signals; signals that are already ignored stay ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, answer)


def _stop(number: int, frame: FrameType | None) -> None:
    """Stops the program outside training: raises, so that temporary folders are removed.

    During an import it ends the process at once: nothing needs cleaning up yet, and libraries may swallow an exception
    in the middle of their import, or break.
    """
    if _is_importing(frame):
        os.write(2, b"acorn: Stopped.\n")
        os._exit(128 + number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    os.write(2, b"acorn: Stopped.\n")  # print() is not reentrant
    sys.exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
