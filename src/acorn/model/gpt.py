"""The architecture of the network, a decoder-only transformer in three variants, and its initial values.

Its layers, operations, loss and cache are in the files beside this one.

One config builds `original` and `gpt2` (GPT-2's layout: learned positions, LayerNorm, biases) and `modern` (the Qwen3
dense layout: rotary positions, RMSNorm, QK-norm, SwiGLU, no biases; without QK-norm it is Llama's). Every switch is
read once, at construction.

Shapes, one letter each:
    B  sequences of a batch          V  vocabulary entries (vocab_size)
    T  tokens of a sequence          C  width of the residual stream (n_embd)
    H  query heads (n_head)          D  width of a head (C / H, or head_width)
    K  key and value heads           F  hidden width of the MLP

Sources: Radford et al. 2019 (GPT-2); Su et al. 2021 (rotary positions); Zhang and Sennrich 2019 (RMSNorm);
Shazeer 2020 (SwiGLU); Ainslie et al. 2023 (grouped queries); Henry et al. 2020 (QK-norm).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container

import torch
from torch import Tensor, nn

from acorn.config import ModelConfig
from acorn.model.kv_cache import KVCache, LayerCache
from acorn.model.label_head import HeadSpec, LabelHead, count_targets
from acorn.model.layers import Dropout, Embedding, LayerNorm, RMSNorm
from acorn.model.lm_head import Head
from acorn.model.lora import LoraSpec, MarkupEmbedding, MarkupHead, freeze_base, is_new, linear_layer
from acorn.model.loss import Workspace
from acorn.model.ops import PYTORCH_OPS, Ops, Rotation, arange_like, rotary_tables


class GPT(nn.Module):
    """A language model: token ids in, logits of the next token out. Or, with a label head, labels or values.

    Args:
        config: the network's settings; `vocab_size` must be set.
        ops: the operations it computes with.
        workspace: memory for the head's logits; None: the head allocates its own.
        head: the label head that stands in place of the language model's; None: a language model.
        lora: what is trained beside the frozen weights of a base model; None: all weights are trained.
        frozen: number of first blocks that are not trained, nor are the embeddings (and a head that is tied to them);
            if it is all blocks, nor is the final norm, so that the head alone is trained. 0: all weights are trained.

    Attributes:
        head: the language model's head; None with a label head.
        score: the label head; None for a language model.
        draws_random_numbers: whether a forward in training mode depends on PyTorch's random numbers.
    """

    def __init__(
        self,
        config: ModelConfig,
        ops: Ops = PYTORCH_OPS,
        workspace: Workspace | None = None,
        *,
        head: HeadSpec | None = None,
        lora: LoraSpec | None = None,
        frozen: int = 0,
    ) -> None:
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("model.vocab_size must be set before the network is built")
        self.config, self.lora, self.frozen = config, lora, frozen
        self.draws_random_numbers = config.dropout > 0 or (lora is not None and lora.dropout > 0)
        self.head_dim = config.head_dim
        modern = config.architecture == "modern"
        markup_ids = lora.markup_ids if lora else ()
        self.token_embedding = (
            MarkupEmbedding(config.vocab_size, config.n_embd, ops, markup_ids)
            if markup_ids
            else Embedding(config.vocab_size, config.n_embd, ops)
        )
        self.position_embedding = None if modern else Embedding(config.block_size, config.n_embd, ops)
        self.embedding_dropout = Dropout(config.dropout if config.architecture == "gpt2" else 0.0, ops)
        self.blocks = nn.ModuleList(Block(config, ops, lora) for _ in range(config.n_layer))
        self.final_norm = norm(config, ops)
        self.head: Head | None = None
        self.score: LabelHead | None = None
        if head is not None:
            self.score = LabelHead(config.n_embd, head)
        elif markup_ids:
            self.head = MarkupHead(config, ops, workspace, markup_ids)
        else:
            self.head = Head(config, ops, workspace)
        if self.head is not None and config.is_tied:
            self.token_embedding.weight = self.head.weight
            if markup_ids:
                self.token_embedding.markup_rows = self.head.markup_rows
        if lora is not None:
            freeze_base(self, self.new_parameters(), lora)
        if frozen:
            self._freeze()

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return self.token_embedding.weight.dtype

    @property
    def head_spec(self) -> HeadSpec | None:
        """What the label head predicts; None for a language model."""
        return None if self.score is None else self.score.spec

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (of a label head: its outputs), or the loss if `targets` are given.

        Args:
            ids: token ids (B, T). T is at most block_size, including the tokens in the cache.
            targets: the id that follows each token (B, T); positions of IGNORE are ignored. For a label head, see
                `HeadSpec`.
            cache: keys and values of earlier tokens; those of `ids` are added to it.
            rows: indices (n,) into the flattened (B T) of the positions that the head computes; None: all. They must
                include every position whose target is counted.

        Returns:
            logits (B, T, V), with `rows` (n, V); or (loss summed in fp32, in nats; count of targets), both scalars.
        """
        x = self.hidden(ids, cache)
        if rows is not None:
            x = x.flatten(0, 1).index_select(0, rows)  # (B T, C) -> (n, C)
            targets = None if targets is None else targets.flatten(0, 1).index_select(0, rows)  # (B T) -> (n,)
        head: nn.Module | None = self.score if self.head is None else self.head
        assert head is not None
        result: Tensor | tuple[Tensor, Tensor] = head(x, targets)
        return result

    def logits(self, x: Tensor) -> Tensor:
        """Logits of the next token (..., V) for activations x (..., C).

        Raises:
            ValueError: the model has a label head instead.
        """
        if self.head is None:
            raise ValueError("a model with a label head does not predict the next token")
        logits: Tensor = self.head(x)
        return logits

    def count(self, targets: Tensor) -> float:
        """The counted targets of a batch on the CPU: what the sum of their losses is divided by."""
        return count_targets(targets, self.head_spec)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Activations after the final norm (B, T, C)."""
        T = ids.size(1)
        end = T + (cache.longest if cache else 0)
        if end > self.config.block_size:
            raise ValueError(f"{end} tokens are more than block_size ({self.config.block_size})")
        # (T,) or, where sequences have unequal lengths, (B, T)
        positions = cache.positions(T) if cache else arange_like(0, T, like=ids)
        x = self.token_embedding(ids)  # (B, T, C)
        rotation = None
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        else:
            rotation = rotary_tables(positions, self.head_dim, self.config.rope_theta)
        x = self.embedding_dropout(x)
        mask = cache.mask(T) if cache else None
        for number, block in enumerate(self.blocks):
            x = block(x, rotation, cache.layer(number, positions) if cache else None, mask)
        if cache is not None:
            cache.advance(T)
        return self.final_norm(x)

    def _freeze(self) -> None:
        """Takes the `frozen` first blocks and what is below them out of training."""
        parts: list[nn.Module | None] = [self.token_embedding, self.position_embedding, *self.blocks[: self.frozen]]
        if self.frozen == len(self.blocks):
            parts.append(self.final_norm)
        for part in parts:
            if part is not None:
                part.requires_grad_(False)

    def new_parameters(self) -> frozenset[str]:
        """Names of the parameters that no language model of this config has, so that a base model cannot give them."""
        return frozenset(name for name, _ in self.named_parameters() if name.startswith("score.") or is_new(name))

    @torch.no_grad()
    def init_weights(self, seed: int, names: Container[str] | None = None) -> None:
        """Sets every parameter to its initial value, a function of the seed and the parameter's name only.

        Args:
            names: only these parameters; None: all.
        """
        for name, parameter in self.named_parameters():
            if names is not None and name not in names:
                continue
            generator = torch.Generator().manual_seed(_parameter_seed(seed, name))
            value = self._initial_value(name, parameter.shape, generator)
            parameter.copy_(value)

    def _initial_value(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """The initial value of one parameter (fp32, on the CPU).

        original: PyTorch's defaults (linear: uniform within 1/sqrt(fan in); embeddings: N(0, 1)).
        gpt2: N(0, 0.02), divided by sqrt(2 n_layer) for projections into the residual stream; biases zero.
        modern: N(0, 1/sqrt(fan in)) in the blocks, but output projections zero, so that each block starts as the
        identity; embedding and head N(0, 0.02). The second argument of N is the standard deviation.
        A label head, in all of them: N(0, 0.02), as in GPT-2; its bias zero.
        LoRA, in all of them: A uniform within 1/sqrt(fan in), as in PEFT; B and the changes of rows zero.
        """
        architecture = self.config.architecture
        module, kind = name.split(".")[-2:]
        normal = torch.empty(shape).normal_(generator=generator)
        if kind == "lora_a":
            return torch.empty(shape).uniform_(-1, 1, generator=generator) / math.sqrt(shape[1])
        if kind in ("lora_b", "markup_rows"):
            return torch.zeros(shape)
        if module.endswith("norm"):
            return torch.ones(shape) if kind == "weight" else torch.zeros(shape)
        if module == "score":
            return torch.zeros(shape) if kind == "bias" else 0.02 * normal
        if architecture == "original":
            if module.endswith("embedding"):
                return normal
            fan_in = self.config.mlp_hidden if module == "down_proj" else self.config.n_embd
            return torch.empty(shape).uniform_(-1, 1, generator=generator) / math.sqrt(fan_in)
        if kind == "bias":
            return torch.zeros(shape)
        writes_to_stream = module in ("o_proj", "down_proj")
        if module == "head" or module.endswith("embedding"):
            return 0.02 * normal
        if architecture == "gpt2":
            return 0.02 / (math.sqrt(2 * self.config.n_layer) if writes_to_stream else 1) * normal
        return torch.zeros(shape) if writes_to_stream else normal / math.sqrt(shape[1])


class Block(nn.Module):
    """Attention, then MLP, each on the normalized residual stream and added to it (pre-norm)."""

    def __init__(self, config: ModelConfig, ops: Ops, lora: LoraSpec | None) -> None:
        super().__init__()
        self.matmul_dtype = ops.matmul_dtype
        self.attention_norm = norm(config, ops)
        self.attention = Attention(config, ops, lora)
        self.mlp_norm = norm(config, ops)
        self.mlp = MLPS[config.architecture](config, ops, lora)

    def forward(self, x: Tensor, rotation: Rotation | None, cache: LayerCache | None, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.to_matmul_dtype(self.attention_norm(x)), rotation, cache, mask)
        return x + self.mlp(self.to_matmul_dtype(self.mlp_norm(x)))

    def to_matmul_dtype(self, x: Tensor) -> Tensor:
        """x in the type of matmuls, converted once for the several matmuls that read it."""
        return x if self.matmul_dtype is None else x.to(self.matmul_dtype)


class Attention(nn.Module):
    """Causal self-attention; several query heads may share a key and value head."""

    def __init__(self, config: ModelConfig, ops: Ops, lora: LoraSpec | None) -> None:
        super().__init__()
        self.ops = ops
        self.n_head, self.n_kv_head, self.head_dim = config.heads, config.kv_heads, config.head_dim
        modern = config.architecture == "modern"
        bias = config.architecture == "gpt2"
        self.q_proj = linear_layer("q_proj", config.n_embd, self.n_head * self.head_dim, bias, ops, lora)
        self.k_proj = linear_layer("k_proj", config.n_embd, self.n_kv_head * self.head_dim, bias, ops, lora)
        self.v_proj = linear_layer("v_proj", config.n_embd, self.n_kv_head * self.head_dim, bias, ops, lora)
        self.o_proj = linear_layer("o_proj", self.n_head * self.head_dim, config.n_embd, not modern, ops, lora)
        qk_norm = modern and config.qk_norm
        self.q_norm = RMSNorm(self.head_dim, config.epsilon, ops) if qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.epsilon, ops) if qk_norm else None
        self.weight_dropout = 0.0 if modern else config.dropout
        self.output_dropout = Dropout(0.0 if config.architecture == "original" else config.dropout, ops)

    def forward(self, x: Tensor, rotation: Rotation | None, cache: LayerCache | None, mask: Tensor | None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.n_head, self.head_dim)  # (B, T, H, D)
        k = self.k_proj(x).view(B, T, self.n_kv_head, self.head_dim)  # (B, T, K, D)
        v = self.v_proj(x).view(B, T, self.n_kv_head, self.head_dim).transpose(1, 2)  # (B, K, T, D)
        q = self.qk_norm_rope(q, self.q_norm, rotation)  # (B, H, T, D)
        k = self.qk_norm_rope(k, self.k_norm, rotation)  # (B, K, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, K, all tokens so far, D)
        y = self.ops.attention(q, k, v, mask, self.weight_dropout if self.training else 0.0)  # (B, H, T, D)
        return self.output_dropout(self.o_proj(y.transpose(1, 2).reshape(B, T, -1)))  # (B, T, C)

    def qk_norm_rope(self, x: Tensor, norm: RMSNorm | None, rotation: Rotation | None) -> Tensor:
        """Queries or keys (B, T, heads, D), normalized, rotated and transposed to (B, heads, T, D)."""
        weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
        return self.ops.qk_norm_rope(x, weight, eps, rotation)


class ReluMLP(nn.Module):
    """The MLP of `original`: two matrices with ReLU and dropout between them."""

    def __init__(self, config: ModelConfig, ops: Ops, lora: LoraSpec | None) -> None:
        super().__init__()
        self.up_proj = linear_layer("up_proj", config.n_embd, config.mlp_hidden, True, ops, lora)
        self.down_proj = linear_layer("down_proj", config.mlp_hidden, config.n_embd, True, ops, lora)
        self.dropout = Dropout(config.dropout, ops)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up_proj(x, relu=True)  # (B, T, F)
        return self.down_proj(self.dropout(hidden))  # (B, T, C)


class GeluMLP(nn.Module):
    """The MLP of `gpt2`: two matrices with GELU between them."""

    def __init__(self, config: ModelConfig, ops: Ops, lora: LoraSpec | None) -> None:
        super().__init__()
        self.ops = ops
        self.up_proj = linear_layer("up_proj", config.n_embd, config.mlp_hidden, True, ops, lora)
        self.down_proj = linear_layer("down_proj", config.mlp_hidden, config.n_embd, True, ops, lora)
        self.dropout = Dropout(config.dropout, ops)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.ops.gelu(self.up_proj(x))  # (B, T, F)
        return self.dropout(self.down_proj(hidden))  # (B, T, C)


class SwigluMLP(nn.Module):
    """The MLP of `modern`: three matrices, one of them a gate."""

    def __init__(self, config: ModelConfig, ops: Ops, lora: LoraSpec | None) -> None:
        super().__init__()
        self.ops = ops
        self.gate_proj = linear_layer("gate_proj", config.n_embd, config.mlp_hidden, False, ops, lora)
        self.up_proj = linear_layer("up_proj", config.n_embd, config.mlp_hidden, False, ops, lora)
        self.down_proj = linear_layer("down_proj", config.mlp_hidden, config.n_embd, False, ops, lora)
        self.dropout = Dropout(config.dropout, ops)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.ops.swiglu(self.gate_proj(x), self.up_proj(x))  # (B, T, F)
        return self.dropout(self.down_proj(hidden))  # (B, T, C)


MLPS: dict[str, type[ReluMLP | GeluMLP | SwigluMLP]] = {"original": ReluMLP, "gpt2": GeluMLP, "modern": SwigluMLP}
"""Architecture -> its MLP."""


def norm(config: ModelConfig, ops: Ops) -> RMSNorm | LayerNorm:
    """The architecture's norm of the residual stream."""
    kind = RMSNorm if config.architecture == "modern" else LayerNorm
    return kind(config.n_embd, config.epsilon, ops)


def _parameter_seed(seed: int, name: str) -> int:
    """The 63-bit seed of one parameter's random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1
