"""Writes and reads Hugging Face model folders, which transformers and other runtimes load without code from acorn.

`layouts.py` converts networks and names; this module handles the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acorn.checkpoint.config_json import from_config_json, to_config_json
from acorn.checkpoint.folder_tokenizer import CHAT_TEMPLATE, TOKENIZER_CONFIG, read_chat_template, read_tokenizer
from acorn.checkpoint.integrity import GENERATION_CONFIG, check_read_files
from acorn.checkpoint.layouts import (
    GPT2,
    UNUSED_ENDINGS,
    expected_shapes,
    from_hugging_face,
    layout_of,
    storable_head,
    to_hugging_face,
)
from acorn.checkpoint.model_task import LANGUAGE_MODEL, ModelTask
from acorn.checkpoint.tensor_files import MAX_LISTED, RESTORE, check_layers, check_tensors, load_tensors, save_tensors
from acorn.config import ModelConfig
from acorn.errors import DamageError, InputError
from acorn.files import read_json, to_json
from acorn.folders import new_folder
from acorn.model.gpt import GPT
from acorn.model.lora import merged
from acorn.pickles import PICKLE_ENDINGS
from acorn.run_folder import MODEL_CONFIG, TOKENIZER
from acorn.tokenizer.tokenizer import Tokenizer

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
CARD = "README.md"
SHARD_BYTES = 5_000_000_000
"""Largest size of a weights file: the Hub handles smaller files better, and a failed download costs less."""

VOCABULARY_ROWS = ("token_embedding.weight", "head.weight")


@dataclass(frozen=True)
class ModelFolder:
    """The content of a model folder.

    Attributes:
        weights: the parameters of `GPT(config, head=task.head)`, without a tied head, in the stored data type.
        task: what the model is for, and the names of its labels.
    """

    config: ModelConfig
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    task: ModelTask = LANGUAGE_MODEL


def write_model_folder(
    path: Path,
    model: GPT,
    tokenizer: Tokenizer,
    card: str,
    *,
    labels: Sequence[str] = (),
    chat_template: str = "",
    end_ids: Sequence[int] = (),
    trained_ids: Sequence[int] = (),
    replace: bool = True,
) -> None:
    """Writes `model` and `tokenizer` to the Hugging Face folder `path` in fp32, completely or not at all.

    Args:
        card: the text of README.md.
        labels, chat_template, end_ids, trained_ids: see `fill_model_folder`.
        replace: replace an existing folder of that name; otherwise refuse it.

    Raises:
        UsageError: `path` exists and `replace` is false.
        InputError: the tokenizer has more entries than the model, or the labels do not fit it.
        DamageError: the folder does not read back as it was written.
        ResourceError: the disk is full or cannot be written.
    """
    with new_folder(path, replace=replace) as folder:
        fill_model_folder(
            folder,
            model,
            tokenizer,
            card,
            labels=labels,
            chat_template=chat_template,
            end_ids=end_ids,
            trained_ids=trained_ids,
        )


def fill_model_folder(
    folder: Path,
    model: GPT,
    tokenizer: Tokenizer,
    card: str,
    *,
    dtype: torch.dtype = torch.float32,
    labels: Sequence[str] = (),
    chat_template: str = "",
    end_ids: Sequence[int] = (),
    trained_ids: Sequence[int] = (),
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes all files of a Hugging Face folder except the manifest, and reads them back.

    Vocabulary rows without a tokenizer entry are omitted.

    Args:
        folder: an existing, empty folder.
        tokenizer: of a model with a label head: the one that its texts are encoded with (`LabelText.tokenizer`).
        dtype: data type of the weights.
        labels: names of the outputs of the model's label head; empty for a language model.
        chat_template: Jinja template that turns a conversation into text; empty: none.
        end_ids: tokens that end a text; empty: the separator.
        trained_ids: other reserved tokens that were trained, so that generation may sample them.
        shard_bytes: largest size of a weights file in bytes; larger weights are split into several files.

    Raises:
        InputError: the tokenizer has more entries than the model, or the labels do not fit it.
        DamageError: the folder does not read back as it was written.
        OSError: the disk is full or cannot be written.
    """
    parameters = merged(model)
    config, weights = without_padding(model.config, parameters, tokenizer)
    head, weights = storable_head(model.head_spec, weights)
    weights = {name: tensor.detach().to(dtype) for name, tensor in weights.items()}
    name_of_dtype = str(dtype).removeprefix("torch.")
    ends = list(end_ids) or [tokenizer.separator_id]
    special_ids = {
        "bos_token_id": tokenizer.document_start[-1],
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": tokenizer.pad_id,
    }
    values = to_config_json(config, special_ids, head, labels)
    tokenizer_config = tokenizer.transformers_config(config.block_size)
    if head is not None:
        # The names of special tokens are text to a classifier. transformers numbers positions from the left, so
        # padding there would change them.
        tokenizer_config |= {"padding_side": "right", "split_special_tokens": True}
    files = {
        MODEL_CONFIG: to_json({**values, "dtype": name_of_dtype, "torch_dtype": name_of_dtype}),
        TOKENIZER: tokenizer.to_json(),
        TOKENIZER_CONFIG: to_json(tokenizer_config),
        CARD: card,
    }
    if head is None:
        unsampled = tokenizer.unsampled_ids([*ends, *trained_ids])
        files[GENERATION_CONFIG] = to_json(_generation_config(config, special_ids, unsampled))
    if chat_template:
        files[CHAT_TEMPLATE] = chat_template
    _save_weights(folder, to_hugging_face(config, weights, head), shard_bytes)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8"))
    _check_round_trip(folder, ModelFolder(config, weights, tokenizer, ModelTask(head, tuple(labels))))


