"""Loads the model and tokenizer of a RUN: a run folder, a checkpoint, a Hugging Face folder or `hf:OWNER/NAME`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from acorn.advice import acorn_command
from acorn.checkpoint.checkpoint_task import lora_of_checkpoint, scale_of_checkpoint, task_of_checkpoint
from acorn.checkpoint.hub import local_folder
from acorn.checkpoint.integrity import (
    checkpoint_faults,
    kind_of,
    look_again,
    newest_whole_checkpoint,
    readable_checkpoints,
)
from acorn.checkpoint.layouts import meta_parameters
from acorn.checkpoint.model_folder import ModelFolder, read_model_folder, without_padding
from acorn.checkpoint.model_task import ModelTask
from acorn.checkpoint.tensor_files import check_layers, check_tensors
from acorn.checkpoint.training_state import Checkpoint, read_checkpoint
from acorn.config import ModelConfig
from acorn.errors import AcornError, DamageError, UsageError, shown
from acorn.files import read_errors, read_sealed_json
from acorn.folders import readable
from acorn.kernels.choose import inference_ops
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec, LabelKind
from acorn.model.lora import LoraSpec, merged
from acorn.progress import QUIET, Progress
from acorn.run_folder import TOKENIZER, RunFolder
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.word_text import WordText


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model, for use but not for resuming.

    Attributes:
        model: in eval mode.
        folder: the checkpoint or model folder that it was loaded from.
        step: optimizer steps of the checkpoint; None: unknown (model folders do not store it).
        end_ids: tokens that end a text, in addition to the separator.
        task: `classify`, `regress` or `tag`: what the label head does; empty: a language model.
        labels: names of the label head's outputs.
        trained_ids: other reserved tokens that were trained, so that they may be sampled.
        chat_template: Jinja template that turns a conversation into text; empty: none.
    """

    model: GPT
    tokenizer: Tokenizer
    config: ModelConfig
    folder: Path
    step: int | None
    end_ids: tuple[int, ...] = ()
    task: str = ""
    labels: tuple[str, ...] = ()
    trained_ids: tuple[int, ...] = ()
    chat_template: str = ""

    @functools.cached_property
    def label_text(self) -> LabelText:
        """How a text that gets a label becomes token ids: as the tokenizer has it, which the label head was trained
        with."""
        return LabelText(self.tokenizer, as_it_is=True)

    @functools.cached_property
    def word_text(self) -> WordText:
        """How a sentence whose words get tags becomes token ids; see `label_text`."""
        return WordText(self.tokenizer, as_it_is=True)

    @property
    def is_released(self) -> bool:
        """Whether the weights are gone."""
        return self.model.device.type == "meta"

    def release(self) -> None:
        """Frees the memory of the weights, once they are not needed any more. All else stays."""
        self.model.to("meta")

    def require_label_head(self) -> None:
        """Refuses a language model.

        Raises:
            UsageError: the model has no label head; the fix names the command that continues text.
        """
        if self.model.head_spec is None:
            chat = acorn_command("chat", self.folder) if self.chat_template else ""
            generate = acorn_command("generate", self.folder, "--prompt", "The")
            raise UsageError(
                "The model continues text; it gives no labels, values or tags.",
                where=str(self.folder),
                fix=f"use it with: {' or '.join(filter(None, (chat, generate)))}; acorn finetune makes a model that "
                "gives labels",
            )

    def require_language_model(self, what: str, fix: str = "") -> None:
        """Refuses a model with a label head.

        Args:
            what: what it cannot do, as the end of a sentence: `it does not generate text`.
            fix: what to do instead; empty: name the language model.

        Raises:
            UsageError: the model has a label head.
        """
        head = self.model.head_spec
        if head is not None:
            raise UsageError(
                f"The model gives {GIVEN[head.kind]}; {what}.",
                where=str(self.folder),
                fix=fix or "name a language model, such as the one that this model was finetuned from",
            )


