"""Tensors in safetensors files: written reproducibly, and checked when they are read."""

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
from acorn.files import check_unicode, permission_denied

METADATA = {"format": "pt"}
"""With a second key, the order of keys, and so the bytes of the file, would vary between processes."""

READABLE_DTYPES = {torch.float32, torch.float16, torch.bfloat16}
RESTORE = "restore the folder from a copy, or download it again (with git: git lfs pull)"
"""Advice for an incomplete folder, whoever made it."""

MAX_LISTED = 8
"""Number of faults that a message lists."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes `tensors` to `path`. The caller, who creates the folder, flushes the file to the disk.

    Raises:
        OSError: the disk is full or cannot be written.
        UsageError: the path is not Unicode text, which the library requires.
    """
    check_unicode(path, "the model's folder")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, METADATA)
        path.chmod(0o644)  # the library makes files readable for the owner only; models are meant to be shared
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error), str(path)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, on the CPU.

    Raises:
        DamageError: it does not exist, or is not a safetensors file.
        UsageError: the path is not Unicode text, which the library requires.
        MemoryError: there is not enough memory.
    """
    check_unicode(path, "the model's folder")
    try:
        return load_file(path)
    except PermissionError:
        raise permission_denied(path) from None
    # ValueError: an invalid name. RuntimeError: raised by PyTorch, which maps the file into memory.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if f"({errno.ENOMEM})" in str(error):
            raise MemoryError(str(error)) from error
        raise DamageError(
            f"{path.name} cannot be read as safetensors: {error}",
            where=str(path),
            fix=RESTORE,
        ) from None


def check_layers(config: ModelConfig, found: Mapping[str, Tensor], where: Path) -> None:
    """Refuses a config with more layers than tensors, before a network of that size is built for their names.

    Raises:
        DamageError: the config has more layers than there are tensors, or no vocabulary.
    """
    if config.vocab_size < 1 or config.n_layer > len(found):
        raise DamageError(
            f"The config has {config.n_layer:,} layers and {config.vocab_size:,} vocabulary entries, but the file "
            f"has only {len(found):,} tensors.",
            where=str(where),
            fix=RESTORE,
        )


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], where: Path) -> None:
    """Compares names, shapes and data types with those that a model's config requires.

    Raises:
        DamageError: tensors are missing, unknown, or of another shape or data type; the first few are named.
    """
    faults = [f"{name} is missing" for name in wanted if name not in found]
    for name, tensor in found.items():
        if name not in wanted:
            faults.append(f"{name} is not part of this architecture")
        elif tensor.shape != wanted[name]:
            faults.append(f"{name} has the shape {list(tensor.shape)}, not {list(wanted[name])}")
        elif tensor.dtype not in READABLE_DTYPES:
            faults.append(f"{name} has the data type {tensor.dtype}; acorn reads fp32, fp16 and bf16")
    if faults:
        shown = faults[:MAX_LISTED] + ([f"and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else [])
        raise DamageError(
            "The weights do not fit the model's config:\n" + "\n".join(f"  - {fault}" for fault in shown),
            where=str(where),
            fix=RESTORE,
        )
