"""Cached, batched, sliding generation against plain loops and against transformers."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from acorn.errors import DamageError, InputError, UsageError
from acorn.generate.engine import Generation, generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.tokenizer.tokenizer import Tokenizer

Build = Callable[..., GPT]
ARCHITECTURES = ["original", "gpt2", "modern"]
PROMPTS = ["The old", "An acorn fell; the", "", "x"]
TIMES = ("prefill_seconds", "decode_seconds", "tokens_per_second")


def greedy(n: int, **more: object) -> SamplingSettings:
    return SamplingSettings(max_new_tokens=n, greedy=True, ignore_eos=True, **more)


def slow_greedy(model: GPT, tokenizer: Tokenizer, prompt_ids: list[int], n: int) -> list[int]:
    """Computes the whole context for each token; a full context continues from its last three quarters."""
    model.eval()
    block_size = model.config.block_size
    ids, begin = list(prompt_ids), 0
    for _ in range(n):
        if len(ids) - begin > block_size:
            begin = len(ids) - max(1, block_size * 3 // 4)
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:]]))[0, -1]
        logits[tokenizer.reserved_ids] = -math.inf
        ids.append(int(logits.argmax()))
    return ids[len(prompt_ids) :]


def without_times(results: list[Generation]) -> list[dict[str, object]]:
    return [{k: v for k, v in dataclasses.asdict(result).items() if k not in TIMES} for result in results]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("block_size", [16, 7, 1])
def test_greedy_text_equals_a_loop_without_cache_or_batch(
    random_model: Build, bpe: Tokenizer, architecture: str, block_size: int
) -> None:
    """Fault 58: even if the text exceeds the context several times, for each prompt at another token."""
    model = random_model(architecture, bpe.vocab_size, block_size)
    notes: list[str] = []
    results = generate(model, bpe, PROMPTS, greedy(40), note=notes.append)
    for result in results:
        assert result.new_ids == slow_greedy(model, bpe, result.prompt_ids, 40)
        assert result.finish_reason == "length"
    assert sum("longer than the model's context" in note for note in notes) == 1


def test_text_that_just_fills_the_context_does_not_slide(random_model: Build, bpe: Tokenizer) -> None:
    """Fault 58: the last token is not fed back, so block_size + 1 tokens fit without sliding."""
    model = random_model("gpt2", bpe.vocab_size, block_size=12)
    notes: list[str] = []
    generate(model, bpe, [""], greedy(12), note=notes.append)
    assert notes == []
    generate(model, bpe, [""], greedy(13), note=notes.append)
    assert len(notes) == 1
    assert "12 tokens" in notes[0]


def qwen3_of(model: GPT) -> nn.Module:
    """The same network, built and computed by transformers."""
    config = model.config
    other = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size,
            hidden_size=config.n_embd,
            intermediate_size=config.mlp_hidden,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.block_size,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=config.tied,
            attention_bias=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )
    names = {
        "token_embedding.": "model.embed_tokens.",
        "blocks.": "model.layers.",
        ".attention_norm.": ".input_layernorm.",
        ".mlp_norm.": ".post_attention_layernorm.",
        ".attention.": ".self_attn.",
        "final_norm.": "model.norm.",
        "head.": "lm_head.",
    }
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        for old, new in names.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name.replace(old, new)
        state[name] = value
    other.load_state_dict(state)
    return other.eval()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_greedy_text_equals_that_of_transformers(
    random_model: Build, bpe: Tokenizer, kv_heads: int, penalty: float
) -> None:
    model = random_model("modern", bpe.vocab_size, block_size=64, n_kv_head=kv_heads, tied=False)
    other = qwen3_of(model)
    results = generate(model, bpe, PROMPTS, greedy(30, repetition_penalty=penalty))
    for result in results:
        ids = torch.tensor([result.prompt_ids])
        theirs = other.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=30,
            do_sample=False,
            repetition_penalty=penalty,
            suppress_tokens=bpe.reserved_ids,
        )
        assert result.new_ids == theirs[0, ids.size(1) :].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_prompt_gets_the_same_text_alone_and_in_a_batch(
    random_model: Build, bpe: Tokenizer, architecture: str
) -> None:
    """For the first of several prompts: equal seed and position, other prompts, other batch sizes, other lengths."""
    model = random_model(architecture, bpe.vocab_size, block_size=16)
    settings = SamplingSettings(max_new_tokens=40, temperature=1.5, seed=3, stop=("e", "橡", " t"))
    (alone,) = without_times(generate(model, bpe, PROMPTS[:1], settings))
    together = without_times(generate(model, bpe, PROMPTS * 2, settings))
    assert together[0] == alone
    assert len({len(result["new_ids"]) for result in together}) > 2
    for batch_size in (1, 3):
        assert without_times(generate(model, bpe, PROMPTS * 2, settings, batch_size=batch_size)) == together


def test_the_seed_determines_the_text(random_model: Build, bpe: Tokenizer) -> None:
    model = random_model("modern", bpe.vocab_size)
    texts = {
        seed: generate(model, bpe, ["The"], SamplingSettings(seed=seed, max_new_tokens=20, ignore_eos=True))[0].new_ids
        for seed in (0, 1, 2)
    }
    assert len({tuple(ids) for ids in texts.values()}) == 3
    again = generate(model, bpe, ["The"] * 2, SamplingSettings(seed=1, max_new_tokens=20, ignore_eos=True))
    assert again[0].new_ids == texts[1]
    assert again[1].new_ids != texts[1]  # equal prompts of one call are drawn apart


def test_without_a_seed_a_random_one_is_used_and_returned(random_model: Build, bpe: Tokenizer) -> None:
    model = random_model("modern", bpe.vocab_size)
    settings = SamplingSettings(max_new_tokens=20, ignore_eos=True)
    first, second = (generate(model, bpe, ["The"], settings)[0] for _ in range(2))
    assert first.seed != second.seed
    assert first.new_ids != second.new_ids
    again = generate(model, bpe, ["The"], dataclasses.replace(settings, seed=first.seed))[0]
    assert again.new_ids == first.new_ids


def test_generation_changes_neither_the_model_nor_the_global_random_state(random_model: Build, bpe: Tokenizer) -> None:
    model = random_model("original", bpe.vocab_size, dropout=0.5)
    model.train()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (generate(model, bpe, ["The"], greedy(5))[0].new_ids for _ in range(2))
    assert first == second  # no dropout
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def fail(index: int, piece: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, bpe, ["The"], greedy(5), on_text=fail)
    assert model.training
    assert all(module.training for module in model.modules())


def test_an_empty_prompt_starts_from_the_separator(random_model: Build, bpe: Tokenizer, wordpiece: Tokenizer) -> None:
    """Fault 54."""
    for tokenizer in (bpe, wordpiece):
        model = random_model("modern", tokenizer.vocab_size)
        (result,) = generate(model, tokenizer, [""], greedy(8))
        assert result.prompt_ids == [tokenizer.separator_id]
        assert result.text == result.completion != ""


def test_no_prompts_give_no_results(random_model: Build, bpe: Tokenizer) -> None:
    assert generate(random_model("modern", bpe.vocab_size), bpe, [], greedy(3)) == []


def test_a_prompt_longer_than_the_context_keeps_its_end(random_model: Build, bpe: Tokenizer) -> None:
    """Fault 53: the note says which prompt, its length and the limit."""
    model = random_model("gpt2", bpe.vocab_size, block_size=10)
    long = "the old oak stood where the paths met"
    whole = bpe.encode_prompt(long)
    notes: list[str] = []
    _, result = generate(model, bpe, ["x", long], greedy(6), note=notes.append)
    assert result.prompt_ids == whole[-10:]
    assert result.prompt == long
    assert result.new_ids == slow_greedy(model, bpe, whole[-10:], 6)
    assert f"Prompt 2 has {len(whole)} tokens" in notes[0]
    assert "10" in notes[0]


def test_strict_refuses_a_prompt_longer_than_the_context(random_model: Build, bpe: Tokenizer) -> None:
    """Fault 53: a prompt of exactly the context is accepted."""
    ids = bpe.encode_prompt("the old oak")
    fits = random_model("gpt2", bpe.vocab_size, block_size=len(ids))
    assert generate(fits, bpe, ["the old oak"], greedy(1), strict=True)[0].prompt_ids == ids
    short = random_model("gpt2", bpe.vocab_size, block_size=len(ids) - 1)
    with pytest.raises(UsageError, match="context") as caught:
        generate(short, bpe, ["the old oak"], greedy(1), strict=True)
    assert caught.value.fix


def test_unknown_tokens_in_prompts_are_noted_once(random_model: Build, bpe: Tokenizer, wordpiece: Tokenizer) -> None:
    notes: list[str] = []
    model = random_model("gpt2", wordpiece.vocab_size)
    generate(model, wordpiece, ["oak ж", "ж ж", "oak [UNK]", [1, 2]], greedy(2), note=notes.append)
    assert len(notes) == 1
    oak = len(wordpiece.encode_documents(["oak"])[0])
    assert f"of the 3 prompts: 3 of {2 * oak + 4} tokens are [UNK]" in notes[0]
    generate(model, wordpiece, ["oak", ""], greedy(2), note=notes.append)
    generate(random_model("gpt2", bpe.vocab_size), bpe, ["ж"], greedy(2), note=notes.append)
    assert len(notes) == 1


@pytest.mark.parametrize(
    "settings", [greedy(30), SamplingSettings(max_new_tokens=200, temperature=20.0, seed=0)], ids=str
)
def test_reserved_and_padding_ids_are_never_sampled(
    random_model: Build, bpe: Tokenizer, settings: SamplingSettings
) -> None:
    """Fault 57: not even if they are by far the most likely."""
    model = random_model("gpt2", bpe.vocab_size + 9)
    forbidden = {*bpe.reserved_ids, *range(bpe.vocab_size, bpe.vocab_size + 9)}
    with torch.no_grad():  # the last activations are all ones, so a row's sum is its logit
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1.0)
        model.head.weight[sorted(forbidden)] = 5.0
        assert int(model(torch.tensor([[0]]))[0, -1].argmax()) in forbidden
    drawn = set(generate(model, bpe, ["An"], settings)[0].new_ids)
    assert not drawn & forbidden


@pytest.mark.parametrize("decoder", ["torch", "auto"])
@pytest.mark.parametrize(
    "settings", [greedy(30), SamplingSettings(max_new_tokens=60, seed=0, temperature=3.0)], ids=str
)
def test_the_unknown_token_is_sampled_only_on_request(
    random_model: Build, wordpiece: Tokenizer, settings: SamplingSettings, decoder: str
) -> None:
    """Even if it is always the most likely token, as after training on text with many unknown tokens."""
    assert wordpiece.unknown_id is not None
    assert wordpiece.decode([wordpiece.unknown_id]) == ""
    model = random_model("gpt2", wordpiece.vocab_size)
    with torch.no_grad():  # the last activations are all ones, so a row's sum is its logit
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1.0)
        model.head.weight[wordpiece.unknown_id] = 5.0
    (result,) = generate(model, wordpiece, ["The"], settings, decoder=decoder)
    assert wordpiece.unknown_id not in result.new_ids
    asked = dataclasses.replace(settings, allow_unknown=True, greedy=True)
    (result,) = generate(model, wordpiece, ["The"], asked, decoder=decoder)
    assert set(result.new_ids) == {wordpiece.unknown_id}


def test_an_unknown_token_that_also_ends_texts_may_be_sampled(chain_model: Build) -> None:
    """Some GPT-2 vocabularies have one: without it no text would ever end."""
    backend = tokenizers.Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "b": 2}, unk_token="</s>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(backend)
    assert tokenizer.unknown_id == tokenizer.separator_id == 0
    model = chain_model(3, {1: 2, 2: 0})
    (result,) = generate(model, tokenizer, ["a"], SamplingSettings(greedy=True, max_new_tokens=9))
    assert (result.new_ids, result.finish_reason) == ([2, 0], "eos")


def test_a_single_prompt_is_a_list_of_one(random_model: Build, bpe: Tokenizer) -> None:
    """Not one prompt per character."""
    model = random_model("gpt2", bpe.vocab_size)
    assert without_times(generate(model, bpe, "abc", greedy(4, seed=1))) == without_times(
        generate(model, bpe, ["abc"], greedy(4, seed=1))
    )


def test_a_tokenizer_larger_than_the_model_is_refused(random_model: Build, bpe: Tokenizer) -> None:
    with pytest.raises(InputError, match="tokenizer"):
        generate(random_model("gpt2", bpe.vocab_size - 1), bpe, ["x"], greedy(3))


def test_a_model_with_nan_weights_is_an_error(random_model: Build, bpe: Tokenizer) -> None:
    model = random_model("gpt2", bpe.vocab_size)
    with torch.no_grad():
        model.final_norm.weight[0] = math.nan
    with pytest.raises(DamageError, match="finite"):
        generate(model, bpe, ["x"], SamplingSettings(max_new_tokens=3))


def chain(tokenizer: Tokenizer, text: str, then: int | None = None) -> dict[int, int]:
    """Successors that make a model generate `text` after its first token, and then `then`."""
    (ids,) = tokenizer.encode_documents([text])
    assert len(set(ids)) == len(ids), "each token can have one successor only"
    path = [*ids] if then is None else [*ids, then]
    return dict(itertools.pairwise(path))


def test_text_ends_with_the_document(chain_model: Build, bpe: Tokenizer) -> None:
    """The separator is among the new ids, as in transformers, and not in the text."""
    model = chain_model(bpe.vocab_size, chain(bpe, "wolf", then=bpe.separator_id) | {bpe.separator_id: 300})
    (result,) = generate(model, bpe, ["w"], SamplingSettings(greedy=True, max_new_tokens=50))
    assert result.completion == "olf"
    assert result.text == "wolf"
    assert result.finish_reason == "eos"
    assert result.new_ids[-1] == bpe.separator_id

    (longer,) = generate(model, bpe, ["w"], greedy(50))
    assert longer.finish_reason == "length"
    assert longer.new_ids[: len(result.new_ids)] == result.new_ids
    assert len(longer.new_ids) == 50


def test_text_ends_before_a_stop_string(chain_model: Build, bpe: Tokenizer) -> None:
    """It is removed from `text` and `completion`; its tokens stay in `new_ids`."""
    model = chain_model(bpe.vocab_size, chain(bpe, "wolf-pack", then=bpe.separator_id))
    pieces: list[str] = []
    settings = SamplingSettings(greedy=True, max_new_tokens=50, stop=("f-p", "zzz"))
    (result,) = generate(model, bpe, ["w"], settings, on_text=lambda index, piece: pieces.append(piece))
    assert (result.text, result.completion, result.finish_reason) == ("wol", "ol", "stop")
    assert "".join(pieces) == "ol"
    assert "f-p" in bpe.decode(result.new_ids)


def test_a_stop_string_at_the_very_end_is_found(chain_model: Build, bpe: Tokenizer) -> None:
    """Even one that ends with U+FFFD, which is held back until the end of the text."""
    model = chain_model(bpe.vocab_size, chain(bpe, "wo\ufffd"))
    n = len(bpe.encode_documents(["o\ufffd"])[0])
    (result,) = generate(model, bpe, ["w"], SamplingSettings(greedy=True, max_new_tokens=n, stop=("\ufffd",)))
    assert (result.text, result.finish_reason) == ("wo", "stop")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_joined_streamed_pieces_equal_the_completions(
    random_model: Build, request: pytest.FixtureRequest, kind: str
) -> None:
    """Fault 56: with several prompts at once and random tokens, most of which are incomplete characters."""
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    model = random_model("modern", tokenizer.vocab_size)
    pieces: dict[int, list[str]] = {index: [] for index in range(4)}
    settings = SamplingSettings(max_new_tokens=90, temperature=3.0, seed=0, stop=("qz", "th"))
    results = generate(model, tokenizer, PROMPTS, settings, on_text=lambda index, piece: pieces[index].append(piece))
    for index, result in enumerate(results):
        assert "".join(pieces[index]) == result.completion
        assert "" not in pieces[index]
        assert result.text == tokenizer.decode(result.prompt_ids) + result.completion
        decoded = tokenizer.decode(result.prompt_ids + result.new_ids)
        assert decoded == result.text if result.finish_reason != "stop" else decoded.startswith(result.text)


def test_times_add_up(random_model: Build, bpe: Tokenizer) -> None:
    (result,) = generate(random_model("gpt2", bpe.vocab_size), bpe, ["x"], greedy(9))
    seconds = result.prefill_seconds + result.decode_seconds
    assert result.prefill_seconds > 0
    assert result.decode_seconds > 0
    assert result.tokens_per_second == pytest.approx(9 / seconds)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_weights_and_autocast_generate_too(
    random_model: Build, bpe: Tokenizer, architecture: str
) -> None:
    model = random_model(architecture, bpe.vocab_size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (result,) = generate(model, bpe, ["The"], greedy(20))
    assert len(result.new_ids) == 20
    (result,) = generate(model.bfloat16(), bpe, ["The"], greedy(20))
    assert len(result.new_ids) == 20


@pytest.mark.parametrize(
    "prompts", [None, 5, b"text", {"a": 1}, [None], [5], [[-1]], [[320]], [[1.0]], [["a"]], [b"a"]]
)
def test_invalid_prompts_are_refused(prompts: Any, bpe: Tokenizer, random_model: Callable[..., GPT]) -> None:
    """Before anything is computed, with an AcornError."""
    with pytest.raises(UsageError, match="A prompt cannot be") as caught:
        generate(random_model("modern", bpe.vocab_size), bpe, prompts, SamplingSettings(max_new_tokens=1))
    assert caught.value.where.startswith("prompt")


def test_prompts_may_be_texts_and_ids_in_any_iterable(bpe: Tokenizer, random_model: Callable[..., GPT]) -> None:
    model, settings = random_model("modern", bpe.vocab_size), SamplingSettings(max_new_tokens=2, seed=0)
    listed = generate(model, bpe, ["a", [1, 2]], settings)
    for prompts in (("a", (1, 2)), (prompt for prompt in ("a", [1, 2]))):
        assert [each.new_ids for each in generate(model, bpe, prompts, settings)] == [each.new_ids for each in listed]


def test_a_model_with_a_label_head_is_refused(random_model: Build, bpe: Tokenizer) -> None:
    """It predicts no tokens, and says so instead of failing."""
    model = GPT(random_model("gpt2", bpe.vocab_size).config, head=HeadSpec("class", 2))
    with pytest.raises(UsageError, match="does not generate text") as refused:
        generate(model, bpe, "The old", greedy(2))
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("decoder", ["torch", "auto"])
@pytest.mark.parametrize("allow_unknown", [False, True])
def test_reserved_tokens_that_were_trained_are_sampled(
    random_model: Build, bpe: Tokenizer, decoder: str, allow_unknown: bool
) -> None:
    """Such as the end of a turn, without which a chat model could not stop, whatever else is allowed."""
    end, user = bpe.id_of("<|end|>"), bpe.id_of("<|user|>")
    assert end is not None
    assert user is not None
    model = random_model("gpt2", bpe.vocab_size)
    with torch.no_grad():  # the last activations are all ones, so a row's sum is its logit
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1.0)
        model.head.weight[bpe.reserved_ids] = 5.0
        model.head.weight[end] = 6.0
        model.head.weight[user] = 7.0
    settings = dataclasses.replace(greedy(3), allow_unknown=allow_unknown, ignore_eos=False)
    (result,) = generate(model, bpe, ["An"], settings, end_ids=[end], decoder=decoder)
    assert (result.new_ids, result.finish_reason) == ([end], "eos")
    (result,) = generate(model, bpe, ["An"], settings, end_ids=[end], trained_ids=[user], decoder=decoder)
    assert result.new_ids == [user] * 3
