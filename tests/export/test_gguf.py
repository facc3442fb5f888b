"""A GGUF file holds the model and its tokenizer, read back by the gguf package and, where it is there, by llama.cpp."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from acorn.config import ModelConfig
from acorn.errors import InputError, UsageError
from acorn.export.gguf import write_gguf
from acorn.model.gpt import GPT
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

TEXTS = ["The quick brown fox jumps over the lazy dog. " * 20, "été, 漢字 and numbers 12345\n\n  indented"] * 5
SPECIAL = "A text <|end|> with   markup,\n\n été and 漢字"


@pytest.fixture(scope="module", name="tokenizer")
def _tokenizer() -> Tokenizer:
    return train(lambda: iter(TEXTS), "bpe", 320)


def model_for(tokenizer: Tokenizer, architecture: str, **more: int) -> GPT:
    """No parameter keeps a value that would hide a mistake."""
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 64} | more
    model = GPT(ModelConfig(architecture=architecture, vocab_size=tokenizer.vocab_size, **sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.1 * noise + (parameter.ndim == 1))
    return model.eval()


def write(path: Path, model: GPT, tokenizer: Tokenizer, dtype: str = "f32") -> Path:
    write_gguf(path, model.config, dict(model.named_parameters()), tokenizer, dtype, "test")
    return path


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_weights_and_pieces_are_those_of_the_model(tmp_path: Path, tokenizer: Tokenizer, architecture: str) -> None:
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


def test_what_llama_cpp_cannot_express_is_refused_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(UsageError, match="seed has ReLU"):
        write(path, model_for(tokenizer, "seed"), tokenizer)
    wordpiece = train(lambda: iter(TEXTS), "wordpiece", 320)
    with pytest.raises(InputError, match="this wordpiece tokenizer"):
        write(path, model_for(wordpiece, "modern"), wordpiece)
    with pytest.raises(UsageError, match=r"model.n_embd is 24"):
        write(path, model_for(tokenizer, "gpt2", n_embd=24), tokenizer, "q8_0")
    assert not path.exists()


@pytest.mark.parametrize(("architecture", "tolerance"), [("modern", 1e-4), ("gpt2", 2e-2)])
def test_llama_cpp_gives_the_same_tokens_and_logits(
    tmp_path: Path, tokenizer: Tokenizer, architecture: str, tolerance: float
) -> None:
    """llama.cpp looks its GELU up in a table of fp16, hence the wider tolerance of gpt2."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python takes minutes to build; extra `llama`")
    model = model_for(tokenizer, architecture)
    path = write(tmp_path / "model.gguf", model, tokenizer)
    fp32 = {"type_k": 0, "type_v": 0}
    llama = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, **fp32)
    ids = tokenizer.encode_prompt(SPECIAL)
    assert llama.tokenize(SPECIAL.encode(), add_bos=True, special=True) == ids
    llama.eval(ids)
    theirs = torch.tensor(np.array(llama.scores[: len(ids)]))
    llama.close()
    torch.testing.assert_close(theirs, model(torch.tensor([ids]))[0].detach(), rtol=0, atol=tolerance)