def _save_weights(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """Writes one weights file, or several with an index, in the format of transformers."""
    shards: list[dict[str, Tensor]] = [{}]
    bytes_left = shard_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > bytes_left and shards[-1]:
            shards.append({})
            bytes_left = shard_bytes
        shards[-1][name] = tensor
        bytes_left -= tensor.nbytes
    if len(shards) == 1:
        save_tensors(folder / WEIGHTS, tensors)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(folder / file, shard)
        places |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / WEIGHTS_INDEX).write_bytes(to_json(index).encode("utf-8"))


def _check_round_trip(folder: Path, written: ModelFolder) -> None:
    """Checks that a folder that was just written contains the same network, bit for bit, and so gives the same logits.

    Raises:
        DamageError: it does not.
    """
    read = read_model_folder(folder)
    different = [
        name
        for name, weight in written.weights.items()
        if name not in read.weights or not torch.equal(read.weights[name], weight.cpu())
    ]
    read_shape, shape = (dict(config.spelled_out()) for config in (read.config, written.config))
    different += [name for name in shape if name != "dropout" and read_shape[name] != shape[name]]
    different += [TOKENIZER] if read.tokenizer.fingerprint != written.tokenizer.fingerprint else []
    different += ["the label head"] if read.task.head != written.task.head else []
    different += ["the labels"] if read.task.labels != written.task.labels else []
    if different:
        raise DamageError(
            f"The model folder does not read back as the model that was written: {', '.join(different[:8])}.",
            where=str(folder),
            fix="check the disk and its file system; the new folder was removed",
        )


def read_model_folder(path: Path) -> ModelFolder:
    """Reads a Hugging Face folder of acorn (checked against its manifest) or of another GPT-2, Llama or Qwen3.

    Raises:
        InputError: acorn does not support the network or its tokenizer.
        DamageError: a file is missing, changed or unsafe to read, or the weights do not match the config.
    """
    files = _weight_files(path)
    if not (path / MODEL_CONFIG).is_file():
        raise DamageError(f"{MODEL_CONFIG} is missing.", where=str(path), fix=RESTORE)
    index = [] if WEIGHTS in files else [WEIGHTS_INDEX]
    check_read_files(path, [MODEL_CONFIG, TOKENIZER, *index, *files])
    if missing := [name for name in files if not os.path.isfile(path / name)]:
        raise DamageError(
            f"{WEIGHTS_INDEX} names files that do not exist: {', '.join(missing[:MAX_LISTED])}.",
            where=str(path),
            fix=RESTORE,
        )
    values = _read_object(path / MODEL_CONFIG)
    stored = from_config_json(values, str(path / MODEL_CONFIG))
    config, head = stored.model, stored.head
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors.update(load_tensors(path / name))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(UNUSED_ENDINGS)}
    if layout_of(config) is GPT2:
        tensors = _with_prefix(tensors)
    if config.is_tied and head is None:
        tensors = _tied_once(config, tensors, path)
    check_layers(config, tensors, path)
    check_tensors(tensors, expected_shapes(config, head), path)
    tokenizer = read_tokenizer(path, layout_of(config))
    config, weights = without_padding(config, from_hugging_face(config, tensors, head), tokenizer)
    if head is not None:
        return ModelFolder(config, weights, tokenizer, ModelTask(head, stored.labels))
    ends = end_ids(path)
    trained = _trained_ids(path, tokenizer, ends)
    task = ModelTask(end_ids=ends, trained_ids=trained, chat_template=read_chat_template(path))
    return ModelFolder(config, weights, tokenizer, task)


