"""A GGUF file holds the model and its tokenizer, read back by the gguf package and, where it is there, by llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from small_models import model_for

import acorn.export.gguf
from acorn.errors import DamageError, InputError, UsageError
from acorn.export.gguf import EXPRESSIBLE_SETTINGS, check_weights, tokenizer_of, write_gguf
from acorn.export.probe_texts import adversarial_strings
from acorn.model.gpt import GPT
from acorn.model.ops import rotary_tables, rotate
from acorn.origin import Base
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

TEXTS = ["The quick brown fox jumps over the lazy dog. " * 20, "Wait... été, 漢字, £5, a_b\n\n  indented"] * 5
LLAMA = {"qk_norm": False}
SPECIAL = "A text <|end|> with   markup,\n\n été and 漢字"


@pytest.fixture(scope="module", name="tokenizer")
def _tokenizer() -> Tokenizer:
    return train(lambda: iter(TEXTS), "bpe", 320)


def write(path: Path, model: GPT, tokenizer: Tokenizer, dtype: str = "f32") -> Path:
    write_gguf(path, model.config, dict(model.named_parameters()), tokenizer, dtype, "test")
    return path


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_weights_and_vocabulary_equal_those_of_the_model(
    tmp_path: Path, tokenizer: Tokenizer, architecture: str
) -> None:
    model = model_for(tokenizer, architecture)
    reader = gguf.GGUFReader(write(tmp_path / "model.gguf", model, tokenizer))
    tensors = {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in reader.tensors}
    torch.testing.assert_close(tensors["token_embd.weight"], model.token_embedding.weight.detach(), rtol=0, atol=0)
    down = model.blocks[1].mlp.down_proj.weight.detach()
    torch.testing.assert_close(tensors["blk.1.ffn_down.weight"], down, rtol=0, atol=0)
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(p.numel() for p in model.parameters())
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(pieces) == tokenizer.vocab_size
    assert pieces[tokenizer.separator_id] == tokenizer.separator


def test_bases_are_named_in_llama_cpps_keys(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model, bases = model_for(tokenizer, "modern"), (Base("mine", "run", "step 5"), Base("me/model", "hub"))
    weights = dict(model.named_parameters())
    write_gguf(tmp_path / "model.gguf", model.config, weights, tokenizer, "f32", "test", bases=bases)
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    told = {name.removeprefix("general."): fields[name].contents() for name in fields if "base_model" in name}
    assert told == {
        "base_model.count": 2,
        "base_model.0.name": "mine",
        "base_model.0.version": "step 5",
        "base_model.1.name": "model",
        "base_model.1.organization": "me",
        "base_model.1.repo_url": "https://huggingface.co/me/model",
    }
    assert not [
        name for name in gguf.GGUFReader(write(tmp_path / "b.gguf", model, tokenizer)).fields if "base_model" in name
    ]


def test_what_llama_cpp_cannot_express_is_refused_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(UsageError, match="original uses ReLU"):
        write(path, model_for(tokenizer, "original"), tokenizer)
    wordpiece = train(lambda: iter(TEXTS), "wordpiece", 320)
    with pytest.raises(InputError, match="this wordpiece tokenizer"):
        write(path, model_for(wordpiece, "modern"), wordpiece)
    with pytest.raises(UsageError, match=r"model.n_embd is 24"):
        write(path, model_for(tokenizer, "gpt2", n_embd=24), tokenizer, "q8_0")
    with pytest.raises(UsageError, match=r"all heads is 40"):
        write(path, model_for(tokenizer, "modern", head_width=10), tokenizer, "q8_0")
    assert not path.exists()


def test_a_setting_that_gguf_cannot_express_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a setting that is added to the network later. At its default value it does not prevent the export."""
    monkeypatch.setattr(acorn.export.gguf, "EXPRESSIBLE_SETTINGS", EXPRESSIBLE_SETTINGS - {"rope_theta"})
    write(tmp_path / "model.gguf", model_for(tokenizer, "modern"), tokenizer)
    with pytest.raises(UsageError, match=r"model\.rope_theta=500000.0 to llama.cpp"):
        write(tmp_path / "other.gguf", model_for(tokenizer, "modern", rope_theta=5e5), tokenizer)
    assert not (tmp_path / "other.gguf").exists()


