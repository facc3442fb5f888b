"""Resumable checkpoints: everything that the next step depends on, in safetensors and JSON.

Random numbers and the data order are pure functions of seed, step and sample number, so only weights, optimizer state
and a few counters have to be saved. No pickles are used, and files are verified before they are read.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from acorn.checkpoint.tensor_files import check_tensors, load_tensors, save_tensors
from acorn.config import Config
from acorn.config_files import load_config, to_toml
from acorn.errors import AcornError, DamageError
from acorn.files import read_json, to_json
from acorn.folders import new_folder, verify_folder
from acorn.run_folder import CONFIG, STATE, TOKENIZER

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"


class OptimizerState(Protocol):
    """The part of an optimizer that is saved and restored.

    Attributes:
        param_groups: dicts with the key `params`.
        state: parameter -> name -> tensor.
    """

    param_groups: list[dict[str, Any]]
    state: Any


@dataclass
class Counters:
    """The counters of a run, stored in state.json.

    Attributes:
        step: optimizer steps so far, including skipped ones.
        samples: windows trained on.
        tokens: target tokens trained on.
        rollbacks: number of rollbacks after divergence.
        skips: consecutive steps skipped up to now.
        seconds: wall time of training in seconds, over all resumes.
        train_seconds: the same without validation, samples and saves.
        loss_scale: multiplier of the loss, used when activations are in fp16.
        good_steps: steps since the last change of the loss scale.
        best_loss, best_step: lowest validation loss so far, in the unit of the task (text: nats per token).
        valid_loss, valid_step: latest validation loss.
        sample_step: step of the latest text samples.
        metrics_bytes, samples_bytes: lengths of metrics.jsonl and samples.jsonl at this step.
        schedule_steps: length of the schedule in steps (0: by the clock).
        scheduled: false in a checkpoint saved only because of a signal or an earlier full disk.
        undisturbed: false after anything that makes the run differ from an uninterrupted one.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    rollbacks: int = 0
    skips: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    loss_scale: float = 1.0
    good_steps: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    valid_loss: float | None = None
    valid_step: int | None = None
    sample_step: int | None = None
    metrics_bytes: int = 0
    samples_bytes: int = 0
    schedule_steps: int = 0
    scheduled: bool = True
    undisturbed: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, not yet applied to a model."""

    path: Path
    config: Config
    tokenizer_json: str
    weights: dict[str, Tensor]
    optimizer_state: dict[str, Tensor]
    counters: Counters
    resolved: dict[str, Any]


def save_checkpoint(
    path: Path,
    config: Config,
    tokenizer_json: str,
    model: nn.Module,
    optimizers: Sequence[OptimizerState],
    counters: Counters,
    resolved: dict[str, Any],
) -> None:
    """Writes the checkpoint folder `path`, completely or not at all.

    Args:
        resolved: the values that `auto` settings got on this machine, and everything else that bit-identity depends on.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    with new_folder(path, replace=True) as folder:
        (folder / CONFIG).write_text(to_toml(config), "utf-8")
        (folder / TOKENIZER).write_text(tokenizer_json, "utf-8")
        save_tensors(folder / MODEL_FILE, dict(model.named_parameters()))
        save_tensors(folder / OPTIMIZER_FILE, optimizer_tensors(model, optimizers))
        state = {"counters": dataclasses.asdict(counters), "resolved": resolved}
        (folder / STATE).write_text(to_json(state), "utf-8")


def read_checkpoint(path: Path, *, weights_only: bool = False) -> Checkpoint:
    """Reads and verifies the checkpoint folder `path`.

    Args:
        weights_only: do not read the optimizer's tensors.

    Raises:
        DamageError: something is missing, changed, or was not written by acorn.
    """
    faults = verify_folder(path)
    if faults:
        raise DamageError("The checkpoint fails its check:\n  - " + "\n  - ".join(faults), where=str(path), fix=_FIX)
    try:
        state = read_json(path / STATE)
        return Checkpoint(
            path,
            load_config(path / CONFIG),
            (path / TOKENIZER).read_text("utf-8"),
            load_tensors(path / MODEL_FILE),
            {} if weights_only else load_tensors(path / OPTIMIZER_FILE),
            _counters(state["counters"]),
            dict(state["resolved"]),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"The checkpoint cannot be read: {error}", where=str(path), fix=_FIX) from None
    except AcornError as error:
        raise DamageError(f"The checkpoint cannot be read: {error.what}", where=str(path), fix=_FIX) from None


