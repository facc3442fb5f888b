"""`acorn chat`: a conversation with a model in the terminal, or line by line through pipes."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.advice import acorn_command
from acorn.cli.arguments import path_from
from acorn.cli.output import check_stdout
from acorn.cli.sampling_options import (
    AllowUnknown,
    Checkpoint,
    Decoder,
    Device,
    Greedy,
    IgnoreEos,
    MaxNewTokens,
    MinP,
    Precision,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
)
from acorn.generate.settings import SamplingSettings

if TYPE_CHECKING:
    from acorn.cli.chat_session import Session

PROMPT, MORE = "> ", "... "
QUOTES = '"""'
"""Before and after a message of several lines."""

UNANSWERED_CODE = 3
"""Exit code where a line from a pipe was not answered."""


def chat(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", parser=path_from("RUN"), help="A run, checkpoint or model folder, or hf:OWNER/NAME."
        ),
    ],
    system: Annotated[str, typer.Option(metavar="S", help="A system message, before the conversation.")] = "",
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="F.jsonl",
            parser=path_from("--save"),
            help="Add the conversation as a line to this file when it ends.",
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = SamplingSettings.max_new_tokens,
    temperature: Temperature = SamplingSettings.temperature,
    top_k: TopK = SamplingSettings.top_k,
    top_p: TopP = SamplingSettings.top_p,
    min_p: MinP = SamplingSettings.min_p,
    repetition_penalty: RepetitionPenalty = SamplingSettings.repetition_penalty,
    stop: Stop = None,
    seed: Seed = None,
    greedy: Greedy = False,
    ignore_eos: IgnoreEos = False,
    allow_unknown: AllowUnknown = False,
    checkpoint: Checkpoint = None,
    precision: Precision = "auto",
    device: Device = "auto",
    decoder: Decoder = "auto",
) -> None:
    """Hold a conversation with a model. /help lists the commands.

    Without a terminal, each line of stdin is a message, and stdout has the answers alone.
    """
    from acorn.checkpoint.load import load
    from acorn.checkpoint.model_chat import chat_format
    from acorn.cli.chat_session import Session, never_stopped
    from acorn.generate.conversation import Conversation
    from acorn.generate.engine import check_decoder
    from acorn.generate.transcript import check_transcript
    from acorn.model.int8 import round_to_int8
    from acorn.report.formats import printable
    from acorn.report.terminal import TaskProgress
    from acorn.runtime.choose import runtime_for_inference

    settings = SamplingSettings(
        max_new_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
        greedy,
        tuple(stop or ()),
        ignore_eos,
        allow_unknown,
    )
    check_stdout()
    check_decoder(decoder)
    if save is not None:
        check_transcript(save)
    runtime = runtime_for_inference(device, precision)
    progress = TaskProgress()
    loaded = load(run, checkpoint, runtime.device, progress=progress)
    predict = acorn_command("predict", run, "--text", "...")
    loaded.require_language_model("it holds no conversation", fix=f"use it with: {predict}")
    if precision == "int8":
        round_to_int8(loaded.model)
    said: set[str] = set()

    def note_once(text: str) -> None:
        if text not in said:
            progress.note(text)
        said.add(text)

    conversation = Conversation(
        loaded.model,
        loaded.tokenizer,
        chat_format(loaded),
        settings,
        system=system,
        end_ids=loaded.end_ids,
        trained_ids=loaded.trained_ids,
        decoder=decoder,
        int8=precision == "int8",
        note=note_once,
    )
    is_typed = sys.stdin is not None and sys.stdin.isatty()
    is_shown = sys.stdout.isatty()

    def write(text: str) -> None:
        sys.stdout.write(printable(text) if is_shown else text)
        sys.stdout.flush()

    session = Session(conversation, write, progress.note, save, _stoppable if is_typed else never_stopped)
    if conversation.continues_text:
        progress.note("This model has no chat template: it continues the text that you type.")
    with runtime.start(), runtime.autocast():
        conversation.warm_up()
        if is_typed:
            progress.note("/help lists the commands. Ctrl-C stops an answer; Ctrl-D ends the conversation.")
        try:
            for line in _typed_lines(progress.note) if is_typed else _piped_lines(session):
                if not session.take(line):
                    break
        finally:
            session.close()
    if session.refused and not is_typed:
        raise typer.Exit(UNANSWERED_CODE)


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """While it is open, Ctrl-C does nothing but make the function true that it gives."""
    is_stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: is_stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _piped_lines(session: Session) -> Iterator[str]:
    """The lines of stdin, each a message."""
    if sys.stdin is None:  # closed
        return
    encoding = sys.stdin.encoding or "utf-8"
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode(encoding).removeprefix("\ufeff" if number == 1 else "").rstrip("\r\n")
        except UnicodeDecodeError:
            session.refuse(f"line {number:,} of stdin is not valid {encoding} text.")


def _typed_lines(say: Callable[[str], None]) -> Iterator[str]:
    """The messages that a person types, with editing and a history; Ctrl-D, or Ctrl-C twice, ends them."""
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 - gives input() editing and a history
    was_interrupted = False
    while True:
        try:
            line = _read(PROMPT)
            if line.startswith(QUOTES):
                line = _quoted(line.removeprefix(QUOTES))
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            print(file=sys.stderr)
            if was_interrupted:
                return
            was_interrupted = True
            say("Ctrl-C again, or Ctrl-D, ends the conversation.")
            continue
        except UnicodeDecodeError as error:
            say(f"Not sent: the line is not valid {error.encoding} text, which is the encoding of this terminal.")
            continue
        was_interrupted = False
        yield line


def _quoted(line: str) -> str:
    """A message of several lines, up to the one that ends with three quotes."""
    lines = [line]
    while not lines[-1].endswith(QUOTES):
        lines.append(_read(MORE))
    return "\n".join(lines).removesuffix(QUOTES).strip("\n")


def _read(prompt: str) -> str:
    """A line from the terminal. The prompt goes to it even where stdout does not.

    Raises:
        EOFError: Ctrl-D.
    """
    if sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")