def _read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DamageError: there is none.
    """
    values = read_json(file, RESTORE)
    if not isinstance(values, dict):
        raise DamageError(f"{file.name} does not contain a JSON object.", where=str(file), fix=RESTORE)
    return values


def end_ids(path: Path) -> tuple[int, ...]:
    """The tokens that end a text according to a model folder, such as a chat model's end of turn.

    Raises:
        DamageError: they are not token ids.
    """
    for name in (GENERATION_CONFIG, MODEL_CONFIG):  # the first file with a value counts
        values = read_json(path / name, RESTORE) if (path / name).is_file() else {}
        ids = values.get("eos_token_id") if isinstance(values, dict) else None
        ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
            raise DamageError(f"eos_token_id is {ids!r}, which are not token ids.", where=str(path / name), fix=RESTORE)
        if ids:
            return tuple(ids)
    return ()


def _trained_ids(path: Path, tokenizer: Tokenizer, ends: Sequence[int]) -> tuple[int, ...]:
    """Reserved tokens that generation may sample according to a model folder, beside those that end a text.

    A folder that suppresses nothing says nothing of them: other programs drop that list.
    """
    values = read_json(path / GENERATION_CONFIG, RESTORE) if (path / GENERATION_CONFIG).is_file() else {}
    suppressed = values.get("suppress_tokens") if isinstance(values, dict) else None
    if not isinstance(suppressed, list) or not suppressed:
        return ()
    named = [token_id for token_id in tokenizer.reserved_ids if tokenizer.piece(token_id) is not None]
    return tuple(token_id for token_id in named if token_id not in suppressed and token_id not in ends)


def without_padding(
    config: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Removes vocabulary rows without a tokenizer entry, so that no other id can be generated.

    Raises:
        InputError: the tokenizer has more entries than the model.
    """
    entries = tokenizer.vocab_size
    if entries > config.vocab_size:
        raise InputError(
            f"The tokenizer has {entries:,} entries, but the model only {config.vocab_size:,}.",
            where=TOKENIZER,
            fix="use the tokenizer that the model was trained with",
        )
    cut = {name: tensor[:entries] if name in VOCABULARY_ROWS else tensor for name, tensor in weights.items()}
    return config.model_copy(update={"vocab_size": entries}), cut


def _generation_config(
    config: ModelConfig, special_ids: Mapping[str, Any], unsampled_ids: Sequence[int]
) -> dict[str, Any]:
    """The defaults of transformers' generate() for this model.

    `max_length` keeps the pipelines of transformers, which request more tokens, within a learned position table.
    """
    values: dict[str, Any] = {**special_ids, "do_sample": False, "use_cache": True}
    if config.architecture != "modern":
        values["max_length"] = config.block_size
    return {**values, "suppress_tokens": unsampled_ids} if unsampled_ids else values


def _weight_files(path: Path) -> list[str]:
    """Names of the weights files.

    Raises:
        DamageError: there are none, or only pickles, which are not safe to read.
    """
    if (path / WEIGHTS).is_file():
        return [WEIGHTS]
    if (path / WEIGHTS_INDEX).is_file():
        return _sharded(path / WEIGHTS_INDEX)
    pickles = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in PICKLE_ENDINGS)
    if pickles:
        raise DamageError(
            f"The weights are a pickle ({', '.join(pickles)}), which could run any code when opened; it was not read.",
            where=str(path),
            fix="download it as safetensors; or, if you trust its source, in Python, with the folder's path as P: "
            "transformers.AutoModelForCausalLM.from_pretrained(P).save_pretrained(P)",
        )
    raise DamageError(f"The folder has no weights: no {WEIGHTS} or {WEIGHTS_INDEX}.", where=str(path), fix=RESTORE)


def _sharded(index: Path) -> list[str]:
    """Names of the weights files in the index of a large model; all are in the same folder."""
    content = read_json(index, RESTORE)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise DamageError(f"{index.name} has no weight_map.", where=str(index), fix=RESTORE)
    for tensor, name in places.items():
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\:"):
            raise DamageError(
                f"{index.name} names {name!r} for {tensor}: not a safetensors file in this folder; it was not read.",
                where=str(index),
                fix="do not use this model unless you know who changed it; download it again from its source",
            )
    return sorted(set(places.values()))


def _with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds the prefix `transformer.`, which the names in GPT-2's first releases lack."""
    outer = ("transformer.", "lm_head.", "score.", "classifier.")
    return {name if name.startswith(outer) else f"transformer.{name}": tensor for name, tensor in tensors.items()}


def _tied_once(config: ModelConfig, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Keeps a tied matrix only under the name of the embedding, even if the file has it as the head or as both.

    Raises:
        DamageError: there are two matrices, and they differ.
    """
    outer = layout_of(config).outer
    embedding, head = (f"{outer[module]}.weight" for module in ("token_embedding", "head"))
    others = {name: tensor for name, tensor in tensors.items() if name != head}
    if head not in tensors:
        return others
    if embedding in others and not torch.equal(others[embedding], tensors[head]):
        raise DamageError(
            f"{MODEL_CONFIG} says that embedding and head are tied, but {embedding} and {head} differ.",
            where=str(path),
            fix=f'set "tie_word_embeddings" to false in {MODEL_CONFIG}, if that is how the model was trained',
        )
    return {embedding: tensors[head], **others}