def read_counters(path: Path) -> Counters:
    """Reads only the counters of the checkpoint folder `path`.

    Raises:
        DamageError: state.json cannot be read or has no counters.
    """
    try:
        return _counters(read_json(path / STATE)["counters"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"The checkpoint cannot be read: {error}", where=str(path), fix=_FIX) from None


_FIX = "name the run folder, whose newest intact checkpoint is used, or restore this one from a copy"


def restore(model: nn.Module, optimizers: Sequence[OptimizerState], checkpoint: Checkpoint) -> None:
    """Copies a checkpoint's weights and optimizer state into `model` and `optimizers`.

    Raises:
        DamageError: the tensors do not match.
    """
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    check_tensors(checkpoint.weights, shapes, checkpoint.path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(checkpoint.weights[name])
    names = {id(weight): name for name, weight in model.named_parameters()}
    stored: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in checkpoint.optimizer_state.items():
        name, _, kind = key.rpartition(".")
        stored[name][kind] = value
    known = {names[id(parameter)] for optimizer in optimizers for parameter in _parameters(optimizer)}
    if optimizers and not stored.keys() <= known:
        raise DamageError(
            f"The optimizer state has parameters that the model does not have: {', '.join(stored.keys() - known)}.",
            where=str(checkpoint.path / OPTIMIZER_FILE),
            fix=_FIX,
        )
    for optimizer in optimizers:
        _check_optimizer_state(
            {names[id(parameter)]: parameter.shape for parameter in _parameters(optimizer)}, stored, checkpoint.path
        )
        for parameter in _parameters(optimizer):
            optimizer.state[parameter].clear()
            for key, value in stored[names[id(parameter)]].items():
                # AdamW counts its steps on the CPU, or, if it is fused, on the device of the parameter.
                optimizer.state[parameter][key] = value.to(parameter.device, copy=True)


def optimizer_tensors(model: nn.Module, optimizers: Sequence[OptimizerState]) -> dict[str, Tensor]:
    """All optimizer tensors, named <parameter>.<state>."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}.{key}": value
        for optimizer in optimizers
        for parameter in _parameters(optimizer)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _check_optimizer_state(
    shapes: Mapping[str, torch.Size], stored: Mapping[str, Mapping[str, Tensor]], where: Path
) -> None:
    """Refuses a state whose parameters have different kinds of state, or values of a wrong shape."""
    kinds = {name: set(stored.get(name, ())) for name in shapes}
    faults = [name for name in shapes if kinds[name] != next(iter(kinds.values()))]
    faults += [
        f"{name}.{kind}"
        for name, shape in shapes.items()
        for kind, value in stored.get(name, {}).items()
        if value.shape != (torch.Size([]) if kind == "step" else shape) or not value.is_floating_point()
    ]
    if faults:
        raise DamageError(
            f"The optimizer state does not match the model: {', '.join(faults[:8])}.",
            where=str(where / OPTIMIZER_FILE),
            fix=_FIX,
        )


def _counters(values: Mapping[str, Any]) -> Counters:
    """The counters in state.json.

    Raises:
        ValueError: a counter is unknown, negative or of another type, or a required one is missing.
    """
    kinds = {field.name: _COUNTER_TYPES[str(field.type)] for field in dataclasses.fields(Counters)}
    if not {"step", "samples", "tokens"} <= values.keys() <= kinds.keys():
        raise ValueError(f"{STATE} does not have the counters of a run")
    for name, value in values.items():
        is_number = type(value) in (int, float)
        if type(value) not in kinds[name] or (is_number and not 0 <= value < 2**63):
            raise ValueError(f"{STATE} has {name} = {value!r}")
    return Counters(**values)


_COUNTER_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
}


def _parameters(optimizer: OptimizerState) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
