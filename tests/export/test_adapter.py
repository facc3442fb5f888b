"""`acorn export RUN --format peft`: the adapter that a run with LoRA has, and refusals where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from small_models import LINES

from acorn.checkpoint.adapter import write_adapter
from acorn.checkpoint.integrity import verify_run
from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import ModelConfig
from acorn.errors import AcornError, DamageError, InputError, UsageError
from acorn.export.adapter import export_adapter
from acorn.export.export import export
from acorn.model.gpt import GPT
from acorn.model.lora import LoraSpec, is_new
from acorn.origin import Base
from acorn.run_folder import RunFolder
from acorn.tokenizer.training import train

IDS = torch.arange(40).reshape(2, 20)


def finetuned(root: Path, rank: int = 3) -> tuple[RunFolder, GPT]:
    """What a finished run with LoRA leaves, as far as exports read it: the merged model, and the adapter beside it."""
    run = RunFolder(root / "a run")
    run.root.mkdir(parents=True)
    run.environment.write_text("{}")
    tokenizer = train(lambda: LINES, "bpe", 300)
    config = ModelConfig(architecture="gpt2", n_layer=2, n_head=2, n_embd=16, block_size=32, vocab_size=300)
    model = GPT(config, lora=LoraSpec(rank, 6.0)).eval()
    model.init_weights(1)
    base = GPT(config)
    base.init_weights(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_new(name):
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    write_model_folder(root / "base", base, tokenizer, "card")
    write_model_folder(run.final, model, tokenizer, "card")
    write_adapter(run.adapter, model, [Base("base", "folder")])
    return run, model


@pytest.mark.parametrize("named", ["a run", "a run/final", "a run/adapter"])
def test_the_adapter_of_a_run_is_exported(named: str, tmp_path: Path) -> None:
    run, model = finetuned(tmp_path)
    values = export_adapter(tmp_path / named, tmp_path / "out")
    trained = sum(parameter.numel() for name, parameter in model.named_parameters() if is_new(name))
    zeros = 2 * (3 * 16 * 9 - 3 * 16 * 3)  # of the two blocks' B of c_attn: (3 C, 3 r) with three (C, r) that are not
    assert values == trained + zeros
    peft = PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(tmp_path / "out")
    )
    with torch.no_grad():
        torch.testing.assert_close(peft(IDS).logits, load(run.root).model(IDS), rtol=0, atol=1e-5)
    [check] = verify_run(tmp_path / "out")
    assert (check.kind, check.whole) == ("adapter", True)
    with pytest.raises(UsageError, match="already exists"):
        export_adapter(run.root, tmp_path / "out")
    export_adapter(run.root, tmp_path / "out", force=True)
    export(run.root, tmp_path / "out", "hf", force=True)  # another format may replace it, too


def test_a_run_without_an_adapter_is_refused(tmp_path: Path) -> None:
    run, _ = finetuned(tmp_path)
    shutil.rmtree(run.adapter)
    for place in (run.root, run.final, tmp_path / "base"):
        with pytest.raises(UsageError, match="has no adapter: only a run that was finetuned with LoRA") as caught:
            export_adapter(place, tmp_path / "out")
        assert caught.value.exit_code == 2
        assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_not_replaced_by_what_is(tmp_path: Path) -> None:
    run, _ = finetuned(tmp_path)
    step = run.checkpoint(3)
    step.mkdir(parents=True)
    with pytest.raises(UsageError, match="the adapter of its final model, and none"):
        export_adapter(step, tmp_path / "out")
    with pytest.raises(UsageError, match="the adapter of its final model, and none"):
        export_adapter(run.root, tmp_path / "out", checkpoint="best")
    with pytest.raises(UsageError, match="no data type 'bf16'"):
        export_adapter(run.root, tmp_path / "out", "bf16")
    with pytest.raises(UsageError, match="the folder of the adapter itself"):
        export_adapter(run.root, run.adapter / "out")
    with pytest.raises(UsageError, match="is an adapter, which is no model without"):
        load(run.adapter)


@pytest.mark.parametrize("harm", ["weights", "config", "another model's"])
def test_a_damaged_adapter_is_refused(harm: str, tmp_path: Path) -> None:
    run, _ = finetuned(tmp_path)
    kind: type[AcornError] = DamageError
    if harm == "weights":
        file = run.adapter / "adapter_model.safetensors"
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    elif harm == "config":
        file = run.adapter / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 7}))
    else:
        other = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=300), lora=LoraSpec(2, 2.0))
        other.init_weights(0)
        write_adapter(run.adapter, other)
        kind = InputError
    if kind is DamageError:
        assert [check.kind for check in verify_run(run.root) if not check.whole and check.folder == run.adapter] == [
            "adapter"
        ]
    with pytest.raises(kind, match=r"fails its check|does not fit"):
        export_adapter(run.root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
