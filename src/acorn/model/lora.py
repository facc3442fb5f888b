"""LoRA: small trained factors beside frozen matrices (Hu et al. 2021), and trained rows of a frozen embedding.

A matrix W (out, in) becomes W + alpha / r * B A, with A (r, in) and B (out, r), r much smaller than both. B is
initially zero, so training begins with the base model. Only the factors have gradients and optimizer state. A token
that the base model has never seen, such as the markup of conversations, has a meaningless embedding; changes of such
rows are trained too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acorn.config import LoraConfig, ModelConfig
from acorn.model.layers import Dropout, Embedding, Linear
from acorn.model.lm_head import Head
from acorn.model.loss import Workspace
from acorn.model.ops import Ops, arange_like

NEW_KINDS = (".lora_a", ".lora_b", ".markup_rows")
"""The names of LoRA's parameters end in these."""


@dataclass(frozen=True)
class LoraSpec:
    """Which matrices get factors, and of which size.

    Attributes:
        rank: r, rows of A and columns of B.
        alpha: the product of the factors is multiplied by alpha / rank.
        dropout: probability with which an element of A's input is dropped while training.
        targets: names of linear layers of the blocks, such as `q_proj`; empty: all of them.
        markup_ids: tokens whose rows of the embedding, and of the head, are trained.

    Raises:
        ValueError: a value out of range, or an id twice.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    markup_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA needs a rank of 1 or more, alpha above 0 and dropout in [0, 1), not {self}")
        if len(set(self.markup_ids)) < len(self.markup_ids):
            raise ValueError(f"a token is twice in {self.markup_ids}")

    @property
    def scale(self) -> float:
        """The factor of B A."""
        return self.alpha / self.rank


def lora_spec(settings: LoraConfig, markup_ids: tuple[int, ...] = ()) -> LoraSpec | None:
    """The LoRA of a run's settings; None: they have none. An alpha of 0 means twice the rank."""
    if not settings.rank:
        return None
    alpha = settings.alpha or 2.0 * settings.rank
    return LoraSpec(settings.rank, alpha, settings.dropout, settings.targets, markup_ids)


class LoraLinear(Linear):
    """A linear layer with a frozen matrix, to which the product of two trained factors is added."""

    def __init__(self, inputs: int, outputs: int, bias: bool, ops: Ops, spec: LoraSpec) -> None:
        super().__init__(inputs, outputs, bias, ops)
        self.scale = spec.scale
        self.lora_a = nn.Parameter(torch.empty(spec.rank, inputs))
        self.lora_b = nn.Parameter(torch.empty(outputs, spec.rank))
        self.dropout = Dropout(spec.dropout, ops)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (..., inputs) -> (..., outputs), optionally with ReLU."""
        y = self.ops.linear(x, self.weight, self.bias, False)
        narrow = self.ops.linear(self.dropout(x), self.lora_a, None, False)  # (..., r)
        y = y + self.ops.linear(narrow * self.scale, self.lora_b, None, False)
        return F.relu(y) if relu else y

    def merged_weight(self) -> Tensor:
        """W + alpha / r * B A."""
        return self.weight + self.scale * (self.lora_b @ self.lora_a)

    def replace_weight(self, weight: Tensor) -> None:
        """Sets the merged weight, in place."""
        super().replace_weight(weight)
        self.lora_b.zero_()


def linear_layer(name: str, inputs: int, outputs: int, bias: bool, ops: Ops, lora: LoraSpec | None) -> Linear:
    """The linear layer `name` of a block, with factors if it is one of the targets of `lora`."""
    if lora is None or (lora.targets and name not in lora.targets):
        return Linear(inputs, outputs, bias, ops)
    return LoraLinear(inputs, outputs, bias, ops, lora)


class MarkupEmbedding(Embedding):
    """A frozen embedding with trained changes (n, width) of some rows, which are initially zero."""

    def __init__(self, n: int, width: int, ops: Ops, ids: tuple[int, ...]) -> None:
        super().__init__(n, width, ops)
        self.markup_rows = nn.Parameter(torch.zeros(len(ids), width))
        place = {token: number for number, token in enumerate(ids)}
        self.places: Tensor
        """Token -> its row of `markup_rows`; len(ids) for all others."""
        self.register_buffer("places", torch.tensor([place.get(i, len(ids)) for i in range(n)]), persistent=False)
        self.ids: Tensor
        self.register_buffer("ids", torch.tensor(ids), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., width)."""
        changes = F.pad(self.markup_rows, (0, 0, 0, 1))  # (n + 1, width), the last row zero
        return super().forward(ids) + F.embedding(self.places[ids], changes)

    def merged_weight(self) -> Tensor:
        """The table with the changed rows."""
        return self.weight.index_add(0, self.ids, self.markup_rows)


class MarkupHead(Head):
    """A frozen head with trained changes (n, C) of some rows, initially zero; in a tied head, those of the
    embedding."""

    def __init__(self, config: ModelConfig, ops: Ops, workspace: Workspace | None, ids: tuple[int, ...]) -> None:
        super().__init__(config, ops, workspace)
        self.markup_rows = nn.Parameter(torch.zeros(len(ids), config.n_embd))
        self.ids: Tensor
        self.register_buffer("ids", torch.tensor(ids), persistent=False)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """x (..., C) -> logits (..., V); or, with targets (...), the loss summed in fp32 and the count of targets."""
        changes = F.linear(x, self.markup_rows).to(x.dtype)  # (..., n)
        if targets is None:
            logits = F.linear(x, self.weight)
            return logits.index_add(-1, self.ids, changes.to(logits.dtype))
        # [x, changes] [W, columns]^T = x W^T + changes columns^T, where a column selects a row of the vocabulary. So
        # the loss needs no gradient of the whole matrix, of which only these rows are trained.
        columns = arange_like(0, len(self.weight), like=self.ids)[:, None] == self.ids  # (V, n)
        return self.loss(torch.cat((x, changes), -1), torch.cat((self.weight, columns.to(self.weight)), 1), targets)

    def merged_weight(self) -> Tensor:
        """The matrix with the changed rows."""
        return self.weight.index_add(0, self.ids, self.markup_rows)

    def replace_weight(self, weight: Tensor) -> None:
        """Sets the merged weight, in place."""
        super().replace_weight(weight)
        self.markup_rows.zero_()


def is_new(name: str) -> bool:
    """Whether a parameter of this name is LoRA's."""
    return name.endswith(NEW_KINDS)


def freeze_base(model: nn.Module, new: Collection[str], spec: LoraSpec) -> None:
    """Freezes all parameters of a network with LoRA except the `new` ones.

    Raises:
        ValueError: a target of `spec` is not a linear layer of the blocks.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in new)
    layers = {name.split(".")[-2] for name in new if name.endswith(".lora_a")}
    if missing := set(spec.targets) - layers:
        raise ValueError(f"the blocks have no linear layer {', '.join(sorted(missing))}")


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights, by name, of a network without LoRA that computes the same as `model`.

    Without LoRA these are the parameters themselves. Nothing in `model` is changed.
    """
    weights = {}
    for name, parameter in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        if name.endswith(".weight") and isinstance(module, Linear | Embedding | Head):
            weights[name] = module.merged_weight().detach()
        elif not is_new(name):
            weights[name] = parameter.detach()
    return weights
