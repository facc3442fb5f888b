"""The Hugging Face folder, as transformers loads it with its defaults, and read back; and what is refused."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from acorn.checkpoint import model_folder
from acorn.checkpoint.load import build_model
from acorn.checkpoint.model_folder import read_model_folder, write_model_folder
from acorn.config import ModelConfig
from acorn.errors import DamageError, InputError, ResourceError, UsageError
from acorn.folders import verify_folder
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.model.lora import LoraSpec
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import Kind, train

TEXT = (
    "The lighthouse keeper wrote down every ship that passed, and every storm. In winter there were few ships, "
    "so he wrote about gulls instead; nobody had asked him to. When the new keeper came, he found ninety years of "
    "weather, eleven wrecks, and one long quarrel with a cat named Admiral, who had won it."
)
PROMPT = "The new keeper wrote"
NEW_TOKENS = 200
SHAPES = {
    "original": {"architecture": "original", "tied": False},
    "gpt2": {"architecture": "gpt2", "tied": True},
    "gpt2-untied": {"architecture": "gpt2", "tied": False},
    "modern-tied": {"architecture": "modern", "tied": True},
    "modern-untied": {"architecture": "modern", "tied": False},
    "modern-gqa": {"architecture": "modern", "n_kv_head": 2, "tied": True},
}
KINDS: tuple[Kind, ...] = ("bpe", "wordpiece")
ALL = [(name, kind) for name in SHAPES for kind in KINDS]


@cache
def a_tokenizer(kind: Kind) -> Tokenizer:
    return train(lambda: [TEXT], kind, 400)


def a_model(name: str, kind: Kind, padding: int = 0) -> GPT:
    """Random weights, large enough that no two logits are close; the separator is unlikely, so texts are long."""
    fields = {"n_layer": 2, "n_head": 4, "n_embd": 48, "block_size": 256, "dropout": 0.1, **SHAPES[name]}
    model = GPT(ModelConfig.model_validate({**fields, "vocab_size": a_tokenizer(kind).vocab_size + padding}))
    model.init_weights(3)
    generator = torch.Generator().manual_seed(16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        model.head.weight[a_tokenizer(kind).separator_id] *= 0.1
    return model.eval()


@torch.no_grad()
def greedy_choices(model: GPT, tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The greedy token after each prefix of `ids`: the most likely one that is neither reserved nor unknown."""
    logits = model(torch.tensor([ids]))[0]
    logits[:, tokenizer.reserved_ids + ([] if tokenizer.unknown_id is None else [tokenizer.unknown_id])] = -torch.inf
    return logits.argmax(-1).tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gpt2 folder that transformers can load, without acorn's manifest, so that it may be changed."""
    return plain_folder(tmp_path / "gpt2", "gpt2")


def plain_folder(path: Path, name: str) -> Path:
    write_model_folder(path, a_model(name, "bpe"), a_tokenizer("bpe"), "card")
    (path / "manifest.json").unlink()
    return path


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))


def change_weights(folder: Path, changes: dict[str, Tensor | None]) -> None:
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "model.safetensors")


