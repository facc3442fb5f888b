"""Exports the adapter of a run that was trained with LoRA: what PEFT loads onto the base model."""

from __future__ import annotations

from pathlib import Path

from acorn.checkpoint.adapter import copy_adapter, read_adapter
from acorn.checkpoint.adapter_merge import merge_adapter
from acorn.checkpoint.hub import local_folder
from acorn.checkpoint.integrity import kind_of
from acorn.checkpoint.load import load
from acorn.errors import InputError, UsageError
from acorn.export.export import check_target
from acorn.folders import new_folder, readable
from acorn.progress import QUIET, Progress
from acorn.run_folder import RunFolder, run_of


def export_adapter(
    run: Path,
    out: Path,
    dtype: str = "f32",
    *,
    checkpoint: str | None = None,
    force: bool = False,
    progress: Progress = QUIET,
) -> int:
    """Writes the adapter of `run` to the folder `out` if it is intact and fits the run's final model.

    Args:
        dtype: only "f32": an adapter is small.
        checkpoint: only None: a run has the adapter of its final model.
        force: replace an earlier export in `out`.

    Returns:
        the number of values in it.

    Raises:
        UsageError: `out`, `dtype` or `checkpoint` cannot be used, or the run has no adapter.
        InputError: the adapter is not one of this run's model.
        DamageError: the adapter or the final model fails its check.
        ResourceError: the disk is full or cannot be written.
    """
    if dtype != "f32":
        raise UsageError(
            f"The format peft has no data type {dtype!r}.", where="--dtype", fix="choose f32, or another --format"
        )
    if checkpoint is not None:
        raise _no_checkpoint(f"--checkpoint {checkpoint}")
    check_target(out, force)
    source = _adapter_of(run, progress)
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(
            f"{out} is the folder of the adapter itself, or inside it.", where="--out", fix="name a folder outside it"
        )
    with new_folder(out, replace=force) as folder:
        progress.note(f"Writing {out} (peft, {dtype}).")
        copy_adapter(source, folder)
        adapter = read_adapter(folder)
        progress.note("Checking that the adapter fits the run's final model.")
        final = load(readable(RunFolder(source.parent).final))
        weights = {name: parameter.detach() for name, parameter in final.model.named_parameters()}
        try:
            merge_adapter(adapter.config, adapter.tensors, final.config, weights, final.model.head_spec, source)
        except InputError as error:
            raise InputError(error.what, where=error.where, fix="restore the run from a copy") from None
    return sum(tensor.numel() for tensor in adapter.tensors.values())


def _adapter_of(run: Path, progress: Progress) -> Path:
    """The folder of the adapter of a run; `run` may be a folder in it.

    Raises:
        UsageError: there is none.
    """
    folder = local_folder(run, progress)
    if kind_of(folder) == "checkpoint":
        raise _no_checkpoint(str(folder.absolute()))
    owner = run_of(folder)
    adapter = readable(owner.adapter) if owner else None
    if adapter is None or not adapter.is_dir():
        raise UsageError(
            f"{run} has no adapter: only a run that was finetuned with LoRA has one, once it is finished.",
            where=f"{owner.adapter if owner else folder.absolute()}",
            fix="finetune with --lora RANK, or export the whole model with --format hf",
        )
    return adapter


def _no_checkpoint(where: str) -> UsageError:
    return UsageError(
        "A run has the adapter of its final model, and none of its checkpoints.",
        where=where,
        fix="name the run without a checkpoint, or export the checkpoint's model with --format hf",
    )
