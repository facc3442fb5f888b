"""Models like those of other programs: random weights from transformers, tokenizers in four common styles."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "In winter there were few ships, so the keeper wrote about gulls instead; nobody had asked him to.\n",
    "He didn't count them: 1234567 gulls,  two\n\n cats and one quarrel (which the cat had won).\n",
    "Việt Nam, 你好 世界, नमस्ते, 🙂\n",
] * 3
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"\s?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTEXT = 64


@cache
def style(name: str) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and the content of tokenizer_config.json: `gpt2`, `llama-2`, `llama-3` or `qwen3`."""
    settings: dict[str, Any] = {"model_max_length": CONTEXT, "clean_up_tokenization_spaces": False}
    if name == "gpt2":
        backend = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
        backend.add_special_tokens(["<|endoftext|>"])
        settings |= {"tokenizer_class": "GPT2Tokenizer"}
    elif name == "qwen3":
        backend = _byte_level(_split(rf"{_WORDS}|\p{{N}}|{_REST}"))
        backend.normalizer = normalizers.NFC()
        names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        backend.add_special_tokens([AddedToken(special, normalized=False) for special in names])
        settings |= {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    elif name == "llama-3":
        backend = _byte_level(_split(rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}"))
        bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
        backend.add_special_tokens([AddedToken(special, normalized=False) for special in (bos, eos, "<|eot_id|>")])
        backend.post_processor = processors.Sequence([backend.post_processor, _begins_with(backend, bos)])
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos}
    else:
        backend = _sentence_piece()
        settings |= {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        settings |= {"add_bos_token": True, "add_eos_token": False, "legacy": False}
    return str(backend.to_str()), settings


def make_model(path: Path, name: str, *, padding: int = 7, **settings: Any) -> Any:
    """A model with a tokenizer of that style as the folder `path`; `settings` go into its config."""
    tokenizer_json, tokenizer_config = style(name)
    backend = tokenizers.Tokenizer.from_str(tokenizer_json)
    eos = backend.token_to_id(tokenizer_config.get("eos_token", "<|endoftext|>"))
    bos = backend.token_to_id(tokenizer_config.get("bos_token", "<|endoftext|>"))
    settings = {"vocab_size": backend.get_vocab_size() + padding, "bos_token_id": bos, "eos_token_id": eos, **settings}
    if name == "gpt2":
        config = transformers.GPT2Config(
            **{"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, **settings}
        )
    else:
        kind = transformers.Qwen3Config if name == "qwen3" else transformers.LlamaConfig
        sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "head_dim": 16}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
        config = kind(**{**sizes, **heads, **settings})
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    (path / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), "utf-8")
    return model


def _byte_level(pre_tokenizer: Any) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _begins_with(backend: tokenizers.Tokenizer, bos: str) -> Any:
    return processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))])


def _sentence_piece() -> tokenizers.Tokenizer:
    """Llama-2's style: a letter replaces the space, and characters outside the vocabulary become bytes."""
    names = ["<unk>", "<s>", "</s>"]
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=names + every_byte, limit_alphabet=40, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in names]
    backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = _begins_with(backend, "<s>")
    return backend