@pytest.mark.parametrize(("name", "kind"), [case for case in ALL if case[0] != "gpt2-untied"])
def test_transformers_loads_it_with_its_defaults(name: str, kind: Kind, tmp_path: Path) -> None:
    model, tokenizer = a_model(name, kind), a_tokenizer(kind)
    write_model_folder(tmp_path / "final", model, tokenizer, "card")

    auto_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "final")
    inputs = auto_tokenizer(PROMPT, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert ids == tokenizer.encode_prompt(PROMPT)
    assert ids[0] == tokenizer.separator_id
    assert auto_tokenizer(TEXT)["input_ids"] == tokenizer.encode_prompt(TEXT)

    auto_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert auto_model.dtype == torch.float32
    tokens = torch.randint(model.config.vocab_size, (2, 256), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours, theirs = model(tokens), auto_model(tokens).logits
    assert ours.std() > 0.5
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)

    generated = auto_model.generate(**inputs, max_new_tokens=NEW_TOKENS)[0].tolist()
    assert len(generated) == len(ids) + NEW_TOKENS
    assert len(set(generated)) > 20, "choose other random values: the text is too dull to tell much"
    assert generated[len(ids) :] == greedy_choices(model, tokenizer, generated)[len(ids) - 1 : -1]

    pipeline = transformers.pipeline("text-generation", model=str(tmp_path / "final"))
    result = pipeline(PROMPT, max_new_tokens=40, return_tensors=True)
    assert result[0]["generated_token_ids"] == generated[: len(ids) + 40]
    assert auto_tokenizer.decode(generated, skip_special_tokens=True) == tokenizer.decode(generated)


def test_the_pipeline_ends_at_the_separator(tmp_path: Path) -> None:
    model, tokenizer = a_model("gpt2", "wordpiece"), a_tokenizer("wordpiece")
    ids = tokenizer.encode_prompt(PROMPT)
    with torch.no_grad():
        model.final_norm.weight.fill_(1.0)
        model.head.weight[tokenizer.separator_id] = 50 * model.hidden(torch.tensor([ids]))[0, -1]
    write_model_folder(tmp_path / "final", model, tokenizer, "card")
    pipeline = transformers.pipeline("text-generation", model=str(tmp_path / "final"))
    assert pipeline(PROMPT)[0]["generated_text"] == PROMPT
    assert pipeline(PROMPT, return_tensors=True)[0]["generated_token_ids"] == [*ids, tokenizer.separator_id]


def test_transformers_does_not_generate_the_unknown_token(tmp_path: Path) -> None:
    """Even if it is by far the most likely token, transformers generates another one, as acorn does."""
    model, tokenizer = a_model("gpt2", "wordpiece"), a_tokenizer("wordpiece")
    with torch.no_grad():
        model.final_norm.bias.fill_(1.0)
        model.head.weight[tokenizer.unknown_id] = 9.0
    write_model_folder(tmp_path / "final", model, tokenizer, "card")
    ids = tokenizer.encode_prompt(PROMPT)
    settings = SamplingSettings(12, greedy=True, ignore_eos=True)
    (ours,) = generate(model, tokenizer, [PROMPT], settings)
    auto_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    theirs = auto_model.generate(torch.tensor([ids]), max_new_tokens=12, min_new_tokens=12)[0].tolist()
    assert tokenizer.unknown_id not in theirs[len(ids) :]
    assert theirs[len(ids) :] == ours.new_ids


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_a_written_folder_reads_back_equal(name: str, kind: Kind, tmp_path: Path) -> None:
    model, tokenizer = a_model(name, kind), a_tokenizer(kind)
    write_model_folder(tmp_path / "final", model, tokenizer, "card")
    found = read_model_folder(tmp_path / "final")
    config, weights, read = found.config, found.weights, found.tokenizer
    dropout = 0.0 if name.startswith("modern") else 0.1  # Qwen3's config has no field for it
    assert config == model.config.model_copy(update={"dropout": dropout})
    assert read.fingerprint == tokenizer.fingerprint
    parameters = dict(model.named_parameters())
    assert weights.keys() == parameters.keys()
    assert all(torch.equal(weights[name], parameters[name]) for name in parameters)


@pytest.mark.parametrize("name", SHAPES)
def test_loras_factors_are_merged(name: str, tmp_path: Path) -> None:
    """The folder is that of a plain model; transformers and acorn compute with it what the factors gave."""
    base, tokenizer = a_model(name, "bpe"), a_tokenizer("bpe")
    model = GPT(base.config, lora=LoraSpec(3, 6.0, markup_ids=(1, 4)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            weights = dict(base.named_parameters())
            parameter.copy_(weights[key] if key in weights else 0.2 * torch.randn(parameter.shape, generator=generator))
    write_model_folder(tmp_path / "final", model.eval(), tokenizer, "card")
    found = read_model_folder(tmp_path / "final")
    config, weights = found.config, found.weights
    assert weights.keys() == dict(base.named_parameters()).keys()
    ids = torch.tensor([tokenizer.encode_prompt(TEXT)])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    with torch.no_grad():
        expected = model(ids)
        torch.testing.assert_close(theirs(ids).logits, expected, rtol=0, atol=1e-4)
        found = build_model(config, weights, "cpu", torch.float32)(ids)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert (expected - base(ids)).abs().max() > 1


@pytest.mark.parametrize("name", SHAPES)
def test_folders_written_by_transformers_are_read(name: str, tmp_path: Path) -> None:
    """A folder written by transformers' save_pretrained, in several shards."""
    model = a_model(name, "bpe")
    first = plain_folder(tmp_path / "first", name)
    transformers.AutoModelForCausalLM.from_pretrained(first).save_pretrained(tmp_path / "second", max_shard_size="60KB")
    transformers.AutoTokenizer.from_pretrained(first).save_pretrained(tmp_path / "second")
    assert len(list((tmp_path / "second").glob("model-*.safetensors"))) > 1
    found = read_model_folder(tmp_path / "second")
    config, weights, tokenizer = found.config, found.weights, found.tokenizer
    ids = torch.tensor([tokenizer.encode_prompt(TEXT)])
    with torch.no_grad():
        assert torch.equal(build_model(config, weights, "cpu", torch.float32)(ids), model(ids))


def test_the_files_and_their_settings(tmp_path: Path) -> None:
    tokenizer = a_tokenizer("bpe")
    write_model_folder(tmp_path / "final", a_model("modern-gqa", "bpe"), tokenizer, "A card.\n")
    names = {entry.name for entry in (tmp_path / "final").iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "manifest.json",
    }
    assert verify_folder(tmp_path / "final") == []
    assert (tmp_path / "final" / "README.md").read_text() == "A card.\n"
    config = json.loads((tmp_path / "final" / "config.json").read_text())
    stated = {
        "head_dim": 12,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "dtype": "float32",
        "bos_token_id": tokenizer.separator_id,
        "eos_token_id": tokenizer.separator_id,
        "pad_token_id": tokenizer.pad_id,
        "use_cache": True,
    }
    assert {key: config[key] for key in stated} == stated
    header_length = int.from_bytes((tmp_path / "final" / "model.safetensors").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "final" / "model.safetensors").read_bytes()[8 : 8 + header_length])
    assert header["__metadata__"] == {"format": "pt"}


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_model_folder(tmp_path / name, a_model("original", "wordpiece"), a_tokenizer("wordpiece"), "card")
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("first", "second"))
    assert first == second


def test_reserved_tokens_are_never_generated(tmp_path: Path) -> None:
    """The most likely token is always a reserved one; transformers must choose the second."""
    model, tokenizer = a_model("modern-untied", "bpe"), a_tokenizer("bpe")
    wanted = tokenizer.reserved_ids[2]
    with torch.no_grad():
        model.final_norm.weight.fill_(1.0)
        ids = torch.tensor([tokenizer.encode_prompt(PROMPT)])
        model.head.weight[wanted] = 50 * model.hidden(ids)[0, -1]
        assert model(ids)[0, -1].argmax() == wanted
    write_model_folder(tmp_path / "final", model, tokenizer, "card")
    auto_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    for sampling in ({}, {"do_sample": True, "temperature": 5.0}):
        made = auto_model.generate(ids, max_new_tokens=50, eos_token_id=None, **sampling)[0, ids.size(1) :].tolist()
        assert set(made).isdisjoint(tokenizer.reserved_ids)
    pipeline = transformers.pipeline("text-generation", model=str(tmp_path / "final"))
    made = pipeline(PROMPT, max_new_tokens=50, return_tensors=True)[0]["generated_token_ids"][ids.size(1) :]
    assert set(made).isdisjoint(tokenizer.reserved_ids)


def test_without_reserved_tokens_only_the_unknown_token_is_suppressed(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "final", a_model("original", "wordpiece"), a_tokenizer("wordpiece"), "card")
    values = json.loads((tmp_path / "final" / "generation_config.json").read_text())
    assert values["suppress_tokens"] == [a_tokenizer("wordpiece").unknown_id]
    assert values["do_sample"] is False


@pytest.mark.parametrize("name", ["original", "gpt2", "modern-untied"])
def test_padding_rows_are_removed(name: str, tmp_path: Path) -> None:
    """Fault 57: padding ids of the vocabulary are never sampled, because the folder does not have them."""
    padded, entries = a_model(name, "bpe", padding=7), a_tokenizer("bpe").vocab_size
    write_model_folder(tmp_path / "final", padded, a_tokenizer("bpe"), "card")
    auto_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert auto_model.config.vocab_size == entries
    ids = torch.tensor([a_tokenizer("bpe").encode_prompt(PROMPT)])
    with torch.no_grad():
        torch.testing.assert_close(auto_model(ids).logits, padded(ids)[..., :entries], rtol=0, atol=1e-4)


def test_padding_rows_of_another_program_are_removed(tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(plain_folder(tmp_path / "first", "gpt2"))
    model.resize_token_embeddings(a_tokenizer("bpe").vocab_size + 24)
    model.save_pretrained(tmp_path / "second")
    shutil.copy(tmp_path / "first" / "tokenizer.json", tmp_path / "second")
    found = read_model_folder(tmp_path / "second")
    config, weights = found.config, found.weights
    assert config.vocab_size == weights["token_embedding.weight"].size(0) == a_tokenizer("bpe").vocab_size


def test_names_of_the_first_releases_of_gpt2(folder: Path) -> None:
    """Names without `transformer.`, and the causal mask stored with the weights."""
    expected = read_model_folder(folder).weights
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(folder / "model.safetensors").items()}
    mask = torch.ones(1, 1, 256, 256).tril()
    save_file({**tensors, "h.0.attn.bias": mask, "h.1.attn.bias": mask.clone()}, folder / "model.safetensors")
    change_config(folder, tie_word_embeddings="absent", n_inner="absent")
    found = read_model_folder(folder)
    config, weights = found.config, found.weights
    assert config.tied
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_half_precision_weights_are_read(folder: Path) -> None:
    change_weights(folder, {k: v.bfloat16() for k, v in load_file(folder / "model.safetensors").items()})
    weights = read_model_folder(folder).weights
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_an_edited_card_or_an_added_file_does_not_prevent_loading(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "final", a_model("gpt2", "bpe"), a_tokenizer("bpe"), "card")
    (tmp_path / "final" / "README.md").write_text("my own words")
    (tmp_path / "final" / ".gitattributes").write_text("*.safetensors filter=lfs")
    config = read_model_folder(tmp_path / "final").config
    assert config.architecture == "gpt2"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_flipped_bit_is_found(file: str, tmp_path: Path) -> None:
    """Fault 37: the SHA-256 differs, and the file is named."""
    write_model_folder(tmp_path / "final", a_model("gpt2", "bpe"), a_tokenizer("bpe"), "card")
    content = bytearray((tmp_path / "final" / file).read_bytes())
    content[-10] ^= 1
    (tmp_path / "final" / file).write_bytes(content)
    with pytest.raises(DamageError, match=file):
        read_model_folder(tmp_path / "final")


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    """Fault 64: the target exists."""
    model, tokenizer = a_model("gpt2", "bpe"), a_tokenizer("bpe")
    write_model_folder(tmp_path / "final", model, tokenizer, "first")
    with pytest.raises(UsageError):
        write_model_folder(tmp_path / "final", model, tokenizer, "second", replace=False)
    assert (tmp_path / "final" / "README.md").read_text() == "first"
    write_model_folder(tmp_path / "final", model, tokenizer, "second")
    assert (tmp_path / "final" / "README.md").read_text() == "second"


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path) -> None:
    """Faults 17 and 34: exit code 6, the old folder is intact, and no incomplete one remains."""
    resource = pytest.importorskip("resource", reason="limits of a process are a thing of POSIX systems")
    model, tokenizer = a_model("gpt2", "bpe"), a_tokenizer("bpe")
    write_model_folder(tmp_path / "final", model, tokenizer, "first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # bytes; the weights are more
    try:
        with pytest.raises(ResourceError) as caught:
            write_model_folder(tmp_path / "final", model, tokenizer, "second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 6
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]
    assert verify_folder(tmp_path / "final") == []
    assert (tmp_path / "final" / "README.md").read_text() == "first"


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    model = GPT(ModelConfig(architecture="gpt2", n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=20))
    model.init_weights(0)
    with pytest.raises(InputError, match="entries"):
        write_model_folder(tmp_path / "final", model, a_tokenizer("bpe"), "card")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("gpt2", {"model_type": "mamba"}, "gpt2, llama and qwen3"),
        ("gpt2", {"model_type": "absent"}, "None"),
        ("gpt2", {"activation_function": "gelu"}, "activation_function"),
        ("gpt2", {"tie_word_embeddings": "maybe"}, "tied"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
        ("gpt2", {"n_head": 5}, "n_head"),
        ("gpt2", {"activation_function": ["relu"]}, "activation_function"),
        ("gpt2", {"n_head": "four"}, "n_head"),
        ("gpt2", {"n_layer": "absent"}, "n_layer"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("modern-tied", {"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ("modern-tied", {"model_type": "llama", "mlp_bias": True}, "mlp_bias"),
        ("modern-tied", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("modern-tied", {"hidden_act": "gelu"}, "hidden_act"),
        ("modern-tied", {"attention_bias": True}, "attention_bias"),
        ("modern-tied", {"use_sliding_window": True}, "use_sliding_window"),
        ("modern-tied", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("modern-tied", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ("modern-tied", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "linear"),
        ("modern-tied", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "full_attention"),
        ("modern-tied", {"rope_parameters": 3}, "rope_parameters"),
        ("modern-tied", {"head_dim": 15}, "15"),
        ("modern-tied", {"rope_theta": -1.0, "rope_parameters": "absent"}, "rope_theta"),
    ],
)
def test_unsupported_networks_are_refused(name: str, changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = plain_folder(tmp_path / "folder", name)
    change_config(folder, **changes)
    with pytest.raises(InputError) as caught:
        read_model_folder(folder)
    assert named in caught.value.what
    assert caught.value.where.startswith(str(folder / "config.json"))


def test_a_query_bias_under_relu_is_refused(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path / "original", "original")
    bias = torch.zeros(3 * 48)
    bias[50] = 1e-3
    change_weights(folder, {"transformer.h.1.attn.c_attn.bias": bias})
    with pytest.raises(InputError) as caught:
        read_model_folder(folder)
    assert caught.value.where == "transformer.h.1.attn.c_attn.bias"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("transformer.h.1.mlp.c_fc.bias", None, "is missing"),
        ("transformer.h.0.attn.rotary.weight", torch.zeros(3), "is not part"),
        ("transformer.h.1.mlp.c_fc.weight", torch.zeros(192, 48), "[192, 48], not [48, 192]"),
        ("transformer.ln_f.weight", torch.ones(48, dtype=torch.int8), "int8"),
    ],
)
def test_tensors_that_do_not_match_are_named(folder: Path, name: str, value: Tensor | None, said: str) -> None:
    change_weights(folder, {name: value})
    with pytest.raises(DamageError) as caught:
        read_model_folder(folder)
    assert f"{name} " in caught.value.what
    assert said in caught.value.what


@pytest.mark.parametrize(
    "place", ["../model-1.safetensors", "/tmp/model-1.safetensors", "C:\\a.safetensors", "a.bin", 7]
)
def test_an_index_that_names_files_outside_the_folder_is_refused(folder: Path, place: object) -> None:
    """Fault 63: `../` or an absolute path in an index."""
    shutil.move(folder / "model.safetensors", folder.parent / "model-1.safetensors")
    index = {"weight_map": {"transformer.wte.weight": place}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DamageError) as caught:
        read_model_folder(folder)
    assert repr(place) in caught.value.what


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "absent.safetensors"}}'])
def test_a_damaged_index_is_refused(folder: Path, text: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(DamageError):
        read_model_folder(folder)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_a_pickle_is_refused_unread(folder: Path, file: str) -> None:
    """Fault 44: a pickle instead of the weights."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder.parent / "sprung",)

    torch.save(Trap(), folder / file)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DamageError, match=file):
        read_model_folder(folder)
    assert not (folder.parent / "sprung").exists()


def test_a_pickle_with_another_name_is_refused_unread(folder: Path) -> None:
    """Fault 44: its content is not safetensors, whatever its name."""
    torch.save({"a": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(DamageError, match="safetensors"):
        read_model_folder(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(DamageError, match=file):
        read_model_folder(folder)


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_a_config_that_is_not_an_object_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(DamageError, match=r"config\.json"):
        read_model_folder(folder)


@pytest.mark.fault(62)
@pytest.mark.parametrize("damaged", ["a weight", "a setting"])
def test_a_folder_that_does_not_read_back_equal_is_removed(tmp_path: Path, monkeypatch, damaged: str) -> None:
    """Fault 62: the round trip is checked before the folder gets its name; the old folder is intact."""
    write_model_folder(tmp_path / "final", a_model("gpt2", "bpe"), a_tokenizer("bpe"), "old")
    if damaged == "a weight":
        save = model_folder.save_tensors

        def nearly(path: Path, tensors) -> None:
            save(path, {**tensors, "transformer.ln_f.bias": tensors["transformer.ln_f.bias"] + 1e-6})

        monkeypatch.setattr(model_folder, "save_tensors", nearly)
    else:
        to_config = model_folder.to_config_json
        monkeypatch.setattr(model_folder, "to_config_json", lambda *a, **k: {**to_config(*a, **k), "n_head": 1})
    with pytest.raises(DamageError, match="does not read back") as caught:
        write_model_folder(tmp_path / "final", a_model("gpt2", "bpe"), a_tokenizer("bpe"), "new")
    assert caught.value.exit_code == 4
    assert caught.value.where
    assert caught.value.fix
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final" / "README.md").read_text() == "old"
