"""Merges an adapter in PEFT's form into the weights of the model that it belongs to; no files are accessed.

PEFT keeps the weights of the base model and adds the adapter at each forward. acorn adds it once, when it loads the
model, in the layout of transformers, whose names the adapter has. What those weights cannot express is refused: factors
for only one side of a matrix that embedding and head share, or a module that acorn does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from acorn.checkpoint.adapter_config import AdapterConfig
from acorn.checkpoint.adapter_tensors import EMBEDDING_A, EMBEDDING_B, FACTOR_A, FACTOR_B, PREFIX, ROWS
from acorn.checkpoint.layouts import GPT2, from_hugging_face, layout_of, storable_head, stored_name, to_hugging_face
from acorn.checkpoint.tensor_files import MAX_LISTED, READABLE_DTYPES
from acorn.config import ModelConfig
from acorn.errors import InputError
from acorn.model.label_head import HeadSpec

PARTNERS = {FACTOR_A: FACTOR_B, FACTOR_B: FACTOR_A, EMBEDDING_A: EMBEDDING_B, EMBEDDING_B: EMBEDDING_A}
"""Ending of a factor's name -> that of its partner."""


def merge_adapter(
    config: AdapterConfig,
    tensors: Mapping[str, Tensor],
    model: ModelConfig,
    weights: Mapping[str, Tensor],
    head: HeadSpec | None = None,
    where: Path = Path(),
) -> dict[str, Tensor]:
    """The weights of a model with an adapter merged into them, in fp32, under the same names as `weights`.

    Args:
        config, tensors: of the adapter; every factor has its partner (see `lonely_factors`).
        weights: all parameters of `GPT(model, head=head)`.
        where: the adapter's folder, for messages.

    Raises:
        InputError: the adapter does not fit the model, or makes changes that its weights cannot express.
    """
    head, all_weights = storable_head(head, weights)
    merging = _Merging(config, model, to_hugging_face(model, all_weights, head), head)
    merging.add({name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()})
    bias = merging.stored.get(stored_name(layout_of(model), "score.bias", head))
    if bias is not None and "score.bias" not in weights and bias.any():
        merging.faults.append("its label head has a bias, and the model's has none")
    if faults := merging.faults:
        more = [f"and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
        raise InputError(
            "The adapter does not fit the model:\n" + "\n".join(f"  - {fault}" for fault in faults[:MAX_LISTED] + more),
            where=str(where),
            fix="use it with the model that it was trained for, or with the PEFT library",
        )
    merged = from_hugging_face(model, merging.stored, head)
    return {name: merged[name].contiguous() for name in weights}


def lonely_factors(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of missing factors whose partner the adapter has."""
    missing = []
    for name in tensors:
        for ending, other in PARTNERS.items():
            if name.endswith(ending) and name.removesuffix(ending) + other not in tensors:
                missing.append(name.removesuffix(ending) + other)
    return missing


class _Merging:
    """The weights of a model while an adapter is added to them, and the adapter's faults.

    Attributes:
        stored: names in the layout -> weights, in fp32.
        faults: one line each.
    """

    def __init__(
        self, config: AdapterConfig, model: ModelConfig, stored: Mapping[str, Tensor], head: HeadSpec | None
    ) -> None:
        self.config = config
        self.layout = layout_of(model)
        self.stored = {name: weight.float() for name, weight in stored.items()}
        self.embedding = self.layout.outer["token_embedding"]
        self.head = self.layout.outer["head"]
        self.is_tied = model.is_tied and head is None
        self.faults: list[str] = []

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Adds all tensors of an adapter, whose names are those of the layout with PEFT's endings."""
        for name, tensor in tensors.items():
            if tensor.dtype not in READABLE_DTYPES:
                self.faults.append(f"{name} has the data type {tensor.dtype}; acorn reads fp32, fp16 and bf16")
            elif name.endswith((FACTOR_A, EMBEDDING_A)):
                ending = FACTOR_A if name.endswith(FACTOR_A) else EMBEDDING_A
                module = name.removesuffix(ending)
                self._add_product(module, tensor.float(), tensors[module + PARTNERS[ending]].float(), ending)
            elif name.endswith(ROWS):
                self._set_rows(name.removesuffix(ROWS), tensor.float())
            elif not name.endswith((FACTOR_B, EMBEDDING_B)):
                self._replace(name, tensor, tensors)
        self._check_all_there(tensors)

    def _add_product(self, module: str, a: Tensor, b: Tensor, ending: str) -> None:
        """W + scale * B A for the matrix of a module.

        Args:
            a: (r, inputs), of an embedding (r, V).
            b: (outputs, r), of an embedding (C, r).
        """
        name = f"{module}.weight"
        weight = self.stored.get(name)
        if self.is_tied and module in (self.embedding, self.head):
            self.faults.append(f"{module} has factors, but shares its matrix, which would change the other side too")
            return
        if weight is None or weight.ndim != 2:
            self.faults.append(f"{module} has factors, but is no matrix of the model")
            return
        rank = self.config.rank_of(module)
        if a.ndim != 2 or b.ndim != 2 or not len(a) == b.size(1) == rank:
            self.faults.append(f"{module} has factors {_shape(b)} and {_shape(a)}, not of the rank {rank}")
            return
        product = self.config.scale_of(module) * (b @ a)  # (outputs, inputs)
        is_transposed = self.layout is GPT2 and module.startswith(f"{GPT2.block}.")
        product = self._without_padding(module, product.T if is_transposed or ending == EMBEDDING_A else product)
        if product.shape != weight.shape:
            self.faults.append(f"the factors of {module} give {_shape(product)}; its matrix is {_shape(weight)}")
            return
        self.stored[name] = weight + product

    def _set_rows(self, module: str, rows: Tensor) -> None:
        """Replaces rows (n, C) of the embedding or the head, or of both if they are tied."""
        weight = self.stored.get(f"{module}.weight")
        tokens = self.config.tokens_of(module, self.embedding)
        if weight is None or module not in (self.embedding, self.head):
            self.faults.append(f"{module} has rows of tokens, but is not the embedding or the head of the model")
        elif rows.shape != (len(tokens), weight.size(1)):
            self.faults.append(
                f"{module} has rows of the shape {_shape(rows)}, not {[len(tokens), weight.size(1)]}, one for each of "
                "trainable_token_indices"
            )
        elif tokens and not 0 <= min(tokens) <= max(tokens) < len(weight):
            self.faults.append(
                f"trainable_token_indices has {max(tokens):,}, but the model only {len(weight):,} tokens"
            )
        else:
            changed = weight.clone()
            changed[tokens] = rows
            self.stored[f"{module}.weight"] = changed

    def _replace(self, name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Replaces a whole weight or bias: of a label head, or of another module that was trained whole."""
        name = name.replace(".base_layer.", ".")
        module = name.rpartition(".")[0]
        if self.is_tied and module in (self.embedding, self.head):
            pair = [tensors.get(f"{both}.weight") for both in (self.embedding, self.head)]
            if pair[0] is None or pair[1] is None or not torch.equal(pair[0], pair[1]):
                self.faults.append(f"{name} was trained apart, but embedding and head of the model are one matrix")
                return
            name, module = f"{self.embedding}.weight", self.embedding
        tensor = self._without_padding(module, tensor.float())
        if name not in self.stored:
            self.faults.append(f"{name} is not part of the model")
        elif tensor.shape != self.stored[name].shape:
            self.faults.append(f"{name} has the shape {_shape(tensor)}, not {_shape(self.stored[name])}")
        else:
            self.stored[name] = tensor

    def _without_padding(self, module: str, tensor: Tensor) -> Tensor:
        """The tensor without rows beyond the tokenizer's vocabulary, which acorn drops when it loads a model."""
        if module not in (self.embedding, self.head):
            return tensor
        weight = self.stored.get(f"{module}.weight")
        return tensor if weight is None else tensor[: len(weight)]

    def _check_all_there(self, tensors: Mapping[str, Tensor]) -> None:
        """Adds a fault for everything that the adapter's config names and its tensors do not have."""
        modules = [name.removesuffix(".weight") for name in self.stored if name.endswith(".weight")]
        for module in modules:
            is_matrix = module.startswith(f"{self.layout.block}.") and self.stored[f"{module}.weight"].ndim == 2
            if is_matrix and self.config.is_target(module) and module + FACTOR_A not in tensors:
                self.faults.append(f"{module} is named in target_modules, but has no factors")
            if module.endswith(tuple(self.config.modules_to_save or ())) and f"{module}.weight" not in tensors:
                self.faults.append(f"{module} is named in modules_to_save, but is not there")
            if self.config.tokens_of(module, self.embedding) and module + ROWS not in tensors:
                self.faults.append(f"{module} is named in trainable_token_indices, but has no rows")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
