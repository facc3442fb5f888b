"""Everything a report says about a run, read from its folder in one place.

What a run does not have, because it is still training or was never validated, is empty here. Files that exist but
cannot be read are named in `problems`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from acorn.config import ModelConfig
from acorn.data.made_from import shards_folder
from acorn.errors import DamageError, UsageError
from acorn.files import check_readable, permission_denied, read_json
from acorn.model.label_head import HeadSpec
from acorn.model.sizing import size_of
from acorn.origin import STARTS_FROM, Base, descent, stored_bases
from acorn.report.curves import RunCurves
from acorn.report.finetuned_section import read_predictions
from acorn.report.metrics_log import read_metrics, read_samples
from acorn.run_folder import MANIFEST, STATE, RunFolder

Content = TypeVar("Content")

MAX_NESTING = 32
"""Levels of objects and lists in a file that a report shows; acorn's own files have five."""
MAX_INTEGER = 2**63
"""Integers of this size and above do not fit 64 bits with a sign."""


@dataclass(frozen=True)
class RunFacts:
    """What the folder of a run holds.

    Attributes:
        folder: the run folder.
        name: of the folder, which differs between runs of one config.
        config_name: the config's own name; empty where it has none.
        config: section -> key -> value, as in config.toml; the name is left out.
        curves: the records of metrics.jsonl.
        samples: the records of samples.jsonl.
        evaluation: split -> figures, as `acorn evaluate --json` gives them.
        weights_of_step: the step whose weights were evaluated; None if unknown.
        environment: environment.json.
        shards: the manifest of the token shards or the examples.
        finished: whether the final model is there.
        parameters: of the model; None if the config does not determine it.
        problems: a sentence for each file that exists but cannot be read.
        bases: the models that the run started from, nearest first; none for a run from scratch.
        undisturbed: whether the run went as an uninterrupted one would; see `was_undisturbed`.
        predictions: what a finetuned model said of each held-out example.
    """

    folder: Path
    name: str
    config_name: str
    config: Mapping[str, Mapping[str, Any]]
    curves: RunCurves
    samples: list[dict[str, Any]]
    evaluation: Mapping[str, Mapping[str, Any]]
    weights_of_step: int | None
    environment: Mapping[str, Any]
    shards: Mapping[str, Any]
    finished: bool
    parameters: int | None
    problems: list[str] = field(default_factory=list)
    bases: tuple[Base, ...] = ()
    undisturbed: bool = True
    predictions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def task(self) -> str:
        """What the run finetunes a model for; empty: it is trained on text."""
        return str(self.config.get("finetune", {}).get("task", ""))

    @property
    def beginning(self) -> str:
        """Where training started from, within a sentence."""
        return f"trained from the weights of {descent(self.bases)}," if self.bases else "trained from scratch"

    @property
    def last(self) -> Mapping[str, Any]:
        """The last train record; empty before the first."""
        return self.curves.train[-1] if self.curves.train else {}

    def figure(self, split: str, name: str) -> float | None:
        """A figure of the finished model on `split`, else (validation only) the last one of the run."""
        value = self.evaluation.get(split, {}).get(name)
        if value is None and split == "valid" and not self.task:  # the losses of tasks have other units
            in_metrics = "loss" if name == "loss_per_token" else name
            value = next((r[in_metrics] for r in reversed(self.curves.valid) if in_metrics in r), None)
        return float(value) if isinstance(value, int | float) else None

    def counted(self, split: str, name: str) -> int | None:
        """A count of a split ("tokens", "documents", ...) from the manifest of its shards; None without one."""
        splits = self.shards.get("splits")
        entry = splits.get(split) if isinstance(splits, Mapping) else None
        value = entry.get(name) if isinstance(entry, Mapping) else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def typical(self, name: str) -> float | None:
        """Median of a figure over the train records, such as tokens_per_second."""
        values = self.curves.series("train", name, x="step").y
        return float(np.median(values)) if len(values) else None


