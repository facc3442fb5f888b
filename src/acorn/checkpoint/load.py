"""A RUN becomes a model and its tokenizer: a run folder, a checkpoint in one, a Hugging Face folder, or `hf:NAME`."""

from __future__ import annotations

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
from acorn.progress import QUIET, Progress
from acorn.run_folder import TOKENIZER, RunFolder
from acorn.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A model to use, not to resume.

    Attributes:
        model: in eval mode.
        folder: where it came from: a checkpoint or model folder.
        step: optimizer steps of the checkpoint; None for a model folder, which does not say.
        end_ids: tokens with which a text ends, beside the tokenizer's separator.
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
    """Loads the model that `run` stands for, also while another process saves into it.

    Args:
        run: a run folder (its final model, else its newest whole checkpoint), a checkpoint folder in one, or a
            Hugging Face model folder; or `hf:OWNER/NAME`, which is fetched from the Hub.
        checkpoint: of a run folder: "last", "best" or a step, instead of the final model.
        progress: hears of checkpoints that were passed over because they are torn.

    Raises:
        UsageError: `run` or the checkpoint is not there, or nothing of the kind; `run` is an empty string.
        InputError: a model folder that acorn cannot build, or the Hub does not give it.
        DamageError: what was found fails its check.
    """
    run = local_folder(run, progress)
    kind = kind_of(run)
    if kind == "gguf":
        raise UsageError(
            f"{run} holds a model as GGUF, which acorn writes, but does not read.",
            where=str(run.absolute()),
            fix="name the run or the model folder that it was exported from",
        )
    if checkpoint is not None and kind != "run":
        raise UsageError(
            f"{run} is a {kind} folder, in which there is no checkpoint to choose.",
            where=f"--checkpoint {checkpoint}",
            fix="name the run folder, or leave --checkpoint out",
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
            f"{run} was removed while it was read: a run keeps only its newest checkpoints.",
            where=str(run.absolute()),
            fix="name the run folder, whose newest whole checkpoint is used",
        ) from None


def _load_folder(folder: Path, device: torch.device | str, dtype: torch.dtype) -> LoadedModel:
    """The model in a checkpoint or model folder.

    Raises:
        InputError, DamageError: as `load`.
    """
    if kind_of(folder) == "model":
        config, weights, tokenizer = read_model_folder(folder)
        step, ends = None, end_ids(folder)
    else:
        if faults := checkpoint_faults(folder):
            raise DamageError(
                _listed(faults), where=str(folder), fix="name the run folder, whose newest whole one is used"
            )
        state = read_checkpoint(folder, weights_only=True)
        tokenizer = Tokenizer.from_json(state.tokenizer_json, where=str(folder / TOKENIZER), as_it_is=True)
        check_layers(state.config.model, state.weights, folder)
        check_tensors(state.weights, {name: p.shape for name, p in meta_parameters(state.config.model).items()}, folder)
        config, weights = without_padding(state.config.model, state.weights, tokenizer)
        step, ends = state.counters.step, ()
    return LoadedModel(build_model(config, weights, device, dtype), tokenizer, config, folder, step, ends)


def build_model(
    config: ModelConfig, weights: Mapping[str, Tensor], device: torch.device | str, dtype: torch.dtype
) -> GPT:
    """A network in eval mode around `weights` (names of `GPT.named_parameters()`); no second set is ever held."""
    with torch.device("meta"):
        model = GPT(config, inference_ops(torch.device(device).type))
    state = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    if config.is_tied:
        state["head.weight"] = state["token_embedding.weight"]
    model.load_state_dict(state, assign=True)
    if config.is_tied:
        # Assigning made two parameters over the same memory; it is one again.
        model.token_embedding.weight = model.head.weight
    return model.eval()


def _chosen(run: RunFolder, checkpoint: str | None, progress: Progress) -> Path:
    """The folder inside the run that `checkpoint` stands for."""
    final = readable(run.final)
    if checkpoint is None and final.is_dir():
        return final
    if checkpoint not in (None, "last"):
        return _of_step(run, _best_step(run) if checkpoint == "best" else _step_number(checkpoint))
    newest = newest_whole_checkpoint(run, progress)
    if newest is None:
        raise UsageError(
            "The run has nothing to load yet: neither final/ nor a checkpoint.",
            where=str(run.root.absolute()),
            fix="let it train until its first checkpoint",
        )
    return newest


def _of_step(run: RunFolder, step: int) -> Path:
    """The folder of a step's checkpoint.

    Raises:
        UsageError: there is none.
        DamageError: it is torn; the whole ones are named.
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
            "The run has no best checkpoint yet: it was never validated.",
            where=str(run.best),
            fix="use --checkpoint last",
        )
    step = read_sealed_json(run.best).get("step")
    if type(step) is not int:
        raise DamageError(f"{run.best.name} does not name a step.", where=str(run.best), fix="use --checkpoint last")
    return step


def _choice(steps: list[int]) -> str:
    if not steps:
        return "there is no other checkpoint to choose"
    return "choose one of the steps " + ", ".join(map(str, steps))


def _listed(faults: list[str]) -> str:
    return "The checkpoint is not whole:\n" + "\n".join(f"  - {fault}" for fault in faults)
