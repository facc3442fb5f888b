"""Adapters, compared with PEFT on the exported base model: in both directions, and as merged weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import LINES
from torch import Tensor, nn

from acorn.checkpoint.adapter import read_adapter, write_adapter
from acorn.checkpoint.load import load, load_checkpoint
from acorn.checkpoint.model_folder import CARD, write_model_folder
from acorn.checkpoint.model_task import ModelTask
from acorn.checkpoint.training_state import Counters, save_checkpoint
from acorn.config import Config, ModelConfig
from acorn.config import LoraConfig as LoraSettings
from acorn.errors import AcornError, DamageError, InputError
from acorn.folders import verify_folder
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec, is_new, lora_spec, merged
from acorn.origin import Base
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

V, MARKUP = 300, (7, 3, 130)
SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 24, "vocab_size": V}
SHAPES = {
    "original": ModelConfig(architecture="original", tied=False, **SIZES),
    "gpt2": ModelConfig(architecture="gpt2", tied=True, **SIZES),
    "gpt2-untied": ModelConfig(architecture="gpt2", tied=False, **SIZES),
    "modern": ModelConfig(n_kv_head=2, tied=True, **SIZES),
    "modern-untied": ModelConfig(tied=False, **SIZES),
    "llama": ModelConfig(qk_norm=False, tied=True, n_kv_head=1, **SIZES),
    "llama-untied": ModelConfig(qk_norm=False, tied=False, **SIZES),
}
SPECS = {
    "all": LoraSpec(4, 8.0),
    "some": LoraSpec(2, 3.0, targets=("k_proj", "down_proj")),
    "two of three": LoraSpec(3, 1.5, 0.1, targets=("v_proj", "q_proj", "o_proj")),
    "markup": LoraSpec(3, 2.0, markup_ids=MARKUP),
}
HEADS = {
    "class": HeadSpec("class", 3),
    "value": HeadSpec("value", 1),
    "tag": HeadSpec("tag", 4, bias=True),
    "tag without bias": HeadSpec("tag", 4),
}


@cache
def tokenizer() -> Tokenizer:
    return train(lambda: LINES, "bpe", V)


def randomized(module: nn.Module, seed: int, names: Callable[[str], bool] = lambda name: True) -> None:
    """No parameter keeps a value that would hide a mistake, such as a factor of zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if names(name):
                parameter.copy_(0.12 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))


def base_of(shape: str, folder: Path) -> GPT:
    """A base model, written to `folder`."""
    model = GPT(SHAPES[shape]).eval()
    randomized(model, 1)
    write_model_folder(folder, model, tokenizer(), "card")
    return model


def lora_on(base: GPT, spec: LoraSpec, head: HeadSpec | None = None) -> GPT:
    """A network with LoRA on these frozen weights, trained: no factor is zero."""
    model = GPT(base.config, head=head, lora=spec).eval()
    known = dict(base.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in known:
                parameter.copy_(known[name])
    randomized(model, 2, lambda name: is_new(name) or name.startswith("score."))
    return model


def ids_of(rows: int = 3, length: int = 20) -> Tensor:
    ids = torch.randint(20, V, (rows, length), generator=torch.Generator().manual_seed(3))
    ids[:, ::5] = torch.tensor(MARKUP)[torch.arange(ids[:, ::5].numel()).reshape(rows, -1) % 3]
    return ids


def in_peft(base: Path, adapter: Path, head: HeadSpec | None = None) -> Any:
    """The adapter on its base, both loaded as their users do. Nothing may be missing or left over."""
    kind = {None: "CausalLM", "tag": "TokenClassification"}.get(head.kind if head else None, "SequenceClassification")
    more = {"num_labels": head.outputs} if head else {}
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(base, **more)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", UserWarning
        )  # PEFT warns of missing tensors, and of Conv1D where fan_in_fan_out is false
        return PeftModel.from_pretrained(model, str(adapter)).eval()