def read_run(folder: Path) -> RunFacts:
    """Reads the run folder.

    Raises:
        UsageError: `folder` is not a run folder.
        InputError: reading a file of it is not permitted.
    """
    run = RunFolder(folder)
    check_readable(run.root)
    _check_is_run(run)
    problems: list[str] = []
    document: dict[str, Any] = _read(run.config, _read_toml, {}, problems)
    config = {section: values for section, values in document.items() if isinstance(values, dict)}
    name = folder.resolve().name or str(folder)
    evaluation: dict[str, Any] = _read(run.evaluation, _read_object, {}, problems)
    environment: dict[str, Any] = _read(run.environment, _read_object, {}, problems)
    bases = stored_bases(environment, str(config.get("train", {}).get("init_from", "")))
    step = evaluation.get("weights_of_step")
    return RunFacts(
        folder=folder,
        name=name,
        config_name=str(document.get("name") or ""),
        config=config,
        curves=RunCurves.from_metrics(name, _read(run.metrics, read_metrics, [], problems)),
        samples=_read(run.samples, read_samples, [], problems),
        evaluation={split: figures for split, figures in evaluation.items() if isinstance(figures, dict)},
        weights_of_step=step if isinstance(step, int) else None,
        environment=environment | ({STARTS_FROM: descent(bases)} if bases else {}),
        shards=_read(_shards_folder(run, config) / MANIFEST, _read_object, {}, problems),
        finished=run.final.is_dir(),
        parameters=_parameters(config),
        problems=problems,
        bases=bases,
        undisturbed=was_undisturbed(run, evaluation.get("step")),
        predictions=_read(run.predictions, read_predictions, [], problems),
    )


def was_undisturbed(run: RunFolder, step: object) -> bool:
    """Whether the run went up to `step` as an uninterrupted run would, according to the checkpoint of that step.

    True if that checkpoint is absent or damaged.
    """
    if not isinstance(step, int):
        return True
    state: dict[str, Any] = _read(run.checkpoint(step) / STATE, _read_object, {}, [])
    counters = state.get("counters")
    return not isinstance(counters, dict) or counters.get("undisturbed") is not False


def _check_is_run(run: RunFolder) -> None:
    is_run = os.path.isfile(run.config) or os.path.isfile(run.metrics)
    if is_run and not os.path.isfile(run.root / STATE):  # a checkpoint has a config too, and a state beside it
        return
    parents = (run.root.absolute().parent, run.root.absolute().parent.parent)
    around = next((parent for parent in parents if os.path.isfile(RunFolder(parent).metrics)), None)
    raise UsageError(
        f"{run.root} is not a run folder: it holds no {run.config.name} or {run.metrics.name} of a run.",
        where=str(run.root.absolute()),
        fix=f"name the run folder: {around}" if around else "name a folder that `acorn pretrain` made with --out",
    )


def _read(path: Path, reader: Callable[[Path], Content], empty: Content, problems: list[str]) -> Content:
    """What `reader` reads from `path`; `empty` if the file is absent or damaged.

    Raises:
        InputError: reading it is not permitted.
    """
    if not os.path.isfile(path):  # unlike Path's, False for names that no file can have
        return empty
    try:
        return reader(path)
    except DamageError as error:
        problems.append(f"{error.what} ({error.where})")
    except PermissionError:
        raise permission_denied(path) from None
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error} ({path})")
    return empty


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DamageError(f"{path.name} does not hold a JSON object.", where=str(path), fix="restore it from a copy")
    _check_plain(value, path)
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except RecursionError:
        raise DamageError(f"{path.name} nests too deep to be read.", where=str(path)) from None
    _check_plain(value, path)
    return value


def _check_plain(value: object, path: Path) -> None:
    """Raises DamageError for contents that can be read but not shown: very deep nesting and very large integers."""
    level = [value]
    for _ in range(MAX_NESTING):
        if any(isinstance(item, int) and abs(item) >= MAX_INTEGER for item in level):
            raise DamageError(f"{path.name} holds an integer of more than 64 bits.", where=str(path))
        inside = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inside for item in items]
    if level:
        raise DamageError(f"{path.name} nests too deep to be shown.", where=str(path))


def _shards_folder(run: RunFolder, config: Mapping[str, Mapping[str, Any]]) -> Path:
    """The folder of the shards that the run was trained on."""
    return shards_folder(run, str(config.get("data", {}).get("shards", "")))


def _parameters(config: Mapping[str, Mapping[str, Any]]) -> int | None:
    finetune = config.get("finetune", {})
    labels = {"classify": len(finetune.get("labels", ())), "regress": 1}.get(str(finetune.get("task")), 0)
    try:
        shape = ModelConfig.model_validate(dict(config.get("model", {})))
        # The kind of the head changes nothing here, only the number of its outputs.
        return size_of(shape, HeadSpec("value", labels) if labels else None).parameters if shape.vocab_size else None
    except (TypeError, ValueError):
        return None
