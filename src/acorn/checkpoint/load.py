"""Loads the model and tokenizer of a RUN: a run folder, a checkpoint, a Hugging Face folder or `hf:OWNER/NAME`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from acorn.checkpoint.hub import local_folder
from acorn.checkpoint.integrity import (
    checkpoint_faults,
    kind_of,
    look_again,
    newest_whole_checkpoint,
    readable_checkpoints,
)
from acorn.checkpoint.layouts import meta_parameters
from acorn.checkpoint.model_folder import end_ids, read_model_folder, without_padding
from acorn.checkpoint.tensor_files import check_layers, check_tensors
from acorn.checkpoint.training_state import read_checkpoint
from acorn.config import ModelConfig
from acorn.errors import AcornError, DamageError, UsageError, shown
from acorn.files import read_sealed_json
from acorn.folders import readable
from acorn.kernels.choose import inference_ops
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.progress import QUIET, Progress
from acorn.run_folder import TOKENIZER, RunFolder
from acorn.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model, for use but not for resuming.

    Attributes:
        model: in eval mode.
        folder: the checkpoint or model folder that it was loaded from.
        step: optimizer steps of the checkpoint; None: unknown (model folders do not store it).
        end_ids: tokens that end a text, in addition to the separator.
    """

    model: GPT
    tokenizer: Tokenizer
    config: ModelConfig
    folder: Path
    step: int | None
    end_ids: tuple[int, ...] = ()


def load(
    run: Path | str,
    checkpoint: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    progress: Progress = QUIET,
) -> LoadedModel:
    """Loads the model of `run`, even while another process is writing the run.

    Args:
        run: a run folder (its final model, otherwise its newest intact checkpoint), a checkpoint folder, a Hugging Face
            model folder, or `hf:OWNER/NAME`, which is downloaded from the Hub.
        checkpoint: of a run folder: "last", "best" or a step, instead of the final model.
        progress: receives notes about damaged checkpoints that were skipped.

    Raises:
        UsageError: `run` or the checkpoint does not exist or is of another kind.
        InputError: acorn does not support the model, or the Hub does not provide it.
        DamageError: the folder fails its check.
    """
    run = local_folder(run, progress)
    kind = kind_of(run)
    if kind == "gguf":
        raise UsageError(
            f"{run} contains a GGUF model, which acorn can write but not read.",
            where=str(run.absolute()),
            fix="name the run or the model folder that it was exported from",
        )
    if checkpoint is not None and kind != "run":
        raise UsageError(
            f"{run} is a {kind} folder, so it contains no checkpoints to choose from.",
            where=f"--checkpoint {checkpoint}",
            fix="name the run folder, or omit --checkpoint",
        )
    if kind == "run":
        folder = RunFolder(run)
        return look_again(folder, lambda: _load_folder(_chosen(folder, checkpoint, progress), device, dtype))
    try:
        return _load_folder(run, device, dtype)
    except (AcornError, OSError):
        if run.exists():
            raise
        raise UsageError(
            f"{run} was removed while it was being read: a run keeps only its newest checkpoints.",
            where=str(run.absolute()),
            fix="name the run folder; its newest intact checkpoint is then used",
        ) from None


def _load_folder(folder: Path, device: torch.device | str, dtype: torch.dtype) -> LoadedModel:
    """The model in a checkpoint or model folder.

    Raises:
        InputError, DamageError: see `load`.
    """
    if kind_of(folder) == "model":
        config, weights, tokenizer = read_model_folder(folder)
        step, ends = None, end_ids(folder)
    else:
        if faults := checkpoint_faults(folder):
            raise DamageError(
                _listed(faults), where=str(folder), fix="name the run folder; its newest intact checkpoint is then used"
            )
        state = read_checkpoint(folder, weights_only=True)
        tokenizer = Tokenizer.from_json(state.tokenizer_json, where=str(folder / TOKENIZER), as_it_is=True)
        check_layers(state.config.model, state.weights, folder)
        check_tensors(state.weights, {name: p.shape for name, p in meta_parameters(state.config.model).items()}, folder)
        config, weights = without_padding(state.config.model, state.weights, tokenizer)
        step, ends = state.counters.step, ()
    return LoadedModel(build_model(config, weights, device, dtype), tokenizer, config, folder, step, ends)


def build_model(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    device: torch.device | str,
    dtype: torch.dtype,
    head: HeadSpec | None = None,
) -> GPT:
    """A network in eval mode with `weights` (names of `GPT.named_parameters()`), which are not copied.

    Args:
        head: the label head, in place of the language model's head. Class weights, which only training uses, are left
            out.
    """
    head = None if head is None else dataclasses.replace(head, class_weights=())
    with torch.device("meta"):
        model = GPT(config, inference_ops(torch.device(device).type), head=head)
    state = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    if config.is_tied and model.head is not None:
        state["head.weight"] = state["token_embedding.weight"]
    model.load_state_dict(state, assign=True)
    if config.is_tied and model.head is not None:
        # Assignment created two parameters that share memory; make them one again.
        model.token_embedding.weight = model.head.weight
    return model.eval()


def _chosen(run: RunFolder, checkpoint: str | None, progress: Progress) -> Path:
    """The folder inside the run that `checkpoint` names."""
    final = readable(run.final)
    if checkpoint is None and final.is_dir():
        return final
    if checkpoint not in (None, "last"):
        return _of_step(run, _best_step(run) if checkpoint == "best" else _step_number(checkpoint))
    newest = newest_whole_checkpoint(run, progress)
    if newest is None:
        raise UsageError(
            "The run has no model yet: neither final/ nor a checkpoint.",
            where=str(run.root.absolute()),
            fix="wait until it has saved its first checkpoint",
        )
    return newest


def _of_step(run: RunFolder, step: int) -> Path:
    """The checkpoint folder of a step.

    Raises:
        UsageError: there is none.
        DamageError: it is damaged; the message names intact ones.
    """
    folders = readable_checkpoints(run)
    if step not in folders:
        raise UsageError(
            f"The run has no checkpoint of step {step}.", where=str(run.checkpoints), fix=_choice(list(folders))
        )
    if faults := checkpoint_faults(folders[step]):
        whole = [other for other, folder in folders.items() if other != step and not checkpoint_faults(folder)]
        raise DamageError(_listed(faults), where=str(folders[step]), fix=_choice(whole))
    return folders[step]


def _step_number(checkpoint: str) -> int:
    try:
        return int(checkpoint)
    except (ValueError, TypeError):  # TypeError: from Python it may be anything
        raise UsageError(
            f"{shown(checkpoint)} is not a checkpoint.",
            where="--checkpoint",
            fix="give last, best, or a step such as 200",
        ) from None


def _best_step(run: RunFolder) -> int:
    if not run.best.is_file():
        raise UsageError(
            "The run has no best checkpoint yet: it has not been validated.",
            where=str(run.best),
            fix="use --checkpoint last",
        )
    step = read_sealed_json(run.best).get("step")
    if type(step) is not int:
        raise DamageError(f"{run.best.name} does not name a step.", where=str(run.best), fix="use --checkpoint last")
    return step


def _choice(steps: list[int]) -> str:
    if not steps:
        return "the run has no other checkpoint"
    return "choose one of the steps " + ", ".join(map(str, steps))


def _listed(faults: list[str]) -> str:
    return "The checkpoint is damaged:\n" + "\n".join(f"  - {fault}" for fault in faults)