GIVEN: dict[LabelKind, str] = {
    "class": "each text a label",
    "labels": "each text labels",
    "value": "each text a value",
    "tag": "each word a tag",
}
"""Kind of a label head -> what the model gives."""


@read_errors()
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
        InputError: acorn does not support the model, the Hub does not provide it, or reading it is not permitted.
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
    if kind == "adapter":
        raise UsageError(
            f"{run} is an adapter, which is no model without the one that it was trained from.",
            where=str(run.absolute()),
            fix="name the run that has it, or a model folder that it was merged into",
        )
    if checkpoint is not None and kind != "run":
        raise UsageError(
            f"{run} is a {kind} folder, so it contains no checkpoints to choose from.",
            where=f"--checkpoint {checkpoint}",
            fix="name the run folder, or omit --checkpoint",
        )
    if kind == "run":
        folder = RunFolder(run)
        loaded = look_again(folder, lambda: _load_folder(_chosen(folder, checkpoint, progress), device, dtype))
        if checkpoint is None and loaded.step is not None:
            progress.note(f"The run is not finished; using its checkpoint of step {loaded.step:,}.")
        return loaded
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
    if kind_of(folder) != "model":
        return load_checkpoint(folder, device, dtype)
    return _loaded(read_model_folder(folder), folder, None, device, dtype)


def load_checkpoint(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    task_of: Callable[[Checkpoint, Tokenizer], ModelTask] = task_of_checkpoint,
    lora_of: Callable[[Checkpoint], LoraSpec | None] = lora_of_checkpoint,
) -> LoadedModel:
    """The model in a checkpoint folder; what LoRA trained is merged into its weights.

    Args:
        task_of: what the model of a checkpoint is for, which the weights alone do not tell; by default what its run
            stored.
        lora_of: what LoRA trained in it; None: nothing.

    Raises:
        DamageError: the folder fails its check.
    """
    if faults := checkpoint_faults(folder):
        raise DamageError(
            _listed(faults), where=str(folder), fix="name the run folder; its newest intact checkpoint is then used"
        )
    state = read_checkpoint(folder, weights_only=True)
    tokenizer = Tokenizer.from_json(state.tokenizer_json, where=str(folder / TOKENIZER), as_it_is=True)
    task = task_of(state, tokenizer)
    check_layers(state.config.model, state.weights, folder)
    lora = lora_of(state)
    parameters = meta_parameters(state.config.model, task.head, lora)
    check_tensors(state.weights, {name: parameter.shape for name, parameter in parameters.items()}, folder)
    weights = state.weights
    if lora is not None:
        weights = merged(lora_network(state.config.model, weights, lora, task.head))
    if (scale := scale_of_checkpoint(state)) != 1:
        scores = {name: scale * weight for name, weight in weights.items() if name.startswith("score.")}
        weights = {**weights, **scores}
    config, weights = without_padding(state.config.model, weights, tokenizer)
    return _loaded(ModelFolder(config, weights, tokenizer, task), folder, state.counters.step, device, dtype)


def _loaded(
    found: ModelFolder, folder: Path, step: int | None, device: torch.device | str, dtype: torch.dtype
) -> LoadedModel:
    """The model that was read from `folder`."""
    task = found.task
    model = build_model(found.config, found.weights, device, dtype, task.head)
    return LoadedModel(
        model,
        found.tokenizer,
        found.config,
        folder,
        step,
        task.end_ids,
        task.name,
        task.labels,
        task.trained_ids,
        task.chat_template,
    )


@torch.no_grad()
def lora_network(
    config: ModelConfig, weights: Mapping[str, Tensor], lora: LoraSpec, head: HeadSpec | None = None
) -> GPT:
    """A network with LoRA in eval mode, on the CPU, with copies of the `weights` of a checkpoint."""
    model = GPT(config, head=head, lora=lora)
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    return model.eval()


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
