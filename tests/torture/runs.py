"""A small run for these tests: its config, its start in a separate process, and the outcome that must be equal.

Runs are forked from a process that has imported everything and computed nothing, so that they start quickly. Otherwise
they use the command line: arguments in, exit code and messages out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLOCK = ("seconds", "tokens_per_second", "mfu")
"""Fields of metrics.jsonl that depend on the clock."""

CLOCK_COUNTERS = ("seconds", "train_seconds", "metrics_bytes")
"""Counters that depend on the clock: metrics.jsonl contains seconds, so its length does too."""

HANGS_AFTER = 900.0
"""Seconds; a run takes ten, or many times as long on a busy machine."""

PRETRAINED = ("plain", "diverging", "plain", "compiled")
"""Kinds of pretraining runs, as trials take turns: a quarter is compiled, a quarter rolls back."""

FINETUNED = ("chat", "classify", "lora")
"""Kinds of finetuning runs, as trials take turns. `lora` learns chat with adapters. They start from the run `base`."""

ROLLING_BACK = ("diverging", "classify")
"""Kinds whose gradients are not finite at certain steps."""

PHASES = ("text", "steps", "evaluation", "sampling", "save", "rotation", "final evaluation", "final/", "report")
EVERY_RUN = [
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "train.eval_every=25",
    "train.eval_tokens=500",
    "train.save_every=10",
    "train.sample_every=50",
    "train.sample_tokens=8",
    "train.threads=1",
    "train.max_skips=2",
]
SETTINGS = [
    *EVERY_RUN,
    "train.steps=200",
    "tokenizer.vocab_size=300",
    "model.n_layer=1",
    "model.n_embd=32",
    "model.block_size=32",
    "model.dropout=0.1",
]
KIND_SETTINGS = {
    "plain": ["train.compile=false", "train.precision=fp32"],
    "diverging": ["train.compile=false", "train.precision=fp32"],
    "compiled": ["train.compile=true", "train.precision=bf16", "train.micro_batch_size=4"],
    "base": ["train.compile=false", "train.precision=fp32", "train.steps=10", "model.block_size=64"],
    "chat": ["train.steps=130", "model.dropout=0.1"],
    "classify": ["train.steps=130", "model.dropout=0.1"],
    "lora": ["train.steps=130", "lora.rank=2", "lora.dropout=0.1"],
}
WORDS = "the cat dog bird saw ate found a small red old house tree and then it slept again"


def prepare_folder(folder: Path, kinds: Sequence[str] = PRETRAINED) -> None:
    """Writes what runs of these kinds need: a text of about 30 KB and configs; or a base model and examples."""
    from acorn.config_files import load_config, to_toml

    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS.split(), k=draw.randint(4, 12))) + "." for _ in range(800)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    for kind in (*dict.fromkeys(PRETRAINED), "base"):
        config = load_config("small", [f"data.source={folder / 'text.txt'}", *SETTINGS, *KIND_SETTINGS[kind]])
        (folder / f"{kind}.toml").write_text(to_toml(config))
    if set(FINETUNED).isdisjoint(kinds):
        return
    for name, rows in (("chat", _chat_rows(draw)), ("classify", _labeled_rows(draw))):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    base = start(run_arguments(folder, "base", folder / "base"), folder / "base.log")
    assert base.wait() == 0, base.log.read_text()


def _chat_rows(draw: random.Random) -> list[dict[str, Any]]:
    """120 conversations of one or two questions, each answered with its last word."""
    rows = []
    for number in range(120):
        messages = []
        for word in draw.choices(WORDS.split(), k=draw.randint(1, 2)):
            messages.append({"role": "user", "content": f"{number} a {word}"})
            messages.append({"role": "assistant", "content": word})
        rows.append({"messages": messages})
    return rows


def _labeled_rows(draw: random.Random) -> list[dict[str, Any]]:
    """120 texts of 2 to 9 words, labelled by whether a cat is among them."""
    texts = [draw.choices(WORDS.split(), k=draw.randint(1, 8)) for _ in range(120)]
    return [
        {"text": f"{' '.join(words)} {number}", "label": "cat" if "cat" in words else "other"}
        for number, words in enumerate(texts)
    ]


class Phase:
    """What a run is doing, in memory shared with the watching process."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 + 4 * len(PHASES))

    def __str__(self) -> str:
        return PHASES[self._memory[0]]

    def entered(self, phase: str) -> int:
        """The number of times that a phase was entered."""
        place = 1 + 4 * PHASES.index(phase)
        return int.from_bytes(self._memory[place : place + 4], "little")

    @contextlib.contextmanager
    def inside(self, phase: str) -> Iterator[None]:
        code, before = PHASES.index(phase), self._memory[0]
        place = 1 + 4 * code
        self._memory[place : place + 4] = (self.entered(phase) + 1).to_bytes(4, "little")
        self._memory[0] = code
        try:
            yield
        finally:
            self._memory[0] = before

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Makes a function record its phase while it runs."""
        function = getattr(owner, name)

        def told(*arguments: Any, **options: Any) -> Any:
            with self.inside(phase):
                return function(*arguments, **options)

        setattr(owner, name, told)


@dataclass
class Started:
    """A run in a separate process. `log`: the file of its output."""

    process: int
    log: Path
    phase: Phase
    began: float
    code: int | None = None

    def poll(self) -> int | None:
        """Exit code (negative: the signal that ended it), or None while it runs."""
        if self.code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, limit: float = HANGS_AFTER) -> int:
        """Waits for the end.

        Raises:
            TimeoutError: it did not come within `limit` seconds.
        """
        while self.poll() is None:
            if time.monotonic() - self.began > limit:
                os.kill(self.process, 9)
                os.waitpid(self.process, 0)
                raise TimeoutError(f"process {self.process} hung in {self.phase}: {self.log.read_text()[-2000:]}")
            time.sleep(0.001)
        assert self.code is not None
        return self.code

    def send(self, number: int) -> bool:
        """Sends a signal; False if the process had ended."""
        if self.poll() is not None:
            return False
        os.kill(self.process, number)
        return True


def import_everything() -> None:
    """Imports what a run needs, so that forked runs start faster. Computes nothing: threads do not survive a fork."""
    for name in (
        "acorn.cli.main",
        "acorn.report.terminal",
        "acorn.run.finetune",
        "acorn.run.pretrain",
        "matplotlib.pyplot",
        "sklearn.feature_extraction.text",
        "sklearn.linear_model",
        "torch._dynamo",
        "torch._inductor.compile_fx",
    ):
        importlib.import_module(name)


def start(
    arguments: list[str], log: Path, kind: str | None = "plain", prepare: Callable[[], None] | None = None
) -> Started:
    """Starts the command line in a forked process.

    Args:
        kind: of the run; one of `ROLLING_BACK` has gradients that are not finite. None: the command is no run, and has
            no phases.
        prepare: called in the new process before the command.
    """
    phase = Phase()
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    process = os.fork()
    if process:
        return Started(process, log, phase, began)
    code = 99
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it by default
        if kind:
            _watch(phase)
        if kind in ROLLING_BACK:
            _poison_gradients()
        if prepare:
            prepare()
        sys.argv = ["acorn", *arguments]
        from acorn.cli.main import main

        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 98
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_arguments(folder: Path, kind: str, out: Path) -> list[str]:
    """The command that starts or resumes a run of this kind, in a folder that `prepare_folder` filled."""
    if kind not in FINETUNED:
        return ["pretrain", str(folder / f"{kind}.toml"), "--resume", "--out", str(out)]
    rows = folder / ("classify.jsonl" if kind == "classify" else "chat.jsonl")
    exact = ["train.precision=fp32", "train.compile=false"]
    settings = [*EVERY_RUN, *exact, *KIND_SETTINGS[kind]]
    return ["finetune", str(folder / "base"), *settings, "--data", str(rows), "--resume", "--out", str(out)]


def _watch(phase: Phase) -> None:
    """Wraps the functions of each phase, and skips measuring the machine's peak."""
    from acorn.run import ending, finetuned_ending, finish, lifecycle
    from acorn.run.peak import Peak
    from acorn.train import loop, saving

    phase.wrap(loop.Loop, "train", "steps")
    phase.wrap(loop.Loop, "_validate", "evaluation")
    phase.wrap(loop.Loop, "_sample", "sampling")
    phase.wrap(saving, "save_checkpoint", "save")
    phase.wrap(saving, "rotate_checkpoints", "rotation")
    phase.wrap(lifecycle, "finish_run", "final evaluation")
    phase.wrap(ending.PretrainingEnding, "write", "final/")
    phase.wrap(finetuned_ending.FinetuningEnding, "write", "final/")
    phase.wrap(finish, "write_loss_picture", "report")
    phase.wrap(finish, "write_report", "report")
    lifecycle.machine_peak = lambda runtime: Peak(1e9, "nothing")


