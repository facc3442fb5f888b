"""GGUF, the file format of llama.cpp and programs built on it (Ollama, LM Studio): weights and tokenizer in one file.

llama.cpp uses the networks of Hugging Face, tensor by tensor: `gpt2`, and for `modern` qwen3 or llama. Only the queries
and keys of a Llama have another order (`_interleaved`). Its gpt2 supports GELU only, so `original` cannot be exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, models, pre_tokenizers, processors
from torch import Tensor

from acorn.checkpoint.layouts import LLAMA, layout_of, to_hugging_face
from acorn.config import ModelConfig
from acorn.errors import DamageError, InputError, MissingPackageError, UsageError
from acorn.origin import Base
from acorn.tokenizer import bpe
from acorn.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import gguf

GGUFType = Literal["f32", "f16", "bf16", "q8_0"]
Q8_0_BLOCK = 32
"""Elements that share a scale in q8_0; the length of a row must be a multiple of it."""

EXPRESSIBLE_SETTINGS = frozenset(
    {
        *(
            "architecture",
            "n_layer",
            "n_head",
            "n_kv_head",
            "n_embd",
            "n_inner",
            "head_width",
            "block_size",
            "vocab_size",
        ),
        *("dropout", "tied", "qk_norm", "norm_eps", "rope_theta"),
    }
)
"""Settings of the network that this file can express, or that change nothing in a trained model."""

END_TOKEN_KINDS = ("eos", "eot", "eom")
"""End tokens that a file can name: end of sequence, of turn, of message. llama.cpp stops at any of them."""

FP32_TENSORS = ("position_embd.weight",)
"""Small matrices that llama.cpp keeps in fp32, as it does all vectors."""


def write_gguf(
    path: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    dtype: GGUFType,
    name: str,
    *,
    chat_template: str = "",
    end_ids: Sequence[int] = (),
    bases: Sequence[Base] = (),
) -> None:
    """Writes model and tokenizer to the file `path`.

    Args:
        weights: with the names of `GPT.named_parameters()`, without padding rows of the vocabulary.
        dtype: data type of the matrices; vectors stay fp32.
        name: the model's name, as runtimes show it.
        chat_template: Jinja template that turns a conversation into text; empty: none.
        end_ids: tokens that end a text, at most three; empty: the separator.
        bases: the models that this one was trained from, nearest first.

    Raises:
        UsageError: llama.cpp does not support the network, or `dtype` does not fit its sizes.
        InputError: llama.cpp does not support the tokenizer.
        MissingPackageError: the extra `gguf` is not installed.
    """
    check_expressible(config, tokenizer, dtype, end_ids)
    library = gguf_package()
    writer = library.GGUFWriter(path, layout_of(config).model_type)
    writer.add_name(name)
    _add_bases(writer, bases)
    if chat_template:
        writer.add_chat_template(chat_template)
    _add_shape(writer, config)
    _add_tokenizer(writer, tokenizer)
    for name_of_end, end in zip(END_TOKEN_KINDS, end_ids or (tokenizer.separator_id,), strict=False):
        getattr(writer, f"add_{name_of_end}_token_id")(end)
    writer.add_file_type(getattr(library.LlamaFileType, _FILE_TYPES[dtype]))
    kind = getattr(library.GGMLQuantizationType, dtype.upper())
    for place, values, is_matrix in _tensors(config, weights):
        if is_matrix and dtype != "f32":
            writer.add_tensor(place, library.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(place, values)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def check_weights(path: Path, config: ModelConfig, weights: Mapping[str, Tensor], dtype: GGUFType) -> float:
    """Reads a file that `write_gguf` wrote and compares each element with the original weight.

    Returns:
        the largest difference, which is the rounding error of `dtype`.

    Raises:
        DamageError: a tensor is missing, unexpected, or differs by more than the rounding error.
    """
    library = gguf_package()
    stored = {tensor.name: tensor for tensor in library.GGUFReader(path).tensors}
    largest, faults = 0.0, []
    for place, values, is_matrix in _tensors(config, weights):
        if place not in stored:
            faults.append(f"{place} is missing")
            continue
        tensor = stored.pop(place)
        read = library.quants.dequantize(tensor.data, tensor.tensor_type).reshape(values.shape)
        difference = np.abs(read - values)
        # "not ... <=" instead of ">": comparisons with NaN are false, and NaN must be a fault.
        if not np.all(difference <= _rounding(values, dtype if is_matrix else "f32")):
            faults.append(f"{place} differs by {difference.max():.3g}")
        largest = max(largest, float(difference.max()))
    faults += [f"{place} is unexpected" for place in stored]
    if faults:
        raise DamageError(
            f"The file does not contain the weights that were written: {', '.join(faults[:8])}.",
            where=str(path),
            fix="check the disk; for weights too large for f16 use bf16. The export was removed",
        )
    return largest


def _rounding(values: NDArray[np.float32], dtype: GGUFType) -> NDArray[Any]:
    """Largest rounding error of each element when it is stored as `dtype`."""
    size = np.abs(values)
    if dtype == "q8_0":  # steps are 1/127 of the largest value of the block, and are stored as f16
        blocks = size.reshape(-1, Q8_0_BLOCK)
        size = np.broadcast_to(blocks.max(axis=1, keepdims=True), blocks.shape).reshape(values.shape)
    return ROUNDING[dtype] * size + (F16_SUBNORMAL_ERROR if dtype in ("f16", "q8_0") else 0)


ROUNDING = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.57 / 127}
"""Largest relative error of each data type (q8_0: relative to the largest value in the block)."""

F16_SUBNORMAL_ERROR = 127 * 2**-25
"""Largest absolute error of values, or of steps of q8_0, that are subnormal in f16."""


def check_expressible(config: ModelConfig, tokenizer: Tokenizer, dtype: GGUFType, end_ids: Sequence[int] = ()) -> None:
    """Refuses what a GGUF file cannot express exactly.

    Raises:
        UsageError: the network cannot be expressed, or its sizes do not fit the data type.
        InputError: the tokenizer or the tokens that end a text cannot be expressed.
    """
    if config.architecture == "original":
        raise UsageError(
            "llama.cpp does not support the architecture original: its GPT-2 uses GELU, original uses ReLU.",
            where="--format gguf",
            fix="use --format hf, or train with model.architecture=gpt2 or modern",
        )
    spelled_out = config.spelled_out()
    for name, field in ModelConfig.model_fields.items():
        if name not in EXPRESSIBLE_SETTINGS and getattr(spelled_out, name) != field.default:
            raise UsageError(
                f"acorn cannot export a network with model.{name}={getattr(config, name)} to llama.cpp.",
                where="--format gguf",
                fix="use --format hf",
            )
    if tokenizer.kind != "bpe" or not _is_gpt2_bpe(tokenizer):
        raise InputError(
            f"llama.cpp has no equivalent of this {tokenizer.kind} tokenizer.",
            where="tokenizer.json",
            fix="use --format hf, or train with tokenizer.kind=bpe",
        )
    if len(end_ids) > len(END_TOKEN_KINDS):
        raise InputError(
            f"This model has {len(end_ids)} tokens that end a text; a GGUF file can name only {len(END_TOKEN_KINDS)}.",
            where=f"eos_token_id {list(end_ids)}",
            fix="use --format hf",
        )
    widths = {
        "model.n_embd": config.n_embd,
        "the MLP's hidden width": config.mlp_hidden,
        "the width of all heads": config.heads * config.head_dim,
    }
    odd = [name for name, width in widths.items() if width % Q8_0_BLOCK]
    if dtype == "q8_0" and odd:
        raise UsageError(
            f"q8_0 needs widths that are multiples of {Q8_0_BLOCK}, but {odd[0]} is {widths[odd[0]]}.",
            where="--dtype q8_0",
            fix="use --dtype f16",
        )


def tokenizer_of(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a file that acorn wrote, rebuilt from its entries by GPT-2's rules, as llama.cpp does."""
    fields = gguf_package().GGUFReader(path).fields
    pieces, kinds, merges, first, begins = (
        fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "token_type", "merges", "bos_token_id", "add_bos_token")
    )
    kind = gguf_package().TokenType
    added = {piece: id_ for id_, piece in enumerate(pieces) if kinds[id_] in (kind.CONTROL, kind.USER_DEFINED)}
    vocabulary = {piece: id_ for id_, piece in enumerate(pieces) if kinds[id_] != kind.UNUSED}
    read = tokenizers.Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    read.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    read.add_tokens([AddedToken(piece, normalized=False) for piece in added])
    if begins:
        bos = pieces[first]
        read.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, first)])
    return read


