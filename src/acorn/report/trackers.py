"""Sends the metrics to TensorBoard, Weights & Biases or Trackio.

metrics.jsonl is the record; trackers are a convenience. If a tracker fails (no network, no login, a full disk), this is
reported once, it gets no more metrics, and training continues.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from acorn.errors import MissingPackageError

PROJECT = "acorn"


class Tracker(Protocol):
    """A service or format that metrics are sent to."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """All trackers of a run. Neither method raises."""

    def __init__(self, trackers: dict[str, Tracker], note: Callable[[str], None]) -> None:
        self._trackers = dict(trackers)
        self._note = note

    def log(self, step: int, split: str, record: Mapping[str, Any]) -> None:
        """Sends the numeric fields of a metrics record, each as `<split>/<field>`."""
        values = {
            f"{split}/{key}": float(value)
            for key, value in record.items()
            if isinstance(value, int | float) and key != "step"
        }
        for name, tracker in list(self._trackers.items()):
            self._try(name, functools.partial(tracker.log, step, values))

    def close(self) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.close)
        self._trackers.clear()

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Trackio prints; stdout is for results
                call()
        except Exception as error:  # third-party code: no error of it may stop training
            del self._trackers[name]
            self._note(_failure(name, error))


def check_packages(names: Sequence[str]) -> None:
    """Imports the packages that the named trackers need, without starting any of them.

    Raises:
        MissingPackageError: a tracker's package is not installed.
    """
    for name in names:
        _IMPORTS[name]()


def open_trackers(
    names: Sequence[str], run_name: str, folder: Path, config: dict[str, Any], note: Callable[[str], None]
) -> Trackers:
    """Opens the trackers named in `report.trackers`.

    Args:
        names: any of `tensorboard`, `wandb`, `trackio`.
        run_name: shown in the tracker's list of runs.
        folder: the run folder; TensorBoard's files go to `tensorboard/` in it, those of wandb to `wandb/`.
        config: wandb and Trackio show it beside the curves.
        note: called once for each tracker that fails.

    Raises:
        MissingPackageError: a tracker's package is not installed.
    """
    # All packages first: a missing one is found before any tracker has started anything.
    packages = {name: _IMPORTS[name]() for name in names}
    trackers: dict[str, Tracker] = {}
    for name, package in packages.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                trackers[name] = _KINDS[name](package, run_name, folder, config)
        except Exception as error:  # third-party code, as in Trackers
            note(_failure(name, error))
    return Trackers(trackers, note)


class TensorBoard:
    """Event files, written by the tensorboard package's own writer, which needs neither TensorFlow nor torch."""

    def __init__(self, summary: Any, run_name: str, folder: Path, config: dict[str, Any]) -> None:
        self._writer = summary.Writer(str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A Weights & Biases run."""

    def __init__(self, wandb: Any, run_name: str, folder: Path, config: dict[str, Any]) -> None:
        self._run = wandb.init(project=PROJECT, name=run_name, dir=str(folder), config=config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A Trackio run; it keeps its files in its own cache folder."""

    def __init__(self, trackio: Any, run_name: str, folder: Path, config: dict[str, Any]) -> None:
        self._trackio = trackio
        trackio.init(project=PROJECT, name=run_name, config=config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


def _import_tensorboard() -> Any:
    try:
        import tensorboard.summary
    except ImportError:
        raise MissingPackageError("tensorboard", "tensorboard", purpose="The tracker tensorboard") from None
    return tensorboard.summary


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise MissingPackageError("wandb", "wandb", purpose="The tracker wandb") from None
    return wandb


def _import_trackio() -> Any:
    try:
        import trackio
    except ImportError:
        raise MissingPackageError("trackio", "trackio", purpose="The tracker trackio") from None
    return trackio


_IMPORTS: dict[str, Callable[[], Any]] = {
    "tensorboard": _import_tensorboard,
    "wandb": _import_wandb,
    "trackio": _import_trackio,
}
_KINDS: dict[str, Callable[[Any, str, Path, dict[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


def _failure(name: str, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"the tracker {name} failed and gets no more metrics ({reason}); training continues without it"