def _poison_gradients() -> None:
    """Causes one skipped step, then consecutive ones that roll back to a checkpoint; then both again."""
    from acorn.train import loop

    train_step = loop.train_step

    def poisoned(model: Any, forward_backward: Any, *arguments: Any, counters: Any, **options: Any) -> Any:
        step, rollbacks = counters.step, counters.rollbacks
        bad = step == 36 or (rollbacks == 0 and 63 <= step < 66)
        bad = bad or (rollbacks == 1 and (step == 90 or 120 <= step < 124))

        def bad_forward_backward(micro_batch: Any, factor: float) -> Any:
            loss = forward_backward(micro_batch, factor)
            trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
            trained[step % len(trained)].grad.mul_(float("nan" if step % 2 else "inf"))
            return loss

        return train_step(
            model, bad_forward_backward if bad else forward_backward, *arguments, counters=counters, **options
        )

    loop.train_step = poisoned


def outcome_of(out: Path) -> dict[str, Any]:
    """Everything that must be equal in two equal runs, as digests by name."""
    from acorn.files import read_sealed_json
    from acorn.report.metrics_log import read_metrics
    from acorn.run_folder import RunFolder

    run = RunFolder(out)
    newest = run.checkpoint(run.checkpoint_steps()[-1])
    state = json.loads((newest / "state.json").read_text())
    for name in CLOCK_COUNTERS:
        state["counters"].pop(name)
    metrics = [{k: v for k, v in record.items() if k not in CLOCK} for record in read_metrics(run.metrics)]
    found: dict[str, Any] = {
        "checkpoints": run.checkpoint_steps(),
        "best.json": read_sealed_json(run.best),
        "state.json": state,
        "metrics.jsonl": _digest(json.dumps(metrics).encode()),
        "evaluation.json": read_sealed_json(run.evaluation),
        "leftovers": sorted(p.name for p in out.rglob("*") if p.name.endswith((".tmp", ".new", ".old"))),
    }
    beside = (run.samples, run.tokenizer, run.config, run.predictions, run.confusion)
    found |= {path.name: _digest(path.read_bytes()) for path in beside if path.exists()}
    tensors = ("model.safetensors", "optimizer.safetensors")
    files = [newest / name for name in (*tensors, "config.toml")]
    files += [path for part in (run.final, run.adapter, run.data) if part.exists() for path in part.iterdir()]
    found |= {f"{path.parent.name}/{path.name}": _digest(path.read_bytes()) for path in files}
    return found


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
