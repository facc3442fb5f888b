"""What servers read of an export: transformers' own classes, prompts, chats, ends; one cache for many requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from other_models import make_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from acorn.checkpoint.load import load
from acorn.export.export import export
from acorn.export.runtimes import Runtime
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings

PROMPTS = ["The keeper wrote", "In winter", "two  spaces\n\n你好", "He"]
CHAT = [{"role": "user", "content": "The keeper?"}]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a chat model: two end tokens, a template, and no padding rows in the vocabulary."""
    place = tmp_path_factory.mktemp("serving")
    make_model(place / "theirs", "qwen3", padding=0)
    (place / "theirs" / "chat_template.jinja").write_text(TEMPLATE)
    ends = AutoTokenizer.from_pretrained(place / "theirs").convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    (place / "theirs" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "installed", False)  # what the gates ask is not asked here
        export(place / "theirs", place / "ours", "hf")
    return place / "ours"


def ours(folder: Path, prompts: list[str]) -> list[list[int]]:
    loaded = load(folder)
    settings = SamplingSettings(NEW_TOKENS, greedy=True)
    results = generate(loaded.model, loaded.tokenizer, prompts, settings, end_ids=loaded.end_ids)
    return [list(result.new_ids) for result in results]


def test_only_classes_of_transformers_are_used(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    assert not hasattr(config, "auto_map")
    assert type(config) is transformers.Qwen3Config
    assert config.architectures == ["Qwen3ForCausalLM"]
    assert isinstance(
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False), transformers.PreTrainedTokenizerFast
    )
    assert not list(folder.glob("*.py"))


def test_requests_of_different_lengths_go_through_one_paged_cache(folder: Path) -> None:
    """The continuous batching of `transformers serve`, on a CPU."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    settings = GenerationConfig.from_pretrained(folder)
    settings.max_new_tokens = NEW_TOKENS
    # By default the cache takes most of the memory.
    small = transformers.ContinuousBatchingConfig(page_size=16, num_blocks=32, max_batch_tokens=64)
    inputs = tokenizer(PROMPTS)["input_ids"]
    answers = model.generate_batch(inputs, generation_config=settings, continuous_batching_config=small)
    made = {tuple(answer.prompt_ids): answer.generated_tokens for answer in answers.values()}
    assert [made[tuple(ids)] for ids in inputs] == ours(folder, PROMPTS)


def test_a_chat_uses_its_template_and_stops_at_the_end_of_turn(folder: Path, tmp_path: Path) -> None:
    pipeline = transformers.pipeline("text-generation", model=str(folder))
    prompt = pipeline.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nThe keeper?<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([load(folder).tokenizer.encode_prompt(prompt)])
    said = pipeline(CHAT, max_new_tokens=NEW_TOKENS, return_tensors=True)[0]["generated_token_ids"]
    assert said[ids.size(1) :] == ours(folder, [prompt])[0]
    turn = pipeline.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        hidden = pipeline.model.model(ids).last_hidden_state[0, -1]
        pipeline.model.lm_head.weight[turn] = 50 * hidden
    assert pipeline(CHAT)[0]["generated_text"][-1] == {"role": "assistant", "content": ""}
