"""GGUF, the file of llama.cpp and of what is built on it (Ollama, LM Studio): weights and tokenizer in one.

llama.cpp calls the networks as Hugging Face does: `gpt2`, and for `modern` qwen3 or llama, tensor for tensor, but for a
Llama's queries and keys (`_interleaved`). Its gpt2 has GELU only, so `original` cannot go there.
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
BLOCK_OF_Q8_0 = 32
"""Numbers that share a scale in q8_0; rows must be a multiple of it."""

EXPRESSED = frozenset(
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
"""Switches of the network that this file knows: what they change is written, or changes nothing in a trained model."""

ENDS = ("eos", "eot", "eom")
"""What a file can name: the ends of a text, of a turn, of a message. llama.cpp stops at each of them alike."""

ALWAYS_FP32 = ("position_embd.weight",)
"""Small tables that llama.cpp keeps in fp32, as it does everything of one dimension."""


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
    """Writes model and tokenizer as the file `path`.

    Args:
        weights: under the names of `GPT.named_parameters()`, without padded rows of the vocabulary.
        dtype: of the matrices; vectors stay fp32.
        name: what runtimes show as the model's name.
        chat_template: Jinja source of how a conversation becomes text; empty: there is none.
        end_ids: tokens that end a text, three at most; none: the separator does.
        bases: the models that this one was trained further from, nearest first.

    Raises:
        UsageError: llama.cpp has no such network, or `dtype` does not fit its sizes.
        InputError: llama.cpp has no such tokenizer.
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
    for name_of_end, end in zip(ENDS, end_ids or (tokenizer.separator_id,), strict=False):
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
    """Reads a file that `write_gguf` wrote, and compares each number with the one it stands for.

    Returns:
        the largest difference, which is that of rounding to `dtype`.

    Raises:
        DamageError: a tensor is missing, was not asked for, or differs by more than rounding explains.
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
        # Written as "not within", since no comparison holds for NaN.
        if not np.all(difference <= _rounding(values, dtype if is_matrix else "f32")):
            faults.append(f"{place} differs by {difference.max():.3g}")
        largest = max(largest, float(difference.max()))
    faults += [f"{place} was not asked for" for place in stored]
    if faults:
        raise DamageError(
            f"The file does not hold the weights that were written: {', '.join(faults[:8])}.",
            where=str(path),
            fix="check the disk; nothing was kept. Weights too large for f16 fit into bf16",
        )
    return largest


def _rounding(values: NDArray[np.float32], dtype: GGUFType) -> NDArray[Any]:
    """How far each number may move when it is stored as `dtype`."""
    size = np.abs(values)
    if dtype == "q8_0":  # in steps of 1/127 of the block's largest number, and those are stored as f16
        blocks = size.reshape(-1, BLOCK_OF_Q8_0)
        size = np.broadcast_to(blocks.max(axis=1, keepdims=True), blocks.shape).reshape(values.shape)
    return ROUNDING[dtype] * size + (SMALLEST_F16 if dtype in ("f16", "q8_0") else 0)


ROUNDING = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.57 / 127}
"""Largest error of each type, as a share of the number (q8_0: of the largest in its block)."""

SMALLEST_F16 = 127 * 2**-25
"""What numbers and q8_0's steps too small for f16's full precision are off by at most."""


def check_expressible(config: ModelConfig, tokenizer: Tokenizer, dtype: GGUFType, end_ids: Sequence[int] = ()) -> None:
    """Refuses what a GGUF file cannot say exactly.

    Raises:
        UsageError: the network, or the type for its sizes.
        InputError: the tokenizer, or what ends a text.
    """
    if config.architecture == "original":
        raise UsageError(
            "llama.cpp has no network like the original: its GPT-2 has GELU where the original has ReLU.",
            where="--format gguf",
            fix="use --format hf, or train with model.architecture=gpt2 or modern",
        )
    spelled_out = config.spelled_out()
    for name, field in ModelConfig.model_fields.items():
        if name not in EXPRESSED and getattr(spelled_out, name) != field.default:
            raise UsageError(
                f"acorn cannot write a network with model.{name}={getattr(config, name)} for llama.cpp.",
                where="--format gguf",
                fix="use --format hf",
            )
    if tokenizer.kind != "bpe" or not _is_gpt2_bpe(tokenizer):
        raise InputError(
            f"llama.cpp has no tokenizer that gives the tokens of this {tokenizer.kind} tokenizer.",
            where="tokenizer.json",
            fix="use --format hf, or train with tokenizer.kind=bpe",
        )
    if len(end_ids) > len(ENDS):
        raise InputError(
            f"{len(end_ids)} tokens end this model's texts; a GGUF file can name {len(ENDS)}.",
            where=f"eos_token_id {list(end_ids)}",
            fix="use --format hf",
        )
    widths = {
        "model.n_embd": config.n_embd,
        "the MLP's hidden width": config.mlp_hidden,
        "the width of all heads": config.heads * config.head_dim,
    }
    odd = [name for name, width in widths.items() if width % BLOCK_OF_Q8_0]
    if dtype == "q8_0" and odd:
        raise UsageError(
            f"q8_0 takes {BLOCK_OF_Q8_0} numbers together, and {odd[0]} is {widths[odd[0]]}.",
            where="--dtype q8_0",
            fix="use --dtype f16",
        )


def tokenizer_of(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer that a file of ours describes, built from its entries by GPT-2's rules, as llama.cpp does."""
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
    """Byte-level BPE that splits text with GPT-2's own pattern and changes nothing before that."""
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
    """Name in the file, numbers as they lie there, and whether they take the file's type instead of f32."""
    library = gguf_package()
    layout = layout_of(config)
    names = library.get_tensor_name_map(library.MODEL_ARCH[layout.model_type.upper()], config.n_layer)
    for theirs, tensor in to_hugging_face(config, weights).items():
        place = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert place is not None, f"GGUF has no name for {theirs}"
        is_matrix = tensor.ndim == 2 and place not in ALWAYS_FP32
        if is_matrix and theirs.startswith("transformer.h."):  # GPT-2's layout keeps a block's matrices as (in, out)
            tensor = tensor.T
        if layout is LLAMA and theirs.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = _interleaved(tensor, config.head_dim)
        yield place, tensor.detach().to("cpu", torch.float32).contiguous().numpy(), is_matrix


def _interleaved(matrix: Tensor, head_dim: int) -> Tensor:
    """Rows (heads * head_dim, C) of queries or keys in the order in which llama.cpp rotates a Llama's.

    The pairs that turn together are (0, D/2), (1, D/2 + 1), ... with us and in Hugging Face's files, neighbours there
    and in Meta's own. The products of queries and keys are the same.
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
    """`general.base_model.*`: by name, and by address where a base is on the Hub."""
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
    """Pieces, kinds and merges. A prompt begins with what `Tokenizer.encode_prompt` puts there, if anything."""
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
    """The package gguf, kept by llama.cpp itself."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise MissingPackageError("gguf", "gguf", purpose="Writing a GGUF file") from None
    return gguf