@pytest.mark.parametrize(
    ("architecture", "more", "tolerance"),
    [
        ("gpt2", {}, 2e-2),
        ("modern", {}, 1e-4),
        ("modern", LLAMA, 1e-4),
        ("modern", {**LLAMA, "tied": True, "n_kv_head": 2, "rope_theta": 5e5}, 1e-4),
        ("modern", {**LLAMA, "tied": False, "n_kv_head": 1, "head_width": 24, "norm_eps": 1e-3}, 1e-4),
    ],
)
def test_llama_cpp_gives_the_same_tokens_and_logits(
    tmp_path: Path, tokenizer: Tokenizer, architecture: str, more: dict[str, Any], tolerance: float
) -> None:
    """llama.cpp computes GELU with an fp16 lookup table, so gpt2 has a wider tolerance."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python takes minutes to build; extra `llama`")
    model = model_for(tokenizer, architecture, **more)
    path = write(tmp_path / "model.gguf", model, tokenizer)
    fp32 = {"type_k": 0, "type_v": 0}
    llama = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, **fp32)
    ids = tokenizer.encode_prompt(SPECIAL)
    assert llama.tokenize(SPECIAL.encode(), add_bos=True, special=True) == ids
    llama.eval(ids)
    theirs = torch.tensor(np.array(llama.scores[: len(ids)]))
    llama.close()
    torch.testing.assert_close(theirs, model(torch.tensor([ids]))[0].detach(), rtol=0, atol=tolerance)


def test_rows_of_a_llamas_queries_and_keys_are_interleaved(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Rotated as complex numbers, as in Meta's code, their dot products equal those of the layout of halves."""
    model = model_for(tokenizer, "modern", n_kv_head=4, **LLAMA)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(write(tmp_path / "m.gguf", model, tokenizer)).tensors}
    cos, sin = rotary_tables(torch.arange(9), 16, 10_000.0)
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(1))

    def ours(matrix: torch.Tensor) -> torch.Tensor:  # (T, H, D)
        return rotate((x @ matrix.T).view(1, 9, 4, 16).transpose(1, 2), cos, sin)[0].transpose(0, 1)

    def theirs(name: str) -> torch.Tensor:
        pairs = (x @ torch.from_numpy(np.array(stored[name].data)).T).view(9, 4, 8, 2)
        turns = torch.polar(torch.ones(9, 1, 8), torch.arange(9.0).view(9, 1, 1) * 10_000 ** (-torch.arange(8) / 8))
        return torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(2)

    attention = model.blocks[0].attention
    expected = torch.einsum("thd,uhd->htu", ours(attention.q_proj.weight), ours(attention.k_proj.weight))
    found = torch.einsum("thd,uhd->htu", theirs("blk.0.attn_q.weight"), theirs("blk.0.attn_k.weight"))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "share"), [("f32", 0), ("f16", 2**-11), ("bf16", 2**-8), ("q8_0", 1 / 254)])
def test_weights_read_back_within_the_rounding_error(
    tmp_path: Path, tokenizer: Tokenizer, dtype: str, share: float
) -> None:
    model = model_for(tokenizer, "modern")
    weights = dict(model.named_parameters())
    difference = check_weights(write(tmp_path / "model.gguf", model, tokenizer, dtype), model.config, weights, dtype)
    largest = max(float(weight.abs().max()) for weight in weights.values() if weight.ndim == 2)
    assert 0.3 * share * largest <= difference <= 1.1 * share * largest


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_missing_and_unexpected_weights_are_found(tmp_path: Path, tokenizer: Tokenizer, dtype: str) -> None:
    model = model_for(tokenizer, "gpt2")
    path = write(tmp_path / "model.gguf", model, tokenizer, dtype)
    for name, place in [("blocks.1.mlp.down_proj.weight", (3, 5)), ("blocks.0.attention.q_proj.bias", (7,))]:
        weights = {other: weight.detach().clone() for other, weight in model.named_parameters()}
        weights[name][place] += 0.05
        with pytest.raises(DamageError, match=r"blk\.\d\.\w+\.(weight|bias) differs by 0.0"):
            check_weights(path, model.config, weights, dtype)
    one_block = model.config.model_copy(update={"n_layer": 1})
    first = {name: weight for name, weight in model.named_parameters() if not name.startswith("blocks.1.")}
    with pytest.raises(DamageError, match=r"blk\.1\.\S+ is unexpected"):
        check_weights(path, one_block, first, dtype)


def test_values_that_overflow_f16_are_found(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = model_for(tokenizer, "gpt2")
    with torch.no_grad():
        model.blocks[0].mlp.up_proj.weight[0, 0] = 70_000
    path = write(tmp_path / "model.gguf", model, tokenizer, "f16")
    with pytest.raises(DamageError, match=r"ffn_up\.weight differs by inf.*\n.*\n.*bf16"):
        check_weights(path, model.config, dict(model.named_parameters()), "f16")


def test_the_tokenizer_reads_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    read = tokenizer_of(write(tmp_path / "model.gguf", model_for(tokenizer, "gpt2"), tokenizer))
    for text in [*TEXTS, SPECIAL, *adversarial_strings(tokenizer)]:
        assert read.encode(text).ids == tokenizer.encode_prompt(text), text


def test_llama_cpp_tokenizes_wordpiece_differently(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """WordPiece is refused because llama.cpp splits runs of punctuation and appends a separator to each text."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python takes minutes to build; extra `llama`")
    words = train(lambda: iter(TEXTS), "wordpiece", 320)
    vocabulary = [words.piece(id_) or "" for id_ in range(words.vocab_size)]
    pieces = [piece[2:] if piece.startswith("##") else f"\u2581{piece}" for piece in vocabulary]
    for id_ in (words.separator_id, words.unknown_id):
        pieces[id_] = vocabulary[id_]
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gpt2")
    model = model_for(tokenizer, "gpt2").config
    writer.add_context_length(model.block_size)
    writer.add_embedding_length(model.n_embd)
    writer.add_block_count(model.n_layer)
    writer.add_feed_forward_length(model.mlp_hidden)
    writer.add_head_count(model.heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(pieces)
    writer.add_token_types([3 if piece in ("[UNK]", "<|EOS|>") else 1 for piece in pieces])
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", False)
    writer.add_unk_token_id(words.unknown_id)
    writer.add_sep_token_id(words.separator_id)
    writer.add_bos_token_id(words.separator_id)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    llama = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)

    def theirs(text: str) -> list[int]:
        return llama.tokenize(text.encode(), add_bos=True, special=True)

    separator = words.separator_id
    assert theirs("The quick brown fox") == [*words.encode_prompt("The quick brown fox"), separator]
    for text in ("Wait...", "a_b", "漢字", "£5"):
        assert theirs(text)[:-1] != words.encode_prompt(text), text
    llama.close()
