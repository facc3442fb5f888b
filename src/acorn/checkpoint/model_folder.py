"""Writes and reads Hugging Face model folders, which transformers and other runtimes load without code from acorn.

`layouts.py` converts networks and names; this module handles the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acorn.checkpoint.integrity import check_read_files
from acorn.checkpoint.layouts import (
    GPT2,
    UNUSED_ENDINGS,
    Layout,
    expected_shapes,
    from_config_json,
    from_hugging_face,
    layout_of,
    to_config_json,
    to_hugging_face,
)
from acorn.checkpoint.tensor_files import MAX_LISTED, RESTORE, check_layers, check_tensors, load_tensors, save_tensors
from acorn.config import ModelConfig
from acorn.errors import DamageError, InputError
from acorn.files import read_json, to_json
from acorn.folders import new_folder
from acorn.model.gpt import GPT
from acorn.model.lora import merged
from acorn.pickles import PICKLE_ENDINGS
from acorn.run_folder import MODEL_CONFIG, TOKENIZER
from acorn.tokenizer.tokenizer import SEPARATORS, NoTokenizerError, Tokenizer, gpt2_tokenizer

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
GENERATION_CONFIG, TOKENIZER_CONFIG, CARD = "generation_config.json", "tokenizer_config.json", "README.md"
CHAT_TEMPLATE = "chat_template.jinja"
GPT2_TOKENIZER = ("vocab.json", "merges.txt")
OTHER_TOKENIZERS = ("tokenizer.model", *GPT2_TOKENIZER, "spiece.model", "vocab.txt")
SHARD_BYTES = 5_000_000_000
"""Largest size of a weights file: the Hub handles smaller files better, and a failed download costs less."""

VOCABULARY_ROWS = ("token_embedding.weight", "head.weight")


def write_model_folder(path: Path, model: GPT, tokenizer: Tokenizer, card: str, *, replace: bool = True) -> None:
    """Writes `model` and `tokenizer` to the Hugging Face folder `path` in fp32, completely or not at all.

    Args:
        card: the text of README.md.
        replace: replace an existing folder of that name; otherwise refuse it.

    Raises:
        UsageError: `path` exists and `replace` is false.
        InputError: the tokenizer has more entries than the model.
        DamageError: the folder does not read back as it was written.
        ResourceError: the disk is full or cannot be written.
    """
    with new_folder(path, replace=replace) as folder:
        fill_model_folder(folder, model, tokenizer, card)


def fill_model_folder(
    folder: Path,
    model: GPT,
    tokenizer: Tokenizer,
    card: str,
    *,
    dtype: torch.dtype = torch.float32,
    chat_template: str = "",
    end_ids: Sequence[int] = (),
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes all files of a Hugging Face folder except the manifest, and reads them back.

    Vocabulary rows without a tokenizer entry are omitted.

    Args:
        folder: an existing, empty folder.
        dtype: data type of the weights.
        chat_template: Jinja template that turns a conversation into text; empty: none.
        end_ids: tokens that end a text; empty: the separator.
        shard_bytes: largest size of a weights file in bytes; larger weights are split into several files.

    Raises:
        InputError: the tokenizer has more entries than the model.
        DamageError: the folder does not read back as it was written.
        OSError: the disk is full or cannot be written.
    """
    parameters = merged(model)
    config, weights = without_padding(model.config, parameters, tokenizer)
    weights = {name: tensor.detach().to(dtype) for name, tensor in weights.items()}
    name_of_dtype = str(dtype).removeprefix("torch.")
    ends = list(end_ids) or [tokenizer.separator_id]
    special_ids = {
        "bos_token_id": tokenizer.document_start[-1],
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": tokenizer.pad_id,
    }
    values = to_config_json(config, special_ids)
    files = {
        MODEL_CONFIG: to_json({**values, "dtype": name_of_dtype, "torch_dtype": name_of_dtype}),
        GENERATION_CONFIG: to_json(_generation_config(config, special_ids, tokenizer.unsampled_ids(ends))),
        TOKENIZER: tokenizer.to_json(),
        TOKENIZER_CONFIG: to_json(tokenizer.transformers_config(config.block_size)),
        CARD: card,
    }
    if chat_template:
        files[CHAT_TEMPLATE] = chat_template
    _save_weights(folder, to_hugging_face(config, weights), shard_bytes)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8"))
    _check_round_trip(folder, config, weights, tokenizer)


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


