"""The whole network: a decoder-only transformer in three architectures, and its initial values.

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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acorn.config import ModelConfig
from acorn.model.attention import CausalAttention
from acorn.model.dropout import Dropout
from acorn.model.kv_cache import KVCache, LayerCache
from acorn.model.loss import LinearCrossEntropy


class GPT(nn.Module):
    """A language model: token ids in, logits of the next token out.

    Args:
        config: the shape; `vocab_size` must be set.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("model.vocab_size must be set before the network is built")
        self.config = config
        self.head_dim = config.head_dim
        modern = config.architecture == "modern"
        self.token_embedding = embedding(config.vocab_size, config.n_embd)
        self.position_embedding = None if modern else embedding(config.block_size, config.n_embd)
        self.embedding_dropout = Dropout(config.dropout if config.architecture == "gpt2" else 0.0)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = norm(config)
        self.head = Head(config)
        if config.is_tied:
            self.token_embedding.weight = self.head.weight

    def forward(
        self, ids: Tensor, targets: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits, or the loss when `targets` are given.

        Args:
            ids: token ids (B, T), T at most block_size (with a cache: together with what it holds).
            targets: the id that follows each token (B, T); positions of IGNORE do not count.
            cache: keys and values of earlier tokens; those of `ids` are added to it.

        Returns:
            logits (B, T, V); or (loss summed in fp32, in nats; count of target tokens), both scalars.
        """
        return self.head(self.hidden(ids, cache), targets)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Activations before the head (B, T, C)."""
        start = cache.position if cache else 0
        T = ids.size(1)
        if start + T > self.config.block_size:
            raise ValueError(f"{start + T} tokens are more than block_size ({self.config.block_size})")
        positions = torch.arange(start, start + T, device=ids.device)  # (T,)
        if cache is not None:
            positions = cache.positions(positions)  # (T,) or, with left padding, (B, T)
        x = self.token_embedding(ids)  # (B, T, C)
        rotation = None
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        else:
            rotation = rotary_tables(positions, self.head_dim, self.config.rope_theta)
        x = self.embedding_dropout(x)
        mask = cache.mask(T) if cache else None
        for number, block in enumerate(self.blocks):
            x = block(x, rotation, cache.layer(number) if cache else None, mask)
        if cache is not None:
            cache.advance(T)
        return self.final_norm(x)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draws every parameter anew, each as a function of (seed, its name) alone."""
        for name, parameter in self.named_parameters():
            generator = torch.Generator().manual_seed(_stream(seed, name))
            value = self._initial_value(name, parameter.shape, generator)
            parameter.copy_(value.to(parameter.device))

    def _initial_value(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """The initial value of one parameter (fp32, on the CPU).

        original: PyTorch's defaults (linear: uniform within 1/sqrt(fan in); embeddings: N(0, 1)).
        gpt2: N(0, 0.02), projections into the residual stream narrower by sqrt(2 n_layer); biases zero.
        modern: N(0, 1/fan in) in the blocks, their output projections zero, so that each block starts as the identity;
        embedding and head N(0, 0.02).
        """
        architecture = self.config.architecture
        module, kind = name.split(".")[-2:]
        normal = torch.empty(shape).normal_(generator=generator)
        if module.endswith("norm"):
            return torch.ones(shape) if kind == "weight" else torch.zeros(shape)
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
    """Attention, then MLP, each on the normed stream and added back to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = norm(config)
        self.attention = Attention(config)
        self.mlp_norm = norm(config)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor] | None, cache: LayerCache | None, mask: Tensor | None
    ) -> Tensor:
        x = x + self.attention(in_product_dtype(self.attention_norm(x)), rotation, cache, mask)
        return x + self.mlp(in_product_dtype(self.mlp_norm(x)))