def assert_equal(ours: Tensor, theirs: Tensor, most: float = 1e-4) -> None:
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=0, atol=most)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_peft_computes_what_acorn_does(shape: str, spec: str, tmp_path: Path) -> None:
    base = base_of(shape, tmp_path / "base")
    model = lora_on(base, SPECS[spec])
    write_adapter(tmp_path / "adapter", model)
    ours = model(ids_of())
    assert (ours - base(ids_of())).abs().max() > 0.02
    peft = in_peft(tmp_path / "base", tmp_path / "adapter")
    assert_equal(ours, peft(ids_of()).logits)
    assert_equal(ours, peft.merge_and_unload()(ids_of()).logits)
    back = read_adapter(tmp_path / "adapter").merged_into(load(tmp_path / "base"))
    assert_equal(ours, back.model(ids_of()), 1e-5)
    for name, weight in merged(model).items():
        torch.testing.assert_close(back.model.get_parameter(name), weight, rtol=0, atol=1e-5)
    assert verify_folder(tmp_path / "adapter") == []


@pytest.mark.parametrize("spec", ["all", "markup"])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("shape", ["original", "gpt2", "modern", "llama-untied"])
@torch.no_grad()
def test_label_heads_are_saved_whole(shape: str, kind: str, spec: str, tmp_path: Path) -> None:
    head = HEADS[kind]
    base = base_of(shape, tmp_path / "base")
    model = lora_on(base, SPECS[spec], head)
    labels = [f"label {number}" for number in range(head.outputs)]
    write_adapter(tmp_path / "adapter", model, labels=labels)
    ours, theirs = model(ids_of()), in_peft(tmp_path / "base", tmp_path / "adapter", head)(ids_of()).logits
    assert_equal(ours if head.kind == "tag" else ours[:, -1], theirs)
    loaded = load(tmp_path / "base")
    back = read_adapter(tmp_path / "adapter").merged_into(loaded, model.head_spec, labels)
    assert_equal(ours, back.model(ids_of()), 1e-5)
    assert (back.labels, back.task) == (tuple(labels), {"class": "classify", "value": "regress"}.get(kind, "tag"))
    # On a classifier that transformers would train anew, and on acorn's own folder of one, the same comes out.
    write_model_folder(tmp_path / "classifier", classifier_of(back.model, head), tokenizer(), "card", labels=labels)
    again = read_adapter(tmp_path / "adapter").merged_into(load(tmp_path / "classifier"))
    assert again.labels == tuple(labels)
    assert torch.equal(again.model.score.weight, model.score.weight)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="is not part of the model"):
        read_adapter(tmp_path / "adapter").merged_into(loaded)


def classifier_of(model: GPT, head: HeadSpec) -> GPT:
    other = GPT(model.config, head=head)
    other.load_state_dict(model.state_dict(), strict=False)
    return other


THEIR_CONFIGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all linear": {"target_modules": "all-linear", "r": 3, "lora_alpha": 7},
    "rank-stabilized": {"target_modules": "all-linear", "r": 4, "use_rslora": True},
    "expression": {"target_modules": r".*\.(1\.mlp\.\w+_proj|1\.mlp\.c_fc)", "r": 2},
    "one layer": {"target_modules": "all-linear", "r": 2, "layers_to_transform": None},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {r".*1\.mlp\.\w+": 5, "c_attn|q_proj": 2},
        "alpha_pattern": {r"0\..*": 3.5},
        "r": 4,
    },
    "norms": {"target_modules": "all-linear", "modules_to_save": ["ln_f", "model.norm"]},
    "tokens": {"target_modules": "all-linear", "trainable_token_indices": [9, 2]},
}


