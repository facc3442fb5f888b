"""Flipped bits, truncations and swapped files: damage that would change a run is detected before its first step."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torture.runs import FINETUNED, prepare_folder, run_arguments, start
from torture.workers import run_trials

SETTINGS = [
    "train.steps=40",
    "train.eval_every=0",
    "train.sample_every=0",
    "train.save_every=15",
    "checkpoint.keep=3",
]
"""Leaves checkpoints 15, 30 and 40; the last one is removed, so that the run can be resumed."""


class Reached(Exception):
    """The run reached its first step; `meaning` is a digest of its whole state."""

    def __init__(self, meaning: str, step: int) -> None:
        super().__init__(meaning)
        self.meaning, self.step = meaning, step


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.text = ""

    def note(self, text: str) -> None:
        self.text += text + "\n"

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None: ...

    def end(self, task: str) -> None: ...


class Victim:
    """A run with two checkpoints, and one with only the newer of them.

    Args:
        folder: that `prepare_folder` filled.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        from acorn.run_folder import RunFolder

        self.base, self.single = folder / f"{kind}-two", folder / f"{kind}-single"
        run = start([*run_arguments(folder, kind, self.base), *SETTINGS], folder / f"{kind}.log")
        assert run.wait() == 0, run.log.read_text()
        files = RunFolder(self.base)
        for part in (files.checkpoint(40), files.final, files.adapter):
            shutil.rmtree(part, ignore_errors=True)
        for path in (files.loss_picture, files.report, files.evaluation, files.predictions, files.confusion):
            path.unlink(missing_ok=True)
        shutil.copytree(self.base, self.single)
        shutil.rmtree(RunFolder(self.single).checkpoint(15))


def files_of(run: Path) -> list[Path]:
    """The files that a resumed run may read."""
    parts = [run / "config.toml", run / "tokenizer.json", *(run / "data").iterdir()]
    return sorted([*parts, *(run / "checkpoints").glob("step-*/*")])


def resume(out: Path, kind: str) -> tuple[str, str]:
    """Resumes a run of this kind up to its first step.

    Returns:
        the digest of its state ("" if it was refused), and its messages.

    Raises:
        RuntimeError: it ended otherwise than by a refusal with exit code 3 or 4.
    """
    from acorn.errors import AcornError
    from acorn.run.finetune import finetune
    from acorn.run.pretrain import pretrain

    notes = Notes()
    try:
        (finetune if kind in FINETUNED else pretrain)(None, out, resume=True, progress=notes)
    except Reached as reached:
        return reached.meaning, notes.text
    except AcornError as error:
        if error.exit_code not in (3, 4) or not (error.what and error.where):
            raise RuntimeError(f"exit code {error.exit_code}: {error}") from error
        return "", f"{notes.text}{error}"
    raise RuntimeError("the run ended without a step")


def stop_at_the_first_step() -> None:
    """Replaces training by a digest of the state, and skips what only takes time."""
    import torch

    from acorn.run import environment, lifecycle
    from acorn.run.peak import Peak
    from acorn.train import loop

    torch.set_num_threads(1)

    def meaning(self: Any) -> None:
        digest = hashlib.sha256(_meaning_of_data(self.data))
        for name, parameter in self.network.model.named_parameters():
            digest.update(name.encode() + parameter.detach().numpy().tobytes())
        for optimizer in self.network.optimizers:
            for state in optimizer.state.values():
                for key in sorted(state):
                    digest.update(key.encode() + state[key].numpy().tobytes())
        config = self.config.model_dump_json()
        digest.update(f"{self.counters}{config}{self.data.tokenizer.to_json()}{self.setup.resolved}".encode())
        raise Reached(digest.hexdigest(), self.counters.step)

    loop.Loop.train = meaning  # type: ignore[method-assign]
    lifecycle.machine_peak = lambda runtime: Peak(1e9, "nothing")
    environment._git_revision = lambda: None


def _meaning_of_data(data: Any) -> bytes:
    """Everything that a run reads of its text or examples."""
    from acorn.train.examples import Examples

    if not isinstance(data, Examples):
        shards = data.text.shards
        return b"".join(shards.tokens(n)[:].tobytes() + repr(shards.count(n)).encode() for n in shards.splits)
    tokens = [
        part.tobytes()
        for side in data.sides.values()
        for example in side.tokens
        for part in (example.ids, example.rows, example.values)
    ]
    examples = repr([side.examples for side in data.sides.values()])
    return b"".join(tokens) + f"{examples}{data.task.labels}{data.task.end_ids}".encode()


