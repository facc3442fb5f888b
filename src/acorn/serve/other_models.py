"""Models beside the one that is served: checkpoints of its run, and other runs that the server was started with."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from acorn.checkpoint.integrity import readable_checkpoints
from acorn.checkpoint.load import LoadedModel, load
from acorn.errors import UsageError, shown
from acorn.folders import readable
from acorn.model.int8 import round_to_int8
from acorn.run_folder import MODEL_CONFIG, RunFolder

KEPT_MODELS = 2
"""Other models that stay in memory: the two that are compared."""


class OtherModels:
    """Loads models in a worker thread, one at a time, and keeps the newest ones.

    Args:
        runs: name -> run or model folder. A request names one; paths from requests are never opened.
    """

    def __init__(self, runs: Mapping[str, Path], device: str, *, int8: bool = False) -> None:
        self.runs, self._device, self._int8 = runs, device, int8
        self._kept: OrderedDict[tuple[str, str, int], LoadedModel] = OrderedDict()
        self._lock = asyncio.Lock()

    def folder(self, run: str) -> RunFolder:
        """Raises:
        UsageError: the server was not started with a run of that name.
        """
        if run not in self.runs:
            raise UsageError(
                f"There is no run {shown(run)} here.", where="run", fix=f"choose one of {', '.join(self.runs)}"
            )
        return RunFolder(self.runs[run])

    def checkpoints(self, run: str) -> list[str]:
        """What can be loaded of a run: the steps of its checkpoints, oldest first, then `final` if it is finished."""
        folder = self.folder(run)
        if _is_model(folder):
            return ["final"]
        steps = [str(step) for step in readable_checkpoints(folder)]
        return [*steps, "final"] if readable(folder.final).is_dir() else steps

    async def get(self, run: str, checkpoint: str) -> LoadedModel:
        """The model of a checkpoint: `final`, `last`, `best` or a step.

        Raises:
            AcornError: see `load`.
        """
        folder = self.folder(run)
        async with self._lock:
            return await asyncio.to_thread(self._load, run, folder, checkpoint)

    def _load(self, run: str, folder: RunFolder, checkpoint: str) -> LoadedModel:
        key = (run, checkpoint, self._version(folder, checkpoint))
        if checkpoint not in ("last", "best") and key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        while len(self._kept) >= KEPT_MODELS:
            self._kept.popitem(last=False)
        loaded = (
            load(_final(folder), None, self._device)
            if checkpoint == "final"
            else load(folder.root, checkpoint, self._device)
        )
        loaded.require_language_model("it does not predict text")
        if self._int8:
            round_to_int8(loaded.model)
        self._kept[key] = loaded
        return loaded

    def version(self, run: str, checkpoint: str) -> int:
        """Changes when a checkpoint is replaced by another one of the same step; 0: there is none."""
        return self._version(self.folder(run), checkpoint)

    def _version(self, folder: RunFolder, checkpoint: str) -> int:
        path = _final(folder) if checkpoint == "final" else None
        if checkpoint.isascii() and checkpoint.isdecimal() and len(checkpoint) < 12:
            path = folder.checkpoint(int(checkpoint))
        try:
            return (readable(path) / "manifest.json").stat().st_mtime_ns if path else 0
        except OSError:
            return 0


def _is_model(folder: RunFolder) -> bool:
    """Whether it is a model folder, which has no checkpoints."""
    return (folder.root / MODEL_CONFIG).is_file()


def _final(folder: RunFolder) -> Path:
    return folder.root if _is_model(folder) else readable(folder.final)
