"""Tensors in safetensors files: written with the one metadata that keeps bytes equal, and checked once read."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from acorn.config import ModelConfig
from acorn.errors import DamageError
from acorn.files import check_unicode

METADATA = {"format": "pt"}
"""With a second key the file's bytes would change from process to process."""

DTYPES = {torch.float32, torch.float16, torch.bfloat16}
RESTORE = "restore the folder from a copy, or download it again (with git: git lfs pull)"
"""What helps a folder that is not whole, whoever made it."""

LISTED = 8
"""Faults that a message names one by one."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes `tensors` to `path`; flushing it is the business of whoever makes the folder.

    Raises:
        OSError: the disk is full or cannot be written; the library's own error does not say so by its type.
        UsageError: the path is not Unicode text, which the library needs.
    """
    check_unicode(path, "the model's folder")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, METADATA)
        path.chmod(0o644)  # the library makes files for the owner alone; models are there to be handed on
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error), str(path)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, on the CPU.

    Raises:
        DamageError: it is not there, or not a safetensors file.
        UsageError: the path is not Unicode text, which the library needs.
        MemoryError: there is no memory to read it into.
    """
    check_unicode(path, "the model's folder")
    try:
        return load_file(path)
    # ValueError: a name that no file can have. RuntimeError: PyTorch's, which maps the file into memory.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if f"({errno.ENOMEM})" in str(error):
            raise MemoryError(str(error)) from error
        raise DamageError(
            f"{path.name} cannot be read as safetensors: {error}",
            where=str(path),
            fix=RESTORE,
        ) from None


def check_layers(config: ModelConfig, found: Mapping[str, Tensor], where: Path) -> None:
    """Refuses more layers than there are tensors, before a network of that many is built to learn their names.

    Raises:
        DamageError: as in `check_tensors`.
    """
    if config.vocab_size < 1 or config.n_layer > len(found):
        raise DamageError(
            f"The config has {config.n_layer:,} layers and {config.vocab_size:,} entries; there are "
            f"{len(found):,} tensors in all.",
            where=str(where),
            fix=RESTORE,
        )


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], where: Path) -> None:
    """Compares names, shapes and types with what a model's config asks for.

    Raises:
        DamageError: with every tensor that is missing, unknown or of another shape or type (the first few by name).
    """
    faults = [f"{name} is missing" for name in wanted if name not in found]
    for name, tensor in found.items():
        if name not in wanted:
            faults.append(f"{name} is not part of this architecture")
        elif tensor.shape != wanted[name]:
            faults.append(f"{name} has the shape {list(tensor.shape)}, not {list(wanted[name])}")
        elif tensor.dtype not in DTYPES:
            faults.append(f"{name} has the type {tensor.dtype}; only fp32, fp16 and bf16 are read")
    if faults:
        shown = faults[:LISTED] + ([f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else [])
        raise DamageError(
            "The weights do not fit the model's config:\n" + "\n".join(f"  - {fault}" for fault in shown),
            where=str(where),
            fix=RESTORE,
        )
