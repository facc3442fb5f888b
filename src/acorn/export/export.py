"""Exports a RUN as a folder for another runtime: checked in that runtime, and written completely or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.load import LoadedModel, load
from acorn.checkpoint.model_folder import CARD, SHARD_BYTES, fill_model_folder
from acorn.checkpoint.tensor_files import MAX_LISTED
from acorn.errors import UsageError
from acorn.export.card import card_of, name_of
from acorn.export.gguf import GGUFType, check_expressible, check_weights, gguf_package, tokenizer_of, write_gguf
from acorn.export.parity import Parity, compare
from acorn.export.probe import probe, probe_labels
from acorn.export.runtimes import RUNTIMES, ask
from acorn.files import check_unicode, is_sealed, read_json, sha256_of, to_json
from acorn.folders import check_no_old, new_folder
from acorn.progress import QUIET, Progress
from acorn.run_folder import ADAPTER_CONFIG, MANIFEST, TOKENIZER
from acorn.tokenizer.chat_format import without_generation
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer

HF_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
DTYPES: dict[str, Sequence[str]] = {"hf": tuple(HF_DTYPES), "gguf": get_args(GGUFType)}
"""Format -> data types that its weights may have."""

PARITY, GGUF_FILE = "parity.json", "model.gguf"
WEIGHT_ENDINGS = (".safetensors", ".gguf")
FILE_MANAGER_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that file managers create in the folders they show; they may be removed."""

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Export:
    """A folder that was written, and the results of its checks."""

    folder: Path
    parity: Parity


def export(
    run: Path,
    out: Path,
    format: str,
    dtype: str = "f32",
    *,
    checkpoint: str | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = QUIET,
) -> Export:
    """Writes the model of `run` to the folder `out` if it passes every check in parity.py.

    Args:
        format: "hf", a Hugging Face model folder; "gguf", a folder with a GGUF file.
        dtype: data type of the weights, one of DTYPES[format].
        checkpoint: which checkpoint of a run to export; see `load`.
        force: replace an earlier export in `out`.
        shard_bytes: largest size of a weights file in a Hugging Face folder, in bytes.

    Raises:
        UsageError: `out` or `dtype` cannot be used, or the format does not support the network.
        InputError: the format does not support the tokenizer.
        DamageError: `run` fails its check, or the export is not the same model; it is then removed.
        MissingPackageError: the package gguf, which writes GGUF files, is not installed.
        ResourceError: the disk is full or cannot be written.
    """
    _check_format(format, dtype)
    check_target(out, force)
    loaded = load(run, checkpoint, progress=progress)
    if loaded.folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(
            f"{out} is the folder of the model itself, or inside it.", where="--out", fix="name a folder outside it"
        )
    if format == "gguf":
        loaded.require_language_model("acorn writes GGUF files of language models only", "use --format hf")
        check_expressible(loaded.config, loaded.tokenizer, cast(GGUFType, dtype), loaded.end_ids)
        gguf_package()
    if dtype == "f16":
        _check_range(loaded)
    runtime = RUNTIMES[format]
    with new_folder(out, replace=force) as folder:
        progress.note(f"Writing {out} ({format}, {dtype}).")
        if format == "hf":
            difference, encode = _write_hf(folder, loaded, dtype, shard_bytes)
        else:
            difference, encode = _write_gguf(folder, loaded, cast(GGUFType, dtype))
        if loaded.model.head_spec is None:
            asked = probe(loaded.model, loaded.tokenizer, loaded.folder)
        else:
            asked = probe_labels(loaded.model, loaded.label_text, loaded.folder)
        answer = None
        if runtime.installed:
            progress.note(f"Checking the export in {runtime.name}.")
            answer = ask(runtime, folder / GGUF_FILE if format == "gguf" else folder, asked.question)
        parity = compare(
            asked,
            answer,
            [encode(text) for text in asked.question.texts],
            format=format,
            dtype=dtype,
            runtime=runtime,
            weight_difference=difference,
        )
        (folder / PARITY).write_bytes(to_json(dataclasses.asdict(parity)).encode("utf-8"))
    return Export(out, parity)


def _check_format(format: str, dtype: str) -> None:
    if format not in DTYPES:
        raise UsageError(
            f"Unknown format {format!r}.", where="--format", fix=f"choose one of {', '.join(DTYPES)}, peft"
        )
    if dtype not in DTYPES[format]:
        others = [name for name, types in DTYPES.items() if dtype in types]
        or_format = f", or --format {others[0]}" if others else ""
        raise UsageError(
            f"The format {format} has no data type {dtype!r}.",
            where="--dtype",
            fix=f"choose one of {', '.join(DTYPES[format])}{or_format}",
        )


