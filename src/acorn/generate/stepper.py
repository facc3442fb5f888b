"""Computes logits for many sequences at once: reads their prompts, and then continues all of them token by token.

A sequence may join or leave between any two steps (continuous batching: Yu et al. 2022, Orca), because each has its own
length in the cache. Prompts are read one sequence at a time, in chunks that always begin at the same positions. Where
decoding runs in acorn's C code, the logits of a sequence are therefore the same, to the last bit, whatever else is
computed beside it. PyTorch's matmuls round differently for batches of other sizes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

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
        self.chunk = chunk_tokens(model)
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

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        """Feeds the ids of a sequence that is empty so far, in chunks; returns the next logits (V,)."""
        while True:
            states = self.read_chunk(slot, ids)
            if self.tokens(slot) == len(ids):
                return self.logits(states[-1])

    def read_chunk(self, slot: int, ids: Sequence[int]) -> Tensor:
        """Feeds the next chunk of `ids`, all of which are the sequence; returns its final hidden states (T, C).

        A rest of at most a quarter of a chunk is read with the last one: few rows take almost as long as many.
        """
        sequence = self._cache.narrow(slot, 1)
        begin = sequence.longest
        end = begin + self.chunk if begin < self.whole_chunks(len(ids)) else len(ids)
        states: Tensor = self.model.hidden(torch.tensor([ids[begin:end]], device=self.device), sequence)  # (1, T, C)
        return states[0]

    def whole_chunks(self, length: int) -> int:
        """Tokens of a sequence that are read in whole chunks, before its rest.

        What was stored of another sequence may replace these and no others: the same tokens, read with a rest, have
        other bits, because matmuls of more rows round differently.
        """
        return max(0, length - self.chunk // 4 - 1) // self.chunk * self.chunk

    def logits(self, states: Tensor) -> Tensor:
        """Logits of final hidden states (..., C)."""
        logits: Tensor = self.model.logits(states)
        return logits

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

    def step(self, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Feeds one token to each of the sequences in `slots`; returns the next logits (n, V).

        Other sequences in the cache must have room for a token: PyTorch computes one for each of them, too.
        """
        places = torch.tensor(slots)
        if self._native:
            return self._native(torch.tensor(tokens), self._cache, places)
        part = self._cache.narrow(0, max(slots) + 1)
        before = part.lengths.clone()
        ids = torch.zeros(len(before), 1, dtype=torch.long)
        ids[places, 0] = torch.tensor(tokens)
        x = self.model.hidden(ids.to(self.device), part)  # (B, 1, C)
        part.lengths.copy_(before)  # what was computed for the others is overwritten by their next token
        part.lengths[places] += 1
        return self.model.logits(x[places.to(self.device), -1])

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
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tokens = int(CHUNK_FLOPS / (2 * parameters))
    return min(max(SHORTEST_CHUNK, 1 << max(tokens, 1).bit_length() - 1), LONGEST_CHUNK)
