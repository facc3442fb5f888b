"""Power loss: the possible contents of a disk afterwards, and whether acorn finds everything that it reported as saved.

After each recorded operation, the disk holds what was flushed and any part of the rest: data lost, complete or torn at
4 KiB; names old or new, in any order. Pillai et al. 2014 and the tests of SQLite test databases in this way.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from torture.recorder import ROOT, Flush, Operation, Recorder, Rename, Told, Write

PAGE = 4096
MUTATIONS = ("file flush", "folder flush", "rename")

Names = Callable[[random.Random, list[Rename]], list[Rename]]
Data = Callable[[random.Random, bytes | None, list[bytes]], bytes | None]


@dataclass
class Disk:
    """What is certainly on the disk, and what is not flushed yet."""

    names: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    contents: dict[int, bytes] = field(default_factory=dict)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    waiting_names: dict[int, list[Rename]] = field(default_factory=dict)
    waiting_data: dict[int, list[bytes]] = field(default_factory=dict)

    def take(self, operation: Operation) -> None:
        if isinstance(operation, Write):
            self.waiting_data.setdefault(operation.file, []).append(operation.content)
        elif isinstance(operation, Rename):
            self.waiting_names.setdefault(operation.folder, []).append(operation)
            if operation.is_folder:
                self.folders.add(operation.entry)
        elif isinstance(operation, Flush):
            if operation.entry in self.folders:
                _apply(self.names.setdefault(operation.entry, {}), self.waiting_names.pop(operation.entry, []))
            elif written := self.waiting_data.pop(operation.entry, []):
                self.contents[operation.entry] = written[-1]

    def after_power_loss(self, draw: random.Random, names: Names, data: Data, target: Path) -> None:
        """Creates in `target` a tree that the disk may hold now."""

        def build(folder: int, path: Path) -> None:
            path.mkdir(parents=True)
            entries = dict(self.names.get(folder, {}))
            _apply(entries, names(draw, self.waiting_names.get(folder, [])))
            for name, entry in entries.items():
                if entry in self.folders:
                    if not (path / name).exists():
                        build(entry, path / name)
                    continue
                content = data(draw, self.contents.get(entry), self.waiting_data.get(entry, []))
                (path / name).write_bytes(content or b"")

        build(ROOT, target)


def _apply(entries: dict[str, int], operations: list[Rename]) -> None:
    for operation in operations:
        if operation.source is not None and entries.get(operation.source) == operation.entry:
            del entries[operation.source]
        if operation.target is not None:
            entries[operation.target] = operation.entry


def _all(draw: random.Random, waiting: list[Any]) -> list[Any]:
    return waiting


def _none(draw: random.Random, waiting: list[Any]) -> list[Any]:
    return []


def _first_some(draw: random.Random, waiting: list[Any]) -> list[Any]:
    return waiting[: draw.randint(0, len(waiting))]


def _some(draw: random.Random, waiting: list[Any]) -> list[Any]:
    """Any of them: the disk may write in any order."""
    return [operation for operation in waiting if draw.random() < 0.5]


def _newest(draw: random.Random, old: bytes | None, waiting: list[bytes]) -> bytes | None:
    return waiting[-1] if waiting else old


def _dropped(draw: random.Random, old: bytes | None, waiting: list[bytes]) -> bytes | None:
    return old


def _torn(draw: random.Random, old: bytes | None, waiting: list[bytes]) -> bytes | None:
    """Some pages are new, others are old or zero; the end may be missing, but not of the old content."""
    if not waiting:
        return old
    new, before = waiting[-1], old or b""
    pages = []
    for start in range(0, len(new), PAGE):
        page = new[start : start + PAGE]
        pages.append(page if draw.random() < 0.5 else before[start : start + PAGE].ljust(len(page), b"\0"))
    least = -(-len(before) // PAGE)
    return b"".join(pages[: draw.randint(min(least, len(pages)), len(pages))] if draw.random() < 0.5 else pages)


def _any(draw: random.Random, old: bytes | None, waiting: list[bytes]) -> bytes | None:
    return draw.choice((_newest, _dropped, _torn))(draw, old, waiting)


WAYS: dict[str, tuple[Names, Data]] = {
    "nothing unsynced": (_none, _dropped),
    "everything": (_all, _newest),
    "names, no data": (_all, _dropped),
    "data, no names": (_none, _newest),
    "torn data": (_all, _torn),
    "names in order": (_first_some, _any),
    "any names": (_some, _any),
    "any names again": (_some, _any),
    "any names once more": (_some, _any),
}


def record(root: Path, mutation: str = "") -> Recorder:
    """The operations of a run, and what it was told or told its user is saved.

    Checkpoints are saved, saved again and rotated, best.json is replaced, a model folder written and replaced, metrics
    appended.

    Args:
        mutation: one of `MUTATIONS`, taken out of the writer; the checks have to notice.
    """
    import torch

    from acorn import files, folders
    from acorn.checkpoint import rotation
    from acorn.checkpoint.model_folder import write_model_folder
    from acorn.checkpoint.rotation import rotate_checkpoints
    from acorn.checkpoint.training_state import Counters, save_checkpoint
    from acorn.config import Config, ModelConfig
    from acorn.files import write_sealed_json
    from acorn.model.gpt import GPT
    from acorn.report import metrics_log
    from acorn.report.metrics_log import JsonLines
    from acorn.run_folder import RunFolder
    from acorn.tokenizer.training import train

    tokenizer = train(lambda: ["a small text of a few words"], "bpe", 280)
    shape = ModelConfig(n_layer=1, n_embd=16, n_head=2, block_size=16, vocab_size=tokenizer.vocab_size)
    root.mkdir(parents=True)
    run, recorder = RunFolder(root), Recorder(root)
    with ExitStack() as stack:
        if mutation == "rename":
            stack.enter_context(mock.patch.object(os, "replace", _copy_in_place))
        stack.enter_context(recorder.recording())
        for module in (files, folders, rotation, metrics_log):
            for name, value in _without(mutation, files).items():
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, value))
        metrics = JsonLines(run.metrics)
        for step in (1, 2, 2, 3, 4):
            model = GPT(shape)
            model.init_weights(step + len(recorder.operations))
            optimizer = torch.optim.AdamW(model.parameters())
            metrics.write({"step": step, "split": "train", "loss": 1.0 + len(recorder.operations)})
            metrics.sync()
            counters = Counters(step=step, metrics_bytes=metrics.length)
            recorder.tell(f"trying step {step}", _digest_of_weights(dict(model.named_parameters())))
            save_checkpoint(
                run.checkpoint(step), Config(model=shape), tokenizer.to_json(), model, [optimizer], counters, {}
            )
            recorder.tell(f"step {step}", _digest_of_weights(dict(model.named_parameters())))
            recorder.tell("trying best.json", {"step": step, "loss": 1.0})
            write_sealed_json(run.best, {"step": step, "loss": 1.0})
            recorder.tell("best.json", {"step": step, "loss": 1.0})
            rotate_checkpoints(run, step, keep=1, also={1 if step < 3 else 3})
            if step != 1:
                recorder.tell("trying final", f"card {step}-{len(recorder.operations)}")
                card = recorder.operations[-1].content  # type: ignore[union-attr]
                write_model_folder(run.final, model, tokenizer, card)
                recorder.tell("final", card)
        metrics.close()
    return recorder


def _without(mutation: str, files: Any) -> dict[str, Any]:
    """Replacements in `acorn.files` that remove a guarantee."""
    if mutation == "folder flush":
        return {"sync_folder": _nothing}
    if mutation == "file flush":
        flush = files.sync_file
        return {"sync_file": lambda descriptor: flush(descriptor) if _is_folder(descriptor) else None}
    return {}


def _nothing(path: Any) -> None:
    pass


def _is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def _copy_in_place(source: Any, target: Any) -> None:
    """What a rename must not be: the content appears gradually under the final name."""
    if Path(source).is_dir():
        shutil.copytree(source, target)
        shutil.rmtree(source)
    else:
        shutil.copyfile(source, target)
        os.unlink(source)


def check(operations: list[Operation], folder: Path, seed: int = 0, every: int = 1) -> dict[str, Any]:
    """Recreates possible contents of the disk after each operation, lets acorn recover, and checks what it had
    promised.

    Args:
        folder: scratch space; emptied.
        every: looks only at every so-manieth prefix, each time in all `WAYS`.

    Returns:
        states, distinct states, and one line for each promise that was broken.
    """
    shutil.rmtree(folder, ignore_errors=True)
    disk, promised = Disk(), Promised()
    states, promises = 0, 0
    broken: list[str] = []
    seen: set[tuple[int, int]] = set()
    for number, operation in enumerate(operations):
        disk.take(operation)
        if isinstance(operation, Told):
            promised.take(operation)
            promises += 1
        if number % every and number != len(operations) - 1:
            continue
        for way, (names, data) in WAYS.items():
            target = folder / "state" / "run"
            disk.after_power_loss(random.Random(f"{seed}:{number}:{way}"), names, data, target)
            states += 1
            state = (promises, _tree_hash(target))
            if state not in seen:  # the same contents with the same promises were checked before
                seen.add(state)
                broken += [f"after operation {number} ({way}): {fault}" for fault in promised.faults(target)]
            shutil.rmtree(folder / "state")
    return {"operations": len(operations), "states": states, "distinct": len(seen), "broken": broken}


@dataclass
class Promised:
    """What the program was told is saved, and what it is currently saving."""

    steps: dict[int, set[str]] = field(default_factory=dict)
    trying: dict[int, set[str]] = field(default_factory=dict)
    last_step: int = 0
    known: dict[str, Any] = field(default_factory=dict)
    maybe: dict[str, Any] = field(default_factory=dict)

    def take(self, told: Told) -> None:
        kind, _, step = told.what.rpartition(" ")
        if kind == "step":
            self.last_step = int(step)
            self.steps[int(step)] = {told.content}
            self.trying.pop(int(step), None)
        elif kind == "trying step":
            self.trying[int(step)] = {told.content}
        elif kind == "trying":
            self.maybe[step] = told.content
        else:
            self.known[told.what] = told.content
            self.maybe.pop(told.what, None)

    def faults(self, root: Path) -> list[str]:
        """What acorn, started again in `root`, has lost, or considers intact although it is not."""
        from acorn.checkpoint.integrity import checkpoint_faults, newest_whole_checkpoint, readable_checkpoints
        from acorn.checkpoint.model_folder import read_model_folder
        from acorn.checkpoint.training_state import read_checkpoint
        from acorn.errors import AcornError
        from acorn.files import read_sealed_json
        from acorn.folders import readable, settle
        from acorn.run.start import clear_leftovers
        from acorn.run_folder import RunFolder

        run = RunFolder(root)
        try:
            before = newest_whole_checkpoint(run)  # as a reader sees it, which changes nothing
            clear_leftovers(run)
            settle(run.final)
            newest = newest_whole_checkpoint(run)
            faults = []
            if (before is None) != (newest is None):
                faults.append("a reader and a writer see different checkpoints")
            if self.last_step and newest is None:
                return [f"the checkpoint of step {self.last_step} is lost"]
            for step, path in readable_checkpoints(run).items():
                if checkpoint_faults(path):
                    continue
                saved = self.steps.get(step, set()) | self.trying.get(step, set())
                checkpoint = read_checkpoint(path)
                if _digest_of_weights(checkpoint.weights) not in saved:
                    faults.append(f"step {step} is considered intact but is not what was saved")
                if path == newest and step < self.last_step:
                    faults.append(f"step {self.last_step} is lost: the newest is {step}")
                lines = (run.metrics.read_bytes() if run.metrics.exists() else b"")[: checkpoint.counters.metrics_bytes]
                if len(lines) < checkpoint.counters.metrics_bytes or not _are_json(lines):
                    faults.append(f"metrics.jsonl is shorter than the checkpoint of step {step} says")
            if "final" in self.known:
                folder = readable(run.final)
                read_model_folder(folder)
                if (folder / "README.md").read_text() not in (self.known["final"], self.maybe.get("final")):
                    faults.append("final/ is neither the old nor the new one")
            if "best.json" in self.known and read_sealed_json(run.best) not in (
                self.known["best.json"],
                self.maybe.get("best.json"),
            ):
                faults.append("best.json is neither the old nor the new one")
        except (AcornError, OSError) as error:
            return [f"{type(error).__name__}: {error}"]
        return faults


def _digest_of_weights(weights: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def _are_json(lines: bytes) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in lines.splitlines())
    except ValueError:
        return False


def _tree_hash(root: Path) -> int:
    found = ((str(path.relative_to(root)), path.read_bytes() if path.is_file() else b"") for path in root.rglob("*"))
    return hash(tuple(sorted(found)))