def _check_round_trip(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer) -> None:
    """Checks that a folder that was just written contains the same network, bit for bit, and so gives the same logits.

    Raises:
        DamageError: it does not.
    """
    read_config, read_weights, read_tokenizer = read_model_folder(folder)
    different = [
        name
        for name, weight in weights.items()
        if name not in read_weights or not torch.equal(read_weights[name], weight.cpu())
    ]
    read_shape, shape = (dict(value.spelled_out()) for value in (read_config, config))
    different += [name for name in shape if name != "dropout" and read_shape[name] != shape[name]]
    different += [TOKENIZER] if read_tokenizer.fingerprint != tokenizer.fingerprint else []
    if different:
        raise DamageError(
            f"The model folder does not read back as the model that was written: {', '.join(different[:8])}.",
            where=str(folder),
            fix="check the disk and its file system; the new folder was removed",
        )


def read_model_folder(path: Path) -> tuple[ModelConfig, dict[str, Tensor], Tokenizer]:
    """Reads a Hugging Face folder of acorn (checked against its manifest) or of another GPT-2, Llama or Qwen3.

    Returns:
        the config; the weights with acorn's names (without a tied head), in the stored data type; the tokenizer.

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
    values = read_json(path / MODEL_CONFIG, RESTORE)
    if not isinstance(values, dict):
        raise DamageError(
            f"{MODEL_CONFIG} does not contain a JSON object.", where=str(path / MODEL_CONFIG), fix=RESTORE
        )
    config = from_config_json(values, str(path / MODEL_CONFIG))
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors.update(load_tensors(path / name))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(UNUSED_ENDINGS)}
    if layout_of(config) is GPT2:
        tensors = _with_prefix(tensors)
    if config.is_tied:
        tensors = _tied_once(config, tensors, path)
    check_layers(config, tensors, path)
    check_tensors(tensors, expected_shapes(config), path)
    tokenizer = read_tokenizer(path, layout_of(config))
    config, weights = without_padding(config, from_hugging_face(config, tensors), tokenizer)
    return config, weights, tokenizer


def read_tokenizer(path: Path, layout: Layout) -> Tokenizer:
    """The tokenizer of a model folder. Prompts begin as with transformers' AutoTokenizer.

    Raises:
        InputError: acorn does not support it.
        DamageError: it is missing or cannot be read.
    """
    try:
        tokenizer = _tokenizer_in(path, layout)
    except NoTokenizerError as error:
        raise DamageError(error.what, where=error.where, fix=RESTORE) from None
    except InputError as error:
        raise InputError(error.what, where=error.where or str(path), fix=_USE_TRANSFORMERS) from None
    separator = _declared_separator(path)
    if separator in SEPARATORS and separator != tokenizer.separator:
        raise InputError(
            f"The model ends texts with {separator}, but its vocabulary also has {tokenizer.separator}, which acorn "
            "would use instead.",
            where=str(path / TOKENIZER_CONFIG),
            fix=_USE_TRANSFORMERS,
        )
    return tokenizer


def _tokenizer_in(path: Path, layout: Layout) -> Tokenizer:
    """The tokenizer in the files of a model folder; tokenizer_config.json is not considered."""
    if (path / TOKENIZER).is_file():
        return Tokenizer.from_file(path / TOKENIZER, as_it_is=True)
    others = [name for name in OTHER_TOKENIZERS if (path / name).is_file()]
    if layout is GPT2 and set(GPT2_TOKENIZER) <= set(others):
        return gpt2_tokenizer(*(path / name for name in GPT2_TOKENIZER))
    raise DamageError(
        f"{TOKENIZER} is missing." + (f" acorn cannot use {' and '.join(others)} without it." if others else ""),
        where=str(path),
        fix="download it, or create it: in Python, with the folder's path as P, "
        "transformers.AutoTokenizer.from_pretrained(P).save_pretrained(P)"
        if others
        else RESTORE,
    )


_USE_TRANSFORMERS = "use it with the transformers library instead"


def _declared_separator(path: Path) -> object:
    """The end-of-text token in tokenizer_config.json; None if there is none."""
    values = read_json(path / TOKENIZER_CONFIG, RESTORE) if (path / TOKENIZER_CONFIG).is_file() else {}
    token = values.get("eos_token") if isinstance(values, dict) else None
    return token.get("content") if isinstance(token, dict) else token


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
    outer = ("transformer.", "lm_head.")
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
