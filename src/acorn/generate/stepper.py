"""Computes logits for many sequences at once: reads their prompts, and then continues all of them token by token.

A sequence may join or leave between any two steps (continuous batching: Yu et al. 2022, Orca), because each has its own
length in the cache. In acorn's C code the logits of a sequence are the same, to the last bit, whatever else is computed
beside it and in whatever parts its prompt is read. PyTorch's matmuls round differently for other numbers of rows; so
that equal prompts at least are read equally, they are then read in chunks that begin at fixed positions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from acorn.errors import UsageError
from acorn.kernels.build import Unavailable
from acorn.kernels.decode import NativeDecoder, c_code_note, native_decoder
from acorn.kernels.sample import native_sampler
from acorn.model.gpt import GPT
from acorn.model.kv_cache import KVCache
from acorn.progress import QUIET
from acorn.runtime.device import matmul_dtype

CHUNK_FLOPS = 4e9
"""Arithmetic of a chunk: tens of milliseconds on two cores, so that other sequences do not wait for a long prompt."""

SHORTEST_CHUNK, LONGEST_CHUNK = 16, 512
"""Tokens of a chunk: matmuls of fewer rows are slow, and more make others wait."""

PART_FLOPS, LONGEST_PART = 2.4e9, 128
"""Arithmetic and tokens of the parts of prompts that others wait for in C: about 20 ms on two cores, beside a step that
reads the weights anyway. With half of it, 16 clients got a sixth less, and waited longer for their first token."""

STORED_CHUNK = 32
"""Tokens of the chunks in which beginnings of prompts are kept, where C code reads prompts."""


class Feed(NamedTuple):
    """Tokens that a sequence is continued by.

    Attributes:
        slot: of the sequence.
        ids: its next tokens.
        wanted: logits are wanted for the last so many of them.
    """

    slot: int
    ids: Sequence[int]
    wanted: int = 1


class Stepper:
    """A model and the cache of the sequences that it continues.

    The model stays in eval mode while the stepper is used, which is the caller's to ensure; so is inference mode.

    Args:
        size: largest number of sequences at a time.
        length: largest number of tokens of a sequence; None: the model's context.
        decoder: `native` is compiled C for CPUs, `torch` is PyTorch, `auto` uses C where it is available.
        int8: the model's matrices were rounded to int8 (`round_to_int8`): the native decoder stores them as int8, and
            the cache is in bf16.
        note: called with a line for the user if no C code is used on a CPU.

    Attributes:
        sampler: chooses tokens in C; None: PyTorch does.
        reads_natively: prompts are read in C, where a token has the same keys and values in whatever parts it is read.
        chunk: length of the chunks in which beginnings of prompts may be stored.

    Raises:
        UsageError: the native decoder is asked for and unavailable.
    """

    def __init__(
        self,
        model: GPT,
        size: int,
        length: int | None = None,
        *,
        decoder: str = "auto",
        int8: bool = False,
        note: Callable[[str], None] = QUIET.note,
    ) -> None:
        self.model = model
        self.device = model.device
        # The type in which the layers compute keys and values, so that the cache is never converted.
        dtype = matmul_dtype(self.device.type, model.dtype)
        self._native = None if decoder == "torch" else self._native_decoder(dtype, decoder, int8, note)
        if int8:  # int8 weights have larger rounding errors, and memory bandwidth is the limit
            dtype = torch.bfloat16
        sampler = Unavailable("PyTorch is asked for") if decoder == "torch" else native_sampler()
        self.sampler = None if isinstance(sampler, Unavailable) else sampler
        self.length = min(length or model.config.block_size, model.config.block_size)
        # PyTorch reads prompts faster than C where the hardware multiplies bf16.
        self.reads_natively = self._native is not None and (int8 or dtype == torch.float32)
        self.chunk = STORED_CHUNK if self.reads_natively else chunk_tokens(model)
        self._part = min(max(1, int(PART_FLOPS / (2 * n_parameters(model)))), LONGEST_PART)
        self._cache = KVCache(model.config, size, self.length, self.device, dtype)
        self._free = list(range(size))  # a heap: low numbers are used first

    @property
    def has_room(self) -> bool:
        """Whether another sequence can join."""
        return bool(self._free)

    def join(self) -> int:
        """Makes room for a sequence; returns its slot, by which the other methods know it."""
        return heapq.heappop(self._free)

    def leave(self, slot: int) -> None:
        """Frees the slot of a sequence."""
        self.forget(slot)
        heapq.heappush(self._free, slot)

    def forget(self, slot: int) -> None:
        """Empties the cache of a sequence, which can then be read again."""
        self._cache.lengths[slot] = 0

    def tokens(self, slot: int) -> int:
        """Tokens of a sequence in the cache."""
        return int(self._cache.lengths[slot])

    def part_end(self, slot: int, length: int, room: int) -> int:
        """Where the part of a prompt ends that is read next.

        Args:
            length: of the whole prompt.
            room: largest number of tokens; PyTorch reads a whole chunk, whatever it is.
        """
        begin = self.tokens(slot)
        if self.reads_natively:
            return min(length, begin + room)
        return begin + self.chunk if begin < self.whole_chunks(length) else length

    @property
    def part_size(self) -> int:
        """Tokens of prompts that are read beside a step, at most; in PyTorch 1, which makes it read one chunk."""
        return self._part if self.reads_natively else 1

    def whole_chunks(self, length: int) -> int:
        """Tokens of a prompt that may be replaced by what was stored of another one, in whole chunks.

        In PyTorch these are the tokens that are read in whole chunks. A short rest is read with the chunk before it,
        because few rows take almost as long as many; the same tokens, read with a rest, have other bits. In C any are,
        but something must be left to be read.
        """
        rest = 0 if self.reads_natively else self.chunk // 4
        return max(0, length - rest - 1) // self.chunk * self.chunk

    def feed(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """Continues sequences, each at most once; returns the logits that each feed wants (n, V).

        Other sequences in the cache must have room for a token: PyTorch computes one for each of them, too.
        """
        if self._native and self.reads_natively:
            return self._feed_natively(self._native, feeds)
        is_step = [len(feed.ids) == 1 and self.tokens(feed.slot) > 0 for feed in feeds]
        steps = [feed for feed, is_one in zip(feeds, is_step, strict=True) if is_one]
        rows = iter(self._step(steps) if steps else ())
        return [next(rows)[None] if is_one else self._read(feed) for feed, is_one in zip(feeds, is_step, strict=True)]

    def stored(self, slot: int, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens `begin .. end - 1` of a sequence, each (n_layer, K, T, D), in the cache."""
        return self._cache.keys[:, slot, :, begin:end], self._cache.values[:, slot, :, begin:end]

    def restore(self, slot: int, begin: int, keys: Tensor, values: Tensor) -> None:
        """Continues a sequence of `begin` tokens by others, whose keys and values `stored` gave."""
        end = begin + keys.size(2)
        own_keys, own_values = self.stored(slot, begin, end)
        own_keys.copy_(keys)
        own_values.copy_(values)
        self._cache.lengths[slot] = end

    def _feed_natively(self, native: NativeDecoder, feeds: Sequence[Feed]) -> list[Tensor]:
        ids: list[int] = []
        slots: list[int] = []
        rows: list[int] = []
        for feed in feeds:
            ids += feed.ids
            slots += [feed.slot] * len(feed.ids)
            rows += range(len(ids) - feed.wanted, len(ids))
        logits = native(torch.tensor(ids), self._cache, torch.tensor(slots), torch.tensor(rows, dtype=torch.long))
        return list(logits.split([feed.wanted for feed in feeds]))

    def _read(self, feed: Feed) -> Tensor:
        """A part of a prompt, in PyTorch."""
        sequence = self._cache.narrow(feed.slot, 1)
        x = self.model.hidden(torch.tensor([list(feed.ids)], device=self.device), sequence)  # (1, T, C)
        logits: Tensor = self.model.logits(x[0, len(feed.ids) - feed.wanted :])
        return logits

    def _step(self, feeds: Sequence[Feed]) -> Tensor:
        """One token of each of several sequences, in PyTorch or C; logits (n, V)."""
        tokens, places = torch.tensor([feed.ids[0] for feed in feeds]), torch.tensor([feed.slot for feed in feeds])
        if self._native:
            return self._native(tokens, self._cache, places)
        part = self._cache.narrow(0, int(places.max()) + 1)
        before = part.lengths.clone()
        ids = torch.zeros(len(before), 1, dtype=torch.long)
        ids[places, 0] = tokens
        x = self.model.hidden(ids.to(self.device), part)  # (B, 1, C)
        part.lengths.copy_(before)  # what was computed for the others is overwritten by their next token
        part.lengths[places] += 1
        logits: Tensor = self.model.logits(x[places.to(self.device), -1])
        return logits

    def _native_decoder(
        self, dtype: torch.dtype, decoder: str, int8: bool, note: Callable[[str], None]
    ) -> NativeDecoder | None:
        """The compiled decoder; None where it is unavailable."""
        native = native_decoder(self.model, dtype, int8=int8, batch_invariant=True)
        if isinstance(native, Unavailable) and decoder == "native":
            raise UsageError(
                f"The native decoder is unavailable: {native.reason}.", where="--decoder", fix="use auto or torch"
            )
        line = c_code_note(native if isinstance(native, Unavailable) else native.library)
        if line and self.device.type == "cpu":
            note(line)
        return None if isinstance(native, Unavailable) else native


def chunk_tokens(model: GPT) -> int:
    """Tokens of a chunk, a power of two that depends on the model's size and the kind of device only.

    Were it chosen by the clock, equal prompts would be cut in different places, and round differently.
    """
    if model.device.type != "cpu":
        return LONGEST_CHUNK
    tokens = int(CHUNK_FLOPS / (2 * n_parameters(model)))
    return min(max(SHORTEST_CHUNK, 1 << max(tokens, 1).bit_length() - 1), LONGEST_CHUNK)


def n_parameters(model: GPT) -> int:
    """Number of parameters; twice as many floating point operations are one token's arithmetic."""
    return sum(parameter.numel() for parameter in model.parameters())