def check_target(out: Path, force: bool) -> None:
    """Refuses a target where something would be lost: only an unmodified earlier export may be replaced.

    Raises:
        UsageError: its path is not Unicode text, or the target may not be replaced; files that do not belong to an
            export are named.
    """
    place = out.absolute()
    check_unicode(place, "--out")
    check_no_old(place)
    if not place.exists() and not place.is_symlink():
        return
    is_export = (place / MANIFEST).is_file() and ((place / PARITY).is_file() or (place / ADAPTER_CONFIG).is_file())
    replaceable = force and not place.is_symlink() and is_export
    if not replaceable:
        raise UsageError(
            f"{place} already exists{' and is not an export that --force could replace' if force else ''}.",
            where=f"--out {out}",
            fix="name another folder" if force else "name another folder, or replace an earlier export with --force",
        )
    if theirs := _not_of_export(place):
        more = f" and {len(theirs) - MAX_LISTED:,} more" if len(theirs) > MAX_LISTED else ""
        raise UsageError(
            f"{place} contains files that are not part of the export: {', '.join(theirs[:MAX_LISTED])}{more}.",
            where=f"--out {out}",
            fix="move them elsewhere, or name another folder",
        )


def _not_of_export(folder: Path) -> list[str]:
    """Names of files that were added to an export or edited, such as the model card. Weights are not read."""
    manifest = read_json(folder / MANIFEST)
    listed = manifest.get("files") if is_sealed(manifest) else None
    files = listed if isinstance(listed, dict) else {}
    theirs = []
    for entry in sorted(folder.iterdir()):
        if entry.name == MANIFEST or entry.name in FILE_MANAGER_FILES:
            continue
        known = files.get(entry.name)
        if not isinstance(known, dict) or entry.is_symlink() or not entry.is_file():
            theirs.append(entry.name)
        elif entry.suffix not in WEIGHT_ENDINGS and sha256_of(entry) != known.get("sha256"):
            theirs.append(f"{entry.name} (changed)")
    return theirs


def _check_range(loaded: LoadedModel) -> None:
    most = torch.finfo(torch.float16).max
    for name, weight in loaded.model.named_parameters():
        if (largest := float(weight.detach().abs().max())) > most:
            raise UsageError(
                f"The largest f16 value is {most:,.0f}, but {name} has {largest:,.0f}.",
                where="--dtype f16",
                fix="use --dtype bf16",
            )


def _write_hf(folder: Path, loaded: LoadedModel, dtype: str, shard_bytes: int) -> tuple[float, Encode]:
    """Fills `folder`; returns the largest difference of a weight, and how the written tokenizer encodes a prompt."""
    stored = HF_DTYPES[dtype]
    fill_model_folder(
        folder,
        loaded.model,
        loaded.tokenizer,
        card_of(loaded),
        dtype=stored,
        labels=loaded.labels,
        chat_template=loaded.chat_template,
        end_ids=loaded.end_ids,
        trained_ids=loaded.trained_ids,
        shard_bytes=shard_bytes,
    )
    # fill_model_folder has read the file back and compared it with the weights in that type, bit for bit.
    weights = [weight.detach() for weight in loaded.model.parameters()]
    largest = max(float((weight - weight.to(stored)).abs().max()) for weight in weights)
    tokenizer = Tokenizer.from_file(folder / TOKENIZER, as_it_is=True)
    if loaded.model.head_spec is None:
        return largest, tokenizer.encode_prompt
    label_text = LabelText(tokenizer, as_it_is=True)
    return largest, lambda text: label_text.encode(text)[0]


def _write_gguf(folder: Path, loaded: LoadedModel, dtype: GGUFType) -> tuple[float, Encode]:
    """Fills `folder` with a GGUF file and a card; returns the same two values as `_write_hf`."""
    path = folder / GGUF_FILE
    weights: dict[str, Tensor] = dict(loaded.model.named_parameters())
    write_gguf(
        path,
        loaded.config,
        weights,
        loaded.tokenizer,
        dtype,
        name_of(loaded),
        chat_template=without_generation(loaded.chat_template),
        end_ids=loaded.end_ids,
        bases=bases_of(loaded)[1:],
    )
    (folder / CARD).write_bytes(card_of(loaded).encode("utf-8"))
    difference = check_weights(path, loaded.config, weights, dtype)
    read = tokenizer_of(path)
    return difference, lambda text: read.encode(text).ids