def made_by_peft(base: Path, folder: Path, settings: dict[str, Any], kind: str = "CausalLM", **more: Any) -> Any:
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(base, **more)
    task = {"CausalLM": "CAUSAL_LM", "SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS"}[kind]
    is_gpt2 = model.config.model_type == "gpt2"
    if settings.get("layers_to_transform", 0) is None:
        settings = {**settings, "layers_to_transform": [1], "target_modules": ["c_attn" if is_gpt2 else "q_proj"]}
    if is_gpt2:
        settings = {"target_modules": ["c_attn"], "fan_in_fan_out": True, **settings}
    peft = get_peft_model(model, LoraConfig(task_type=task, **settings)).eval()
    randomized(peft, 5, lambda name: peft.get_parameter(name).requires_grad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.save_pretrained(str(folder))
    return peft


@pytest.mark.parametrize("settings", THEIR_CONFIGS)
@pytest.mark.parametrize("shape", ["original", "gpt2", "modern", "llama-untied"])
@torch.no_grad()
def test_adapters_of_peft_load(shape: str, settings: str, tmp_path: Path) -> None:
    base = base_of(shape, tmp_path / "base")
    peft = made_by_peft(tmp_path / "base", tmp_path / "adapter", THEIR_CONFIGS[settings])
    theirs = peft(ids_of()).logits
    assert (theirs - base(ids_of())).abs().max() > 0.01
    assert_equal(read_adapter(tmp_path / "adapter").merged_into(load(tmp_path / "base")).model(ids_of()), theirs)


@pytest.mark.parametrize("shape", ["gpt2", "modern"])
@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
@torch.no_grad()
def test_classifiers_of_peft_load(shape: str, kind: str, tmp_path: Path) -> None:
    base_of(shape, tmp_path / "base")
    peft = made_by_peft(tmp_path / "base", tmp_path / "adapter", {}, kind, num_labels=3)
    head = HeadSpec("tag", 3, bias=True) if kind.startswith("Token") else HeadSpec("class", 3)
    found = read_adapter(tmp_path / "adapter").merged_into(load(tmp_path / "base"), head, ("a", "b", "c"))
    ours = found.model(ids_of())
    assert_equal(ours if head.kind == "tag" else ours[:, -1], peft(ids_of()).logits)


@pytest.mark.parametrize("target", [["lm_head", "q_proj"], ["embed_tokens"], ["q_proj"]])
@torch.no_grad()
def test_embedding_and_head_apart_can_have_factors(target: list[str], tmp_path: Path) -> None:
    base_of("llama-untied", tmp_path / "base")
    settings: dict[str, Any] = {"target_modules": target, "r": 3}
    if target == ["q_proj"]:
        settings["modules_to_save"] = ["embed_tokens", "lm_head"]
    peft = made_by_peft(tmp_path / "base", tmp_path / "adapter", settings)
    adapter = read_adapter(tmp_path / "adapter")
    assert_equal(adapter.merged_into(load(tmp_path / "base")).model(ids_of()), peft(ids_of()).logits)


@pytest.mark.parametrize("shape", ["gpt2", "original", "modern"])
@pytest.mark.parametrize("bias", ["all", "lora_only"])
@torch.no_grad()
def test_trained_biases_are_taken_or_refused(shape: str, bias: str, tmp_path: Path) -> None:
    """`original` has no bias of query, key and value, but a place for one in its layout, which PEFT trains."""
    base_of(shape, tmp_path / "base")
    peft = made_by_peft(tmp_path / "base", tmp_path / "adapter", {"bias": bias, "target_modules": "all-linear"})
    adapter, base = read_adapter(tmp_path / "adapter"), load(tmp_path / "base")
    if shape == "original":
        with pytest.raises(InputError, match="query, key or value bias"):
            adapter.merged_into(base)
    else:
        assert_equal(adapter.merged_into(base).model(ids_of()), peft(ids_of()).logits)


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ("modern", {"target_modules": ["lm_head"]}, "lm_head has factors, but shares its matrix"),
        ("modern", {"target_modules": ["embed_tokens"]}, "embed_tokens has factors, but shares"),
        ("modern", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, "was trained apart"),
        ("modern", {"use_dora": True}, "use_dora is True"),
        ("modern", {"lora_bias": True}, "lora_bias is True"),
        ("modern", {"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ],
)
def test_what_weights_cannot_hold_is_refused(shape: str, settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    base_of(shape, tmp_path / "base")
    made_by_peft(tmp_path / "base", tmp_path / "adapter", settings)
    with pytest.raises(InputError, match=said) as caught:
        read_adapter(tmp_path / "adapter").merged_into(load(tmp_path / "base"))
    assert caught.value.exit_code == 3


def edit(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def some(tensors: dict[str, Tensor], ending: str) -> str:
    return next(name for name in sorted(tensors) if name.endswith(ending))


DAMAGES: dict[str, tuple[Callable[[Path], Any], type[AcornError], str]] = {
    "no config": (lambda p: (p / "adapter_config.json").unlink(), DamageError, "adapter_config.json is missing"),
    "no weights": (lambda p: (p / "adapter_model.safetensors").unlink(), DamageError, "safetensors is missing"),
    "a pickle": (
        lambda p: (p / "adapter_model.safetensors").rename(p / "adapter_model.bin"),
        DamageError,
        "which could run any code",
    ),
    "no JSON": (
        lambda p: (p / "adapter_config.json").write_text("{"),
        DamageError,
        "is not what acorn writes|JSON|cannot be read",
    ),
    "a list": (lambda p: (p / "adapter_config.json").write_text("[1]"), DamageError, "JSON object"),
    "rank 0": (lambda p: edit(p, r=0), DamageError, "r: Input should be greater"),
    "rank of another kind": (lambda p: edit(p, r="four"), DamageError, "r: Input should be a valid integer"),
    "no alpha": (lambda p: edit(p, lora_alpha=None), DamageError, "lora_alpha"),
    "a wrong expression": (lambda p: edit(p, rank_pattern={"(": 3}), DamageError, "regular expression"),
    "rank 0 by a pattern": (lambda p: edit(p, rank_pattern={"q_proj": 0}), DamageError, "rank_pattern"),
    "another method": (lambda p: edit(p, peft_type="IA3"), InputError, "has the type IA3; acorn reads LORA"),
    "a method to come": (lambda p: edit(p, use_quantum_lora={"depth": 3}), InputError, "use_quantum_lora is"),
    "another rank": (lambda p: edit(p, r=5), InputError, "not of the rank 5"),
    "cut": (
        lambda p: (p / "adapter_model.safetensors").write_bytes((p / "adapter_model.safetensors").read_bytes()[:-9]),
        DamageError,
        "cannot be read as safetensors",
    ),
    "nothing in it": (lambda p: edit_tensors(p, dict.clear), DamageError, "does not have any tensor"),
    "one factor": (
        lambda p: edit_tensors(p, lambda t: t.pop(some(t, "up_proj.lora_B.weight"))),
        DamageError,
        r"does not have base_model.model.model.layers.0.mlp.up_proj.lora_B.weight",
    ),
    "a layer without factors": (
        lambda p: edit_tensors(p, lambda t: [t.pop(some(t, f"up_proj.lora_{x}.weight")) for x in "AB"]),
        InputError,
        r"layers.0.mlp.up_proj is named in target_modules, but has no factors",
    ),
    "another shape": (
        lambda p: edit_tensors(p, lambda t: t.update({some(t, "up_proj.lora_A.weight"): torch.ones(4, 31)})),
        InputError,
        "the factors of model.layers.0.mlp.up_proj give",
    ),
    "whole numbers": (
        lambda p: edit_tensors(p, lambda t: t.update({some(t, "up_proj.lora_A.weight"): torch.ones(4, 32).int()})),
        InputError,
        "has the data type torch.int32",
    ),
    "a strange tensor": (
        lambda p: edit_tensors(p, lambda t: t.update({"base_model.model.model.router.weight": torch.ones(4, 4)})),
        InputError,
        "model.router.weight is not part of the model",
    ),
    "rows too few": (
        lambda p: edit_tensors(p, lambda t: t.update({some(t, "tokens_delta"): torch.ones(2, 32)})),
        InputError,
        r"rows of the shape \[2, 32\], not \[3, 32\]",
    ),
    "rows beyond the end": (
        lambda p: edit(p, trainable_token_indices={"embed_tokens": [1, 2, 300]}),
        InputError,
        "trainable_token_indices has 300, but the model only 300",
    ),
    "no rows": (
        lambda p: edit_tensors(p, lambda t: t.pop(some(t, "tokens_delta"))),
        InputError,
        "is named in trainable_token_indices, but has no rows",
    ),
}


@pytest.fixture(scope="module")
def base_and_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    base = base_of("modern", folder / "base")
    write_adapter(folder / "adapter", lora_on(base, LoraSpec(4, 8.0, markup_ids=MARKUP)))
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_and_misfits_are_named(damage: str, base_and_adapter: Path, tmp_path: Path) -> None:
    harm, kind, said = DAMAGES[damage]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in (base_and_adapter / "adapter").iterdir():
        if file.name != "manifest.json":  # as an adapter of another program, which has none
            (adapter / file.name).write_bytes(file.read_bytes())
    harm(adapter)
    with pytest.raises(kind, match=said):
        read_adapter(adapter).merged_into(load(base_and_adapter / "base"))


def test_a_manifest_is_checked(base_and_adapter: Path, tmp_path: Path) -> None:
    base = GPT(SHAPES["modern"])
    base.init_weights(0)
    write_adapter(tmp_path / "adapter", lora_on(base, SPECS["all"]))
    edit(tmp_path / "adapter", lora_alpha=9)
    with pytest.raises(DamageError, match="SHA-256 differs"):
        read_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("other", ["gpt2", "modern-untied", "llama"])
def test_an_adapter_of_another_model_is_refused(other: str, base_and_adapter: Path, tmp_path: Path) -> None:
    base = base_of("llama" if other == "llama" else other, tmp_path / "base")
    if other == "modern-untied":  # rows of the embedding alone do fit; more heads for key and value do not
        assert base.config.kv_heads == 4
    with pytest.raises(InputError, match="The adapter does not fit the model:\n  - ") as caught:
        read_adapter(base_and_adapter / "adapter").merged_into(load(tmp_path / "base"))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("base", "named", "told"),
    [
        (Base("me/small", "hub", "revision 0123456789ab"), "me/small", "me/small (revision 0123456789ab)"),
        (Base("mine", "run", "step 20"), None, "the run mine (step 20)"),
        (Base("gpt", "folder"), None, "the model folder gpt"),
        (None, None, "a model that is not known"),
    ],
)
def test_the_base_is_named_only_where_others_find_it(
    base: Base | None, named: str | None, told: str, tmp_path: Path
) -> None:
    plain = GPT(SHAPES["gpt2"])
    plain.init_weights(0)
    bases = [base] if base else []
    for name in ("one", "two"):
        write_adapter(tmp_path / name, lora_on(plain, SPECS["all"], HeadSpec("class", 2)), bases, ["ham", "spam"])
    values = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == named
    for file in (tmp_path / "one").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    import huggingface_hub

    card = (tmp_path / "one" / CARD).read_text()
    metadata = huggingface_hub.metadata_load(tmp_path / "one" / CARD)
    assert metadata is not None
    assert metadata.get("base_model") == named
    assert metadata["library_name"] == "peft"
    assert told in card
    assert '1: "spam"' in card
    assert "num_labels=2" in card


def test_targets_have_the_names_that_other_programs_know(tmp_path: Path) -> None:
    """Both `c_proj` of GPT-2's blocks by that name; one of them with what is before it."""
    base = GPT(SHAPES["gpt2"])
    base.init_weights(0)
    for targets, names in {
        (): ["c_attn", "c_fc", "c_proj"],
        ("down_proj", "q_proj"): ["c_attn", "mlp.c_proj"],
    }.items():
        write_adapter(tmp_path / "adapter", lora_on(base, LoraSpec(2, 4.0, targets=targets)))
        values = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert values["target_modules"] == names
        assert values["rank_pattern"] == ({} if targets else {"c_attn": 6})
        assert values["alpha_pattern"] == ({} if targets else {"c_attn": 12})


@pytest.mark.parametrize("kind", ["", "class"])
@pytest.mark.parametrize("shape", ["gpt2", "modern-untied"])
@torch.no_grad()
def test_checkpoints_with_lora_load_merged(shape: str, kind: str, tmp_path: Path) -> None:
    head = HEADS[kind] if kind else None
    base = GPT(SHAPES[shape])
    randomized(base, 1)
    spec = LoraSpec(4, 8.0, markup_ids=MARKUP)
    model = lora_on(base, spec, head)
    folder = tmp_path / "step-00000003"
    save_checkpoint(folder, Config(model=base.config), tokenizer().to_json(), model, [], Counters(step=3), {})
    with pytest.raises(DamageError, match="lora_a is not part of this architecture"):
        load_checkpoint(folder, task_of=lambda state, _: ModelTask(head, ("a", "b", "c") if head else ()))
    loaded = load_checkpoint(
        folder,
        task_of=lambda state, _: ModelTask(head, ("a", "b", "c") if head else ()),
        lora_of=lambda state: lora_spec(LoraSettings(rank=4), MARKUP),
    )
    assert loaded.model.lora is None
    assert_equal(model(ids_of()), loaded.model(ids_of()), 1e-5)
    for name, weight in merged(model).items():
        assert torch.equal(loaded.model.get_parameter(name), weight)
    other = LoraSettings(rank=3)
    with pytest.raises(DamageError, match=r"has the shape \[4, 32\], not \[3, 32\]"):
        load_checkpoint(folder, task_of=lambda state, _: ModelTask(head), lora_of=lambda state: lora_spec(other))


def test_settings_become_a_spec() -> None:
    assert lora_spec(LoraSettings()) is None
    assert lora_spec(LoraSettings(rank=4)) == LoraSpec(4, 8.0)
    settings = LoraSettings(rank=4, alpha=5.0, dropout=0.5, targets=("q_proj",))
    assert lora_spec(settings, (3,)) == LoraSpec(4, 5.0, 0.5, ("q_proj",), (3,))
