"""The native decoder, compared with the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_models import random_model_of

from acorn.config import ModelConfig
from acorn.errors import UsageError
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.kernels import decode
from acorn.kernels.build import Unavailable, c_library
from acorn.kernels.decode import NativeDecoder, native_decoder
from acorn.model.gpt import GPT
from acorn.model.int8 import quantize_rows, round_to_int8
from acorn.model.kv_cache import KVCache
from acorn.tokenizer.tokenizer import Tokenizer

on_each_cpu = pytest.mark.usefixtures("cpu")

SHAPES = [
    ("original", {}),
    ("gpt2", {}),
    ("modern", {}),
    ("modern", {"n_kv_head": 4, "n_embd": 256}),  # full vectors only
    ("modern", {"n_head": 5, "n_kv_head": 1, "n_embd": 90}),  # heads of 18: a full vector and a remainder
    ("gpt2", {"n_head": 3, "n_embd": 21}),  # remainders only
    ("modern", {"qk_norm": False, "rope_theta": 500.0, "norm_eps": 0.1, "head_width": 24, "n_inner": 50}),  # like Llama
]


@pytest.fixture
def no_cached_library() -> Iterator[None]:
    c_library.cache_clear()
    yield
    c_library.cache_clear()


def read(model: GPT, ids: torch.Tensor, lengths: list[int], dtype: torch.dtype) -> KVCache:
    """A cache with the first tokens of each sequence (B, T), as many as `lengths` says."""
    cache = KVCache(model.config, len(ids), 14, dtype=dtype)
    for row, length in enumerate(lengths):
        model.hidden(ids[row : row + 1, :length], cache.narrow(row, 1))
    return cache


@on_each_cpu
@pytest.mark.parametrize(("architecture", "shape"), SHAPES)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 20])
@torch.inference_mode()
def test_logits_and_cache_equal_the_models(architecture: str, shape: dict, batch: int) -> None:
    """Sequences of batches of 7 or more have different lengths; three tokens are decoded one after another."""
    model = random_model_of(architecture, 131, **shape).eval()
    lengths = [8 if batch < 7 else 8 - row % 7 for row in range(batch)]
    ids = torch.randint(131, (batch, 11), generator=torch.Generator().manual_seed(1))
    decoder = native_decoder(model, torch.float32)
    assert isinstance(decoder, NativeDecoder)
    ours, theirs = (read(model, ids, lengths, torch.float32) for _ in range(2))
    for place in (8, 9, 10):
        expected = model.head(model.hidden(ids[:, place : place + 1], theirs)[:, -1])
        torch.testing.assert_close(decoder(ids[:, place].contiguous(), ours), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.keys, theirs.keys, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-4, atol=1e-4)
        assert torch.equal(ours.lengths, theirs.lengths)


@on_each_cpu
@pytest.mark.parametrize(("architecture", "shape"), SHAPES)
@pytest.mark.parametrize(("batch", "tolerance"), [(1, 5e-4), (3, 5e-4), (5, 0.02), (12, 0.02), (35, 0.02)])
@torch.inference_mode()
def test_int8_equals_a_model_rounded_to_int8(architecture: str, shape: dict, batch: int, tolerance: float) -> None:
    """Inputs are rounded to int16; with AMX, from five sequences on, to bf16."""
    model = random_model_of(architecture, 131, **shape).eval()
    round_to_int8(model)
    ids = torch.randint(131, (batch, 9), generator=torch.Generator().manual_seed(1))
    ours, theirs = (read(model, ids, [8] * batch, torch.float32) for _ in range(2))
    decoder = native_decoder(model, torch.float32, int8=True)
    assert isinstance(decoder, NativeDecoder)
    expected = model.head(model.hidden(ids[:, 8:], theirs)[:, -1])
    assert (decoder(ids[:, 8].contiguous(), ours) - expected).abs().max() < tolerance * expected.abs().max()


@on_each_cpu
@pytest.mark.parametrize(("architecture", "shape"), SHAPES)
@pytest.mark.parametrize("batch", [2, 5, 35])
@torch.inference_mode()
def test_bf16_weights_and_cache(architecture: str, shape: dict, batch: int) -> None:
    """Compared with the same weights, rounded to bf16, in fp32. The difference is the bf16 cache and, with AMX from
    five sequences on, the bf16 inputs of matmuls."""
    model = random_model_of(architecture, 131, **shape).eval()
    rounded = model.bfloat16().float()
    ids = torch.randint(131, (batch, 9), generator=torch.Generator().manual_seed(1))
    ours, theirs = (read(rounded, ids, [8] * batch, dtype) for dtype in (torch.bfloat16, torch.float32))
    decoder = native_decoder(rounded, torch.bfloat16)
    assert isinstance(decoder, NativeDecoder)
    expected = rounded.head(rounded.hidden(ids[:, 8:], theirs)[:, -1])
    logits = decoder(ids[:, 8].contiguous(), ours)
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    assert (ours.keys[..., :9, :].float() - theirs.keys[..., :9, :]).abs().max() < 0.02 * theirs.keys.abs().max()


@on_each_cpu
@pytest.mark.parametrize(("architecture", "shape"), SHAPES)
@torch.inference_mode()
def test_prompts_are_read_in_parts_beside_single_tokens(architecture: str, shape: dict) -> None:
    """Several tokens of a sequence at once attend to those before them: the model's logits of the whole texts. To the
    last bit, they do not depend on the parts."""
    model = random_model_of(architecture, 131, **shape).eval()
    decoder = native_decoder(model, torch.float32, batch_invariant=True)
    assert isinstance(decoder, NativeDecoder)
    ids = torch.randint(131, (3, 9), generator=torch.Generator().manual_seed(1))
    expected = model(ids)  # (3, 9, V)

    def logits(parts: list[list[tuple[int, int, int]]]) -> torch.Tensor:
        """Logits (3, 9, V), where batches of parts (sequence, begin, end) are read one after another."""
        cache = KVCache(model.config, 5, 9)
        found = torch.zeros_like(expected)
        for batch in parts:
            places = [(row, place) for row, begin, end in batch for place in range(begin, end)]
            slots = torch.tensor([4 - row for row, _ in places])
            given = torch.stack([ids[place] for place in places])
            wanted = torch.arange(0, len(places), 2)
            before = cache.lengths.clone()
            some = decoder(given, cache, slots, wanted)
            cache.lengths.copy_(before)
            every = decoder(given, cache, slots)
            assert torch.equal(some, every[wanted])
            for place, row in zip(places, every, strict=True):
                found[place] = row
        assert cache.lengths.tolist() == [0, 0, 9, 9, 9]
        return found

    whole = logits([[(0, 0, 9), (1, 0, 9), (2, 0, 9)]])
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-4)
    in_parts = logits([[(2, 0, 4)], [(0, 0, 1), (2, 4, 5), (1, 0, 8)], [(1, 8, 9), (0, 1, 9)], [(2, 5, 9)]])
    assert torch.equal(in_parts, whole)


@on_each_cpu
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
@torch.inference_mode()
def test_a_sequence_is_bit_identical_alone_and_in_any_batch(kind: str) -> None:
    """With `batch_invariant`: in other batches, at other places in the cache, beside sequences of other lengths."""
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    model = random_model_of("modern", 131, n_embd=90, n_head=5, n_kv_head=1).eval()
    model = model if kind == "int8" else model.to(dtype)
    decoder = native_decoder(model, dtype, int8=kind == "int8", batch_invariant=True)
    assert isinstance(decoder, NativeDecoder)
    generator = torch.Generator().manual_seed(2)
    ids, lengths = torch.randint(131, (35, 3), generator=generator), [row % 8 for row in range(35)]
    prompts = torch.randint(131, (35, 8), generator=generator)

    def logits(rows: list[int]) -> dict[int, torch.Tensor]:
        """Logits (3, V) of each row, all decoded together, in a cache where they have other places."""
        cache = KVCache(model.config, 40, 12, dtype=dtype)
        places = torch.randperm(40, generator=generator)[: len(rows)]
        for row, place in zip(rows, places.tolist(), strict=True):
            if lengths[row]:
                model.hidden(prompts[row : row + 1, : lengths[row]], cache.narrow(place, 1))
        steps = [decoder(ids[rows, step].contiguous(), cache, places) for step in range(3)]
        return {row: torch.stack([step[number] for step in steps]) for number, row in enumerate(rows)}

    together = logits(list(range(35)))
    for rows in ([0], [34], [3, 20], list(range(4, 9)), list(range(12)), list(range(33, 16, -1))):
        for row, found in logits(rows).items():
            assert torch.equal(found, together[row]), (rows, row)


@on_each_cpu
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("batch", [1, 7, 13, 35])
@torch.inference_mode()
def test_results_do_not_depend_on_the_number_of_threads(kind: str, batch: int) -> None:
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    model = random_model_of("modern", 131, n_embd=64).eval()
    model = model if kind == "int8" else model.to(dtype)
    ids, given = torch.arange(batch), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 8):
            torch.set_num_threads(threads)
            decoder = native_decoder(model, dtype, int8=kind == "int8")
            assert isinstance(decoder, NativeDecoder)
            for _ in range(5):
                given.append(decoder(ids, KVCache(model.config, batch, 4, dtype=dtype)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(logits, given[0]) for logits in given)


@on_each_cpu
@pytest.mark.parametrize("batch", [1, 8])
@torch.inference_mode()
def test_int8_sums_of_the_largest_values_do_not_overflow(batch: int) -> None:
    """Up to 20,000 x 127 x 32,767, accumulated in 32 bits; each row of the matrix reaches a different part of it."""
    model = random_model_of("original", 131, n_embd=32, n_inner=20_000).eval()
    for block in model.blocks:
        block.mlp.up_proj.weight.zero_()
        block.mlp.up_proj.bias.fill_(1.0)
        block.mlp.down_proj.weight.copy_(0.5 * torch.ones(20_000, 32).tril(-1)[torch.arange(20_000) % 33].T)
    ids = torch.arange(batch)[:, None]
    decoder = native_decoder(model, torch.float32, int8=True)
    assert isinstance(decoder, NativeDecoder)
    round_to_int8(model)
    expected = model.head(model.hidden(ids, KVCache(model.config, batch, 4))[:, -1])
    logits = decoder(ids[:, 0].contiguous(), KVCache(model.config, batch, 4))
    assert (logits - expected).abs().max() < 0.01 * expected.abs().max()


@on_each_cpu
@torch.inference_mode()
def test_pytorchs_matmuls_are_not_affected() -> None:
    """PyTorch and the decoder use the same AMX registers of a thread."""
    model = random_model_of("modern", 131, n_embd=64).eval().bfloat16()
    decoder = native_decoder(model, torch.bfloat16)
    assert isinstance(decoder, NativeDecoder)
    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)).bfloat16()
    before = x @ x.T
    for _ in range(3):
        decoder(torch.arange(16), KVCache(model.config, 16, 4, dtype=torch.bfloat16))
        assert torch.equal(x @ x.T, before)


@on_each_cpu
@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@pytest.mark.parametrize(("dtype", "int8"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("batch", [1, 6, 13])
def test_nan_and_infinity_propagate(architecture: str, dtype: torch.dtype, int8: bool, batch: int) -> None:
    """They show that a run diverged, which the engine reports; sums must not hide them."""
    model = random_model_of(architecture, 131).eval()
    for value in (float("nan"), float("inf")):
        with torch.inference_mode():
            model.blocks[0].mlp.up_proj.weight.fill_(value)
            decoder = native_decoder(model, dtype, int8=int8)
            assert isinstance(decoder, NativeDecoder)
            cache = KVCache(model.config, batch, 4, dtype=dtype)
            assert not torch.isfinite(decoder(torch.arange(batch), cache)).any()


@on_each_cpu
@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_both_decoders_generate_the_same_text(bpe: Tokenizer, architecture: str) -> None:
    model = random_model_of(architecture, bpe.vocab_size)
    settings = SamplingSettings(max_new_tokens=60, seed=5, temperature=0.9, top_k=20, ignore_eos=True)
    native_text, torch_text = (
        [result.new_ids for result in generate(model, bpe, ["The old", "An acorn"], settings, decoder=decoder)]
        for decoder in ("native", "torch")
    )
    assert native_text == torch_text


def test_rounding_to_int8_is_within_half_a_scale_and_idempotent() -> None:
    model = random_model_of("gpt2", 131)
    before = model.blocks[0].mlp.up_proj.weight.detach().clone()
    integers, scales = quantize_rows(before)
    assert integers.abs().max() == 127
    assert ((integers * scales[:, None] - before).abs() <= 0.5001 * scales[:, None]).all()
    round_to_int8(model)
    once = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert torch.equal(once["blocks.0.mlp.up_proj.weight"], integers * scales[:, None])
    round_to_int8(model)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), once[name], rtol=1e-6, atol=0)
    zero, scale = quantize_rows(torch.zeros(2, 3))
    assert not (zero * scale[:, None]).any()


@pytest.mark.usefixtures("no_cached_library")
def test_without_a_compiler_pytorch_decodes(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = random_model_of("modern", bpe.vocab_size)
    settings = SamplingSettings(max_new_tokens=5, greedy=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "")
    with pytest.raises(UsageError, match="no C compiler was found"):
        generate(model, bpe, ["x"], settings, decoder="native")
    notes: list[str] = []
    (result,) = generate(model, bpe, ["x"], settings, note=notes.append)
    assert len(result.new_ids) == 5
    (line,) = notes
    assert line.startswith("Generation is slower than it could be: no C compiler was found (install gcc or clang")
    generate(model, bpe, ["x"], settings, decoder="torch", note=notes.append)  # as requested: nothing to report
    assert len(notes) == 1


def test_where_it_is_unavailable_pytorch_decodes(bpe: Tokenizer) -> None:
    model = random_model_of("modern", bpe.vocab_size)
    assert native_decoder(model, torch.float16) == Unavailable("acorn's C code does not support float16")
    with torch.device("meta"):
        assert native_decoder(GPT(model.config), torch.float32) == Unavailable("the model is on meta, not on the CPU")
    with torch.autocast("cpu", dtype=torch.float16):
        (result,) = generate(model, bpe, ["The"], SamplingSettings(max_new_tokens=5, greedy=True, ignore_eos=True))
    assert len(result.new_ids) == 5


def test_unsupported_settings_of_the_network_are_refused(bpe: Tokenizer) -> None:
    """A new setting has to be added to SUPPORTED_SETTINGS once decode.c supports it."""

    class LaterConfig(ModelConfig):
        window: int = 0

    model = random_model_of("modern", bpe.vocab_size)
    assert isinstance(native_decoder(model, torch.float32), NativeDecoder)
    model.config = LaterConfig(**model.config.model_dump())
    assert native_decoder(model, torch.float32) == Unavailable("acorn's C code does not support model.window")
    with pytest.raises(UsageError, match=r"does not support model\.window"):
        generate(model, bpe, ["x"], SamplingSettings(max_new_tokens=2), decoder="native")
    model.config = model.config.model_copy(update={"architecture": "mamba"})
    assert native_decoder(model, torch.float32) == Unavailable(
        "acorn's C code does not support model.window, model.architecture"
    )


def test_supported_settings_exist() -> None:
    assert set(ModelConfig.model_fields) == decode.SUPPORTED_SETTINGS