def corrupt(draw: random.Random, files: list[Path]) -> tuple[str, Path]:
    """Damages one file, or swaps two. Returns the kind of damage, and the (first) file."""
    path = draw.choice(files)
    content = bytearray(path.read_bytes())
    how = draw.choice(("flip", "flip", "flip", "truncate", "swap"))
    if how == "flip":
        place = draw.randrange(len(content) * 8)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[: draw.choice((0, len(content) - 1, draw.randrange(len(content))))])
    else:
        others = [file for file in files if file.read_bytes() != content]
        other = draw.choice([file for file in others if file.suffix == path.suffix] or others)
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    return how, path


def means_the_same(path: Path, before: bytes) -> bool:
    """Whether a text file has the same meaning: an additional space in JSON does not change it."""
    now = path.read_bytes()
    try:
        if path.suffix == ".json":
            return bool(json.loads(now) == json.loads(before))
        if path.suffix == ".toml":
            return tomllib.loads(now.decode()) == tomllib.loads(before.decode())
    except ValueError:
        return False
    return now == before


def corruptions(folder: Path, trials: int, kinds: Sequence[str] = ("plain",), seed: int = 0) -> dict[str, Any]:
    """`trials` damages, each to a new copy of a run; the kinds of runs take turns.

    Returns:
        counts by kind and by what came of it, and what was broken: a change of meaning that nobody noticed, or a
        refusal that does not name the file.
    """
    shutil.rmtree(folder, ignore_errors=True)
    prepare_folder(folder, kinds)
    victims = [Victim(folder, kind) for kind in kinds]

    def trial(number: int) -> dict[str, Any]:
        from acorn.checkpoint.integrity import verify_run

        _once(stop_at_the_first_step)
        draw = random.Random(f"{seed}:{number}")
        place = number // 2 % len(kinds)
        kind, victim = kinds[place], victims[place]
        base = victim.base if number % 2 else victim.single
        out = folder / f"copy-{os.getpid()}"
        wanted, older = _expected(base, kind, out)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(base, out)
        before = {file: file.read_bytes() for file in files_of(out)}
        how, path = corrupt(draw, list(before))
        damaged = [file for file, content in before.items() if file.read_bytes() != content]
        changed = [file for file in damaged if not means_the_same(file, before[file])]
        checks = {fault for check in verify_run(out) for fault in check.faults}
        got, said = resume(out, kind)
        named = any(file.name in said for file in damaged)
        if not got:
            come, fine = "refused", named
        elif got == wanted and not changed:
            come, fine = "same meaning", True
        elif got == wanted:  # in an older checkpoint, which this resume does not read
            come, fine = "found by verify", any(str(file) in fault for fault in checks for file in changed)
        else:
            come, fine = "older checkpoint", got == older and named
        outcome = {"number": number, "kind": kind, "how": how, "file": path.name, "come": come, "fine": fine}
        return outcome if fine else {**outcome, "said": said}

    outcomes = run_trials(trial, list(range(trials)), folder / "outcomes", "corruption")
    return {
        "trials": trials,
        "by_damage": dict(Counter(outcome.get("how", "error") for outcome in outcomes)),
        "by_outcome": dict(Counter(outcome.get("come", "error") for outcome in outcomes)),
        "by_file": dict(Counter(outcome.get("file", "error") for outcome in outcomes)),
        "broken": [outcome for outcome in outcomes if not outcome.get("fine")],
    }


_meanings: dict[Path, tuple[str, str]] = {}
_done: set[Any] = set()


def _once(action: Any) -> None:
    if action not in _done:
        _done.add(action)
        action()


def _expected(base: Path, kind: str, out: Path) -> tuple[str, str]:
    """The state of an undamaged run when resumed, and that of its older checkpoint ("": there is none)."""
    if base not in _meanings:
        found = []
        for without in ((), (30,)):
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(base, out)
            for step in without:
                shutil.rmtree(out / "checkpoints" / f"step-{step:08d}")
            has_any = any((out / "checkpoints").glob("step-*"))
            found.append(resume(out, kind)[0] if has_any else "")
        _meanings[base] = (found[0], found[1])
    return _meanings[base]
