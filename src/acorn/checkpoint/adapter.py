"""Adapters in PEFT's format: what LoRA trained, without the base model. Reads and writes them.

The folder has adapter_config.json, adapter_model.safetensors and a card. It never contains a path of this machine: the
base model is named if it is on the Hub; otherwise the card describes it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from acorn.checkpoint.adapter_card import adapter_card
from acorn.checkpoint.adapter_config import AdapterConfig, parse_adapter_config
from acorn.checkpoint.adapter_merge import lonely_factors, merge_adapter
from acorn.checkpoint.adapter_tensors import to_peft
from acorn.checkpoint.integrity import check_read_files
from acorn.checkpoint.label_config import TASKS
from acorn.checkpoint.load import LoadedModel, build_model
from acorn.checkpoint.model_folder import CARD
from acorn.checkpoint.tensor_files import MAX_LISTED, load_tensors, save_tensors
from acorn.errors import DamageError
from acorn.files import read_json, to_json
from acorn.folders import new_folder, verify_folder
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.origin import Base, is_repository
from acorn.run_folder import ADAPTER_CONFIG

ADAPTER_WEIGHTS, ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
RESTORE = "restore the adapter from a copy, or download it again"


@dataclass(frozen=True)
class Adapter:
    """An adapter that was read from `folder`."""

    folder: Path
    config: AdapterConfig
    tensors: Mapping[str, Tensor]

    def merged_into(self, base: LoadedModel, head: HeadSpec | None = None, labels: Sequence[str] = ()) -> LoadedModel:
        """The base model with the adapter's changes. `base` is not changed.

        Args:
            head: the adapter's label head, if `base` is a language model; None: the head of `base`.
            labels: names of its outputs.

        Raises:
            InputError: the adapter does not fit the model.
        """
        model = base.model
        weights = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
        if head is None:
            head, labels = model.head_spec, base.labels
        else:
            weights = _with_empty_head(model, head)
        weights = merge_adapter(self.config, self.tensors, base.config, weights, head, self.folder)
        merged = build_model(base.config, weights, model.device, model.dtype, head)
        task = "" if head is None else TASKS[head.kind]
        return dataclasses.replace(base, model=merged, labels=tuple(labels), task=task)


def write_adapter(
    path: Path, model: GPT, bases: Sequence[Base] = (), labels: Sequence[str] = (), trained_on: str = ""
) -> None:
    """Writes what LoRA trained in `model` to the folder `path`, completely or not at all; replaces an existing one.

    Args:
        bases: the models that it was trained from, nearest first; see `bases_of`.
        labels: names of the label head's outputs.
        trained_on: the training text with its license, for the card's metadata; empty: unknown.

    Raises:
        ValueError: the model has no LoRA.
        DamageError: the folder does not read back as it was written.
        ResourceError: the disk is full or cannot be written.
    """
    with new_folder(path, replace=True) as folder:
        fill_adapter(folder, model, bases, labels, trained_on)


def fill_adapter(
    folder: Path, model: GPT, bases: Sequence[Base] = (), labels: Sequence[str] = (), trained_on: str = ""
) -> None:
    """Writes all files of an adapter except the manifest, and reads them back; see `write_adapter`.

    Raises:
        ValueError, DamageError: see there.
        OSError: the disk is full or cannot be written.
    """
    on_hub = bases[0].name if bases and bases[0].kind == "hub" and is_repository(bases[0].name) else ""
    adapter = to_peft(model, on_hub)
    save_tensors(folder / ADAPTER_WEIGHTS, adapter.tensors)
    (folder / ADAPTER_CONFIG).write_bytes(to_json(adapter.values).encode("utf-8"))
    card = adapter_card(adapter.values, bases, labels, trained_on)
    (folder / CARD).write_bytes(card.encode("utf-8"))
    read = read_adapter(folder)
    different = [name for name, tensor in adapter.tensors.items() if not torch.equal(read.tensors[name], tensor.cpu())]
    if different:
        raise DamageError(
            f"The adapter does not read back as it was written: {', '.join(different[:MAX_LISTED])}.",
            where=str(folder),
            fix="check the disk and its file system; the new folder was removed",
        )


def copy_adapter(source: Path, folder: Path) -> None:
    """Checks an adapter that acorn wrote, and copies its files into an existing, empty folder.

    Raises:
        DamageError: it fails its check.
        OSError: the disk is full or cannot be written.
    """
    if faults := verify_folder(source):
        raise DamageError(
            "The adapter fails its check:\n" + "\n".join(f"  - {fault}" for fault in faults[:MAX_LISTED]),
            where=str(source),
            fix=RESTORE,
        )
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD):
        shutil.copyfile(source / name, folder / name)
    read_adapter(folder)


def read_adapter(path: Path) -> Adapter:
    """Reads an adapter of acorn (checked against its manifest) or of PEFT.

    Raises:
        InputError: it is not LoRA, or a kind of LoRA that cannot be merged into the weights.
        DamageError: a file is missing, changed or unsafe to read, or a factor is missing.
    """
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (path / name).is_file()]
    if ADAPTER_WEIGHTS in missing and (path / ADAPTER_PICKLE).is_file():
        raise DamageError(
            f"The adapter is a pickle ({ADAPTER_PICKLE}), which could run any code when opened; it was not read.",
            where=str(path),
            fix="download it as safetensors; or, if you trust its source, save it anew with PEFT",
        )
    if missing:
        raise DamageError(
            f"The folder is not an adapter: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            where=str(path),
            fix=RESTORE,
        )
    check_read_files(path, [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    values = read_json(path / ADAPTER_CONFIG, RESTORE)
    if not isinstance(values, dict):
        raise DamageError(
            f"{ADAPTER_CONFIG} does not contain a JSON object.", where=str(path / ADAPTER_CONFIG), fix=RESTORE
        )
    config = parse_adapter_config(values, path / ADAPTER_CONFIG)
    tensors = load_tensors(path / ADAPTER_WEIGHTS)
    absent = lonely_factors(tensors) or ([] if tensors else ["any tensor"])
    if absent:
        raise DamageError(
            f"{ADAPTER_WEIGHTS} does not have {', '.join(absent[:MAX_LISTED])}.",
            where=str(path / ADAPTER_WEIGHTS),
            fix=RESTORE,
        )
    return Adapter(path, config, tensors)


def _with_empty_head(model: GPT, head: HeadSpec) -> dict[str, Tensor]:
    """The weights of a language model with a label head of zeros in place of its own head."""
    with torch.device("meta"):
        wanted = dict(GPT(model.config, head=head).named_parameters())
    known = dict(model.named_parameters())
    return {
        name: known[name].detach().cpu() if name in known else torch.zeros(parameter.shape)
        for name, parameter in wanted.items()
    }
