"""Reading a text in pieces through the cache equals reading it at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.model.kv_cache import KVCache

SHAPE = {"n_layer": 2, "n_embd": 16, "n_head": 4, "block_size": 12, "vocab_size": 23}
ARCHITECTURES = {
    "original": {"architecture": "original", "tied": False, "dropout": 0.1},
    "gpt2": {"architecture": "gpt2", "tied": True},
    "modern": {"architecture": "modern", "tied": False},
    "modern, grouped queries": {"architecture": "modern", "tied": True, "n_kv_head": 2},
}


@pytest.fixture(params=ARCHITECTURES, name="model")
def _model(request: pytest.FixtureRequest) -> GPT:
    """In fp64, so that a wrong position or mask cannot hide behind rounding."""
    model = GPT(ModelConfig(**SHAPE, **ARCHITECTURES[request.param])).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # no zeros: blocks of `modern` begin as the identity
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model


def cache_for(model: GPT, batch: int, length: int | None = None) -> KVCache:
    return KVCache(model.config, batch, length or model.config.block_size, dtype=torch.float64)


def read(model: GPT, ids: Tensor, cache: KVCache, lengths: Sequence[int]) -> Tensor:
    """Logits of `ids` (B, T), read in pieces of `lengths`."""
    assert sum(lengths) == ids.size(1)
    return torch.cat([model(part, cache=cache) for part in ids.split(list(lengths), dim=1)], dim=1)


@pytest.mark.parametrize(
    "lengths",
    [[12], [1] * 12, [11, 1], [1, 11], [5, 1, 1, 5], [3, 4, 5]],
    ids=lambda lengths: "+".join(map(str, lengths)),
)
@torch.no_grad()
def test_pieces_through_the_cache_equal_the_whole_text(model: GPT, lengths: list[int]) -> None:
    ids = torch.randint(23, (3, 12), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(read(model, ids, cache_for(model, 3), lengths), model(ids), rtol=0, atol=1e-9)


@pytest.mark.parametrize("tail", [[4], [1, 1, 1, 1], [2, 1, 1]], ids=lambda tail: "+".join(map(str, tail)))
@torch.no_grad()
def test_sequences_of_unequal_lengths_equal_single_ones(model: GPT, tail: list[int]) -> None:
    """Each prompt is read alone into its place in the cache, over what an earlier sequence left there."""
    generator = torch.Generator().manual_seed(2)
    prompts = [torch.randint(23, (n,), generator=generator) for n in (8, 1, 5, 7)]
    after = torch.randint(23, (4, 4), generator=generator)
    cache = cache_for(model, 4)
    model(torch.randint(23, (4, 12), generator=generator), cache=cache)
    cache.lengths.zero_()
    before = torch.cat([model(prompt[None], cache=cache.narrow(row, 1))[0, -1:] for row, prompt in enumerate(prompts)])
    assert cache.lengths.tolist() == [8, 1, 5, 7]

    together = read(model, after, cache, tail)

    for row, prompt in enumerate(prompts):
        alone = model(torch.cat((prompt, after[row]))[None])[0, len(prompt) - 1 :]
        torch.testing.assert_close(torch.cat((before[row : row + 1], together[row])), alone, rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_part_of_the_cache_shares_its_memory(model: GPT) -> None:
    ids = torch.randint(23, (4, 6), generator=torch.Generator().manual_seed(3))
    cache = cache_for(model, 4)
    part = cache.narrow(1, 2)
    expected = model(ids[1:3], cache=part)
    assert cache.lengths.tolist() == [0, 6, 6, 0]
    torch.testing.assert_close(expected, model(ids)[1:3], rtol=0, atol=1e-9)
    assert cache.keys[:, 1:3, :, :6].any()
    assert not cache.keys[:, ::3].any()


@torch.no_grad()
def test_a_cache_of_exactly_the_needed_length(model: GPT) -> None:
    ids = torch.randint(23, (1, 7), generator=torch.Generator().manual_seed(4))
    cache = cache_for(model, 1, length=7)
    torch.testing.assert_close(read(model, ids, cache, [5, 1, 1]), model(ids), rtol=0, atol=1e-9)
    assert cache.lengths.tolist() == [7]


@torch.no_grad()
def test_more_tokens_than_the_context_are_refused(model: GPT) -> None:
    cache = cache_for(model, 1)
    model(torch.zeros(1, 12, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="block_size"):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)