class Attention(nn.Module):
    """Causal self-attention; several query heads may share a key and value head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = config.heads, config.kv_heads, config.head_dim
        modern = config.architecture == "modern"
        bias = config.architecture == "gpt2"
        self.q_proj = nn.Linear(config.n_embd, self.n_head * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(config.n_embd, self.n_kv_head * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(config.n_embd, self.n_kv_head * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.n_head * self.head_dim, config.n_embd, bias=not modern)
        qk_norm = modern and config.qk_norm
        self.q_norm = nn.RMSNorm(self.head_dim, config.epsilon) if qk_norm else None
        self.k_norm = nn.RMSNorm(self.head_dim, config.epsilon) if qk_norm else None
        self.place_heads = PlaceHeads()
        self.causal_attention = CausalAttention()
        self.weight_dropout = 0.0 if modern else config.dropout
        self.output_dropout = Dropout(0.0 if config.architecture == "original" else config.dropout)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor] | None, cache: LayerCache | None, mask: Tensor | None
    ) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.n_head, self.head_dim)
        k = self.k_proj(x).view(B, T, self.n_kv_head, self.head_dim)
        v = self.v_proj(x).view(B, T, self.n_kv_head, self.head_dim).transpose(1, 2)  # (B, K, T, D)
        q = self.place_heads(q, self.q_norm, rotation)  # (B, H, T, D)
        k = self.place_heads(k, self.k_norm, rotation)  # (B, K, T, D)
        if cache is not None:
            k, v = cache.add(k, v)  # (B, K, all tokens so far, D)
        dropout = self.weight_dropout if self.training else 0.0
        if q.is_cpu and torch.is_grad_enabled() and cache is None and (self.causal_attention.longest >= T or dropout):
            y = self.causal_attention(q, k, v, dropout)  # (B, H, T, D)
        else:
            y = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None and T > 1,
                enable_gqa=self.n_head != self.n_kv_head,
            )  # (B, H, T, D)
        return self.output_dropout(self.o_proj(y.transpose(1, 2).reshape(B, T, -1)))  # (B, T, C)


class PlaceHeads(nn.Module):
    """Norm and rotation of queries or keys. A module without parameters, so that others can take its place."""

    def forward(self, x: Tensor, norm: nn.RMSNorm | None, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """x (B, T, heads, D) becomes (B, heads, T, D), in its type."""
        dtype = x.dtype
        if norm is not None:
            x = norm(x.to(norm.weight.dtype))  # whatever the products' precision: norms over mixed types are not fused
        x = x.transpose(1, 2)
        return x if rotation is None else rotate(x, *rotation).to(dtype)


class MLP(nn.Module):
    """Two matrices around ReLU (original) or GELU (gpt2), or SwiGLU's three (modern)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.architecture = config.architecture
        modern = self.architecture == "modern"
        if modern:
            self.gate_proj = nn.Linear(config.n_embd, config.mlp_hidden, bias=False)
            self.swiglu = SwiGLU()
        if self.architecture == "gpt2":
            self.gelu = GELU()
        self.up_proj = nn.Linear(config.n_embd, config.mlp_hidden, bias=not modern)
        self.down_proj = nn.Linear(config.mlp_hidden, config.n_embd, bias=not modern)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.architecture == "original":
            return self.down_proj(self.dropout(F.relu(self.up_proj(x))))  # (B, T, F) -> (B, T, C)
        if self.architecture == "gpt2":
            return self.dropout(self.down_proj(self.gelu(self.up_proj(x))))
        return self.dropout(self.down_proj(self.swiglu(self.gate_proj(x), self.up_proj(x))))


class GELU(nn.Module):
    """The activation of gpt2's MLP. A module without parameters, so that others can take its place."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return F.gelu(x, approximate="tanh")


class SwiGLU(nn.Module):
    """The activation of modern's MLP. A module without parameters, so that others can take its place."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Of two (B, T, F)."""
        return F.silu(gate) * up


class Head(nn.Module):
    """Maps the stream to logits, or straight to the loss, without ever holding the logits of a whole batch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))
        self.cross_entropy = LinearCrossEntropy()

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if targets is None:
            return F.linear(x, self.weight)  # (B, T, V)
        return self.cross_entropy(x.flatten(0, 1), self.weight, targets.flatten())


def embedding(n: int, width: int) -> nn.Embedding:
    """A table of n vectors, zero until `init_weights`.

    The module's own first values would cost more than time: on the meta device, drawing normal ones loads PyTorch's
    compiler, for over a second (seen with 2.13).
    """
    return nn.Embedding.from_pretrained(torch.zeros(n, width), freeze=False)


def product_dtype(x: Tensor) -> torch.dtype:
    """The type that x is multiplied in: autocast's, where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def in_product_dtype(x: Tensor) -> Tensor:
    """x in the type that it is multiplied in: several products read it, and each would convert it by itself."""
    return x.to(product_dtype(x))


def norm(config: ModelConfig) -> nn.Module:
    """The architecture's norm over the stream."""
    kind = nn.RMSNorm if config.architecture == "modern" else nn.LayerNorm
    return kind(config.n_embd, config.epsilon)


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles.

    Args:
        positions: (T,) or (B, T).
        theta: base of the angles, which fall from 1 to 1 / theta (nearly) radians a position.

    Returns:
        two tables (T, D) or (B, 1, T, D) in fp32; the two halves of D are equal.
    """
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim)
    angles = positions.float()[..., None] * frequencies  # (..., T, D / 2)
    angles = torch.cat((angles, angles), dim=-1)
    if positions.dim() == 2:
        angles = angles.unsqueeze(1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (first half, second half) of a head by its position's angle. x: (B, H, T, D)."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos + turned * sin


def _stream(seed: int, name: str) -> int:
    """A 63-bit seed for one parameter's random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1