def _is_gpt2_bpe(tokenizer: Tokenizer) -> bool:
    """Whether it is byte-level BPE that splits text with GPT-2's pattern and does not normalize it."""
    spec = json.loads(tokenizer.to_json())
    pre_tokenizer = spec["pre_tokenizer"] or {}
    return (
        spec["normalizer"] is None
        and pre_tokenizer.get("type") == "ByteLevel"
        and not pre_tokenizer.get("add_prefix_space")
        and pre_tokenizer.get("use_regex", True)
        and not spec["model"].get("ignore_merges")
        and len(tokenizer.encode_prompt("")) <= 1
        and not any(token["lstrip"] or token["rstrip"] for token in spec["added_tokens"])
    )


_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def _tensors(config: ModelConfig, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, NDArray[np.float32], bool]]:
    """Name in the file, values in the file's layout, and whether they have the file's data type instead of f32."""
    library = gguf_package()
    layout = layout_of(config)
    names = library.get_tensor_name_map(library.MODEL_ARCH[layout.model_type.upper()], config.n_layer)
    for theirs, tensor in to_hugging_face(config, weights).items():
        place = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert place is not None, f"GGUF has no name for {theirs}"
        is_matrix = tensor.ndim == 2 and place not in FP32_TENSORS
        if is_matrix and theirs.startswith(
            "transformer.h."
        ):  # GPT-2's layout stores the matrices of a block as (in, out)
            tensor = tensor.T
        if layout is LLAMA and theirs.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = _interleaved(tensor, config.head_dim)
        yield place, tensor.detach().to("cpu", torch.float32).contiguous().numpy(), is_matrix


