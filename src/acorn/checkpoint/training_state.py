"""A resumable checkpoint: everything the next step depends on, in safetensors and JSON.

Random numbers and the data order are pure functions (of seed, step, sample number), so beside weights and optimizer
state a few counters are all there is to keep. Nothing here is a pickle, and nothing is read that was not verified.
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
    """What of an optimizer is kept and restored.

    Attributes:
        param_groups: each a dict with its `params`.
        state: parameter -> name -> tensor.
    """

    param_groups: list[dict[str, Any]]
    state: Any


@dataclass
class Counters:
    """The counters of a run, as state.json keeps them.

    Attributes:
        step: optimizer steps done, skipped ones included.
        samples: windows consumed.
        tokens: target tokens consumed.
        rollbacks: times the run went back after a divergence.
        skips: steps skipped in a row, up to now.
        seconds: wall seconds of training, over all sittings.
        train_seconds: of these, without validation, samples and saves.
        loss_scale: multiplier of the loss where activations are in fp16; of no meaning otherwise.
        good_steps: steps since the loss scale last changed.
        best_loss, best_step: lowest validation loss so far, in nats per token.
        valid_loss, valid_step: the latest one.
        sample_step: when samples were last drawn.
        metrics_bytes, samples_bytes: lengths of metrics.jsonl and samples.jsonl at this point.
        schedule_steps: the length that the schedule was computed for (0: by the clock).
        scheduled: false in a checkpoint that only a signal, or a full disk before it, caused.
        undisturbed: false once anything happened that an undisturbed run would not have seen.
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
    """A checkpoint as read: nothing is applied to a model yet."""

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
    """Writes the checkpoint folder `path`, whole or not at all.

    Args:
        resolved: what `auto` settings came to on this machine, and what bit-for-bit equality rests on.

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
        weights_only: leave the optimizer's tensors out.

    Raises:
        DamageError: anything in it is missing, changed, or not what acorn writes.
    """
    faults = verify_folder(path)
    if faults:
        raise DamageError("The checkpoint fails its check:\n  - " + "\n  - ".join(faults), where=str(path), fix=_MEND)
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
        raise DamageError(f"The checkpoint cannot be read: {error}", where=str(path), fix=_MEND) from None
    except AcornError as error:
        raise DamageError(f"The checkpoint cannot be read: {error.what}", where=str(path), fix=_MEND) from None


def read_counters(path: Path) -> Counters:
    """The counters of the checkpoint folder `path`, without its tensors.

    Raises:
        DamageError: its state.json cannot be read, or does not hold them.
    """
    try:
        return _counters(read_json(path / STATE)["counters"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"The checkpoint cannot be read: {error}", where=str(path), fix=_MEND) from None


_MEND = "name the run folder, whose newest whole checkpoint is used, or restore it from a copy"


def restore(model: nn.Module, optimizers: Sequence[OptimizerState], checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights and optimizer state into `model` and `optimizers`, in place.

    Raises:
        DamageError: its tensors do not fit them.
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
            f"The optimizer's state is of parameters that the model has not: {', '.join(stored.keys() - known)}.",
            where=str(checkpoint.path / OPTIMIZER_FILE),
            fix=_MEND,
        )
    for optimizer in optimizers:
        _check_optimizer_state(
            {names[id(parameter)]: parameter.shape for parameter in _parameters(optimizer)}, stored, checkpoint.path
        )
        for parameter in _parameters(optimizer):
            optimizer.state[parameter].clear()
            for key, value in stored[names[id(parameter)]].items():
                # AdamW counts its steps on the CPU unless it is fused, then beside the parameter.
                optimizer.state[parameter][key] = value.to(parameter.device, copy=True)


def optimizer_tensors(model: nn.Module, optimizers: Sequence[OptimizerState]) -> dict[str, Tensor]:
    """Every optimizer tensor under the name <parameter>.<state>."""
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
    """Every parameter of an optimizer has the same kinds of state, each a number or of the parameter's shape."""
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
            f"The optimizer's state does not fit the model: {', '.join(faults[:8])}.",
            where=str(where / OPTIMIZER_FILE),
            fix=_MEND,
        )


def _counters(values: Mapping[str, Any]) -> Counters:
    """Counters from what state.json says.

    Raises:
        ValueError: a counter is unknown, negative or of another type, or one without which there is no run is missing.
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
