"""README.md of an adapter: which model it belongs to, and how PEFT loads it.

It depends only on the given facts, not on time or machine, so equal runs write equal cards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from acorn.checkpoint.card_parts import NOT_STATED, base_section, provenance, quoted
from acorn.origin import Base, descent

CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
"""PEFT's name of the task -> class of transformers that loads the base model for it."""

PIPELINES = {"CAUSAL_LM": "text-generation", "SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification"}
"""PEFT's name of the task -> the Hub's."""

FOLDER_OF_BASE, FOLDER_OF_ADAPTER = "path/to/the/base/model", "path/to/this/folder"
FOLDER_OF_TOKENIZER = "path/to/the/run/final"
"""Folders in the example. Those of the machine that wrote the card would be useless on another one."""


def adapter_card(
    values: Mapping[str, Any], bases: Sequence[Base] = (), labels: Sequence[str] = (), trained_on: str = ""
) -> str:
    """The text of README.md.

    Args:
        values: of adapter_config.json.
        bases: the models that the adapter was trained from, nearest first; empty: unknown.
        labels: names of the outputs of its label head.
        trained_on: the training text with its license; empty: unknown.
    """
    on_hub = values["base_model_name_or_path"]
    metadata = ["library_name: peft", f"pipeline_tag: {PIPELINES[values['task_type']]}"]
    metadata += [f"base_model: {quoted(on_hub)}", "base_model_relation: adapter"] if on_hub else []
    metadata += ["tags:", "- acorn", "- lora", *provenance(trained_on, bases)]
    of = descent(bases) if bases else "a model that is not known"
    targets = ", ".join(f"`{name}`" for name in values["target_modules"])
    sections = [
        f"# Adapter of {bases[0].name}" if bases else "# Adapter",
        f"A LoRA adapter (rank {values['r']}, alpha {values['lora_alpha']:g}, {targets}) that acorn trained. It "
        f"changes the weights of {of}, and is of no use without them.",
    ]
    if values["trainable_token_indices"]:
        sections.append("It also has rows of the embedding for tokens that the base model was not trained on.")
    if labels:
        names = ", ".join(f"{number}: {json.dumps(label, ensure_ascii=False)}" for number, label in enumerate(labels))
        sections.append(f"Its head has these outputs: {names}.")
    text = ["## Training text", f"{trained_on or NOT_STATED}."]
    return "\n".join(
        ["---", *metadata, "---", "", *_spaced([*sections, *_use(values, labels), *base_section(bases), *text])]
    )


def _use(values: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """How the adapter is loaded. The base model must be in the layout of transformers."""
    base = values["base_model_name_or_path"] or FOLDER_OF_BASE
    name = CLASSES[values["task_type"]]
    more = f", num_labels={len(labels)}" if labels else ""
    code = [
        "from peft import PeftModel",
        f"from transformers import {name}, AutoTokenizer",
        "",
        f"base = {name}.from_pretrained({json.dumps(base)}{more})",
        f"model = PeftModel.from_pretrained(base, {json.dumps(FOLDER_OF_ADAPTER)})",
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(FOLDER_OF_TOKENIZER)})",
    ]
    how = "With PEFT and transformers. The tokenizer is that of the run's `final/`."
    if not values["base_model_name_or_path"]:
        how += " The base model is not on the Hub; `acorn export BASE --format hf` writes it for transformers."
    return ["## How to use it", how, "\n".join(["```python", *code, "```"])]


def _spaced(sections: Sequence[str]) -> list[str]:
    """Sections with an empty line between them, and the end of the file."""
    return ["\n\n".join(sections) + "\n"]