def _interleaved(matrix: Tensor, head_dim: int) -> Tensor:
    """The weight matrix (heads * head_dim, C) of queries or keys, its rows in llama.cpp's order for Llama.

    Rotary embeddings rotate pairs of rows: (0, D/2), (1, D/2 + 1), ... here and in Hugging Face's files, adjacent rows
    in llama.cpp and in Meta's files. The attention scores are the same.
    """
    halves = matrix.unflatten(0, (-1, 2, head_dim // 2))  # (H, 2, D/2, C)
    return halves.transpose(1, 2).flatten(0, 2)


def _add_shape(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.mlp_hidden)
    writer.add_head_count(config.heads)
    writer.add_vocab_size(config.vocab_size)
    if config.architecture == "gpt2":
        writer.add_layer_norm_eps(config.epsilon)
        return
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.epsilon)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)


def _add_bases(writer: gguf.GGUFWriter, bases: Sequence[Base]) -> None:
    """`general.base_model.*`: the name of each base, and the address of those on the Hub."""
    if bases:
        writer.add_base_model_count(len(bases))
    for number, base in enumerate(bases):
        owner, _, name = base.name.rpartition("/")
        writer.add_base_model_name(number, name)
        if base.version:
            writer.add_base_model_version(number, base.version)
        if base.kind == "hub":
            writer.add_base_model_organization(number, owner)
            writer.add_base_model_repo_url(number, f"https://huggingface.co/{base.name}")


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Pieces, token types and merges. Prompts begin with the same token as in `Tokenizer.encode_prompt`, if any."""
    kinds = gguf_package().TokenType
    spec: dict[str, Any] = json.loads(tokenizer.to_json())
    pieces = {identifier: piece for piece, identifier in spec["model"]["vocab"].items()}
    types = dict.fromkeys(pieces, kinds.NORMAL)
    for token in spec["added_tokens"]:
        pieces[token["id"]] = token["content"]
        types[token["id"]] = kinds.CONTROL if token["special"] else kinds.USER_DEFINED
    ids = range(tokenizer.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([pieces.get(identifier, f"<|unused_{identifier}|>") for identifier in ids])
    writer.add_token_types([types.get(identifier, kinds.UNUSED) for identifier in ids])
    merges = spec["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.document_start[-1])
    writer.add_add_bos_token(bool(tokenizer.encode_prompt("")))
    writer.add_add_eos_token(False)
    if tokenizer.pad == bpe.PAD:
        writer.add_pad_token_id(tokenizer.pad_id)


def gguf_package() -> Any:
    """The package gguf, maintained by the llama.cpp project."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise MissingPackageError("gguf", "gguf", purpose="Writing a GGUF file") from None
    return gguf
