"""The model card of a language model that was finetuned to answer: README.md of its folder.

It depends only on the given facts, not on time or machine, so equal runs write equal cards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acorn.checkpoint.card_parts import (
    architecture,
    base_section,
    cell,
    figure,
    hub_names,
    license_of,
    linked,
    named_sources,
    provenance,
    quoted,
    table,
    text_description,
)
from acorn.checkpoint.layouts import layout_of
from acorn.config import ModelConfig
from acorn.counting import counted
from acorn.figure_names import SPLITS, TASK_FIGURES
from acorn.model.sizing import size_of
from acorn.origin import Base

DOES = {"chat": "answers in conversations", "complete": "completes prompts"}
"""Task -> what such a model does."""


@dataclass(frozen=True)
class AnswerFacts:
    """The content of the card.

    Attributes:
        name: name of the run.
        task: "chat" or "complete".
        config: the network.
        tokenizer_kind: "bpe" or "wordpiece".
        sources: sources of the examples.
        examples: number of training examples.
        steps: number of optimizer steps.
        recipe: other facts about the training, name -> value.
        bases: the models whose weights training started from, nearest first.
        evaluations: one mapping per split, with the keys that `acorn evaluate --json` prints, and `split`.
        limits: sentences on the limits of these weights, in addition to those of every model.
    """

    name: str
    task: str
    config: ModelConfig
    tokenizer_kind: str
    sources: Sequence[str]
    examples: int
    steps: int
    recipe: Mapping[str, Any]
    bases: Sequence[Base] = ()
    evaluations: Sequence[Mapping[str, Any]] = ()
    limits: Sequence[str] = ()


def write_answer_card(facts: AnswerFacts) -> str:
    """The text of README.md."""
    parameters = size_of(facts.config).parameters
    start = linked(facts.bases[0]) if facts.bases else "random weights"
    sources = {"source": named_sources(facts.sources), "license": license_of(facts.sources)}
    parts = [
        _metadata(facts),
        f"# {facts.name}",
        f"A language model of {parameters:,} parameters that {DOES[facts.task]}: {start}, finetuned with acorn on "
        f"{named_sources(facts.sources)}.",
        "## Use",
        _use(facts),
        "## Architecture",
        table("", "", architecture(facts.config, parameters, facts.tokenizer_kind)),
        *base_section(facts.bases),
        "## Training data",
        table("", "", {**sources, "examples": facts.examples}),
        "## Training",
        table("", "", {"config": f"`{facts.name}` (`name` in the config)", "steps": facts.steps, **facts.recipe}),
        "## Evaluation",
        *[_evaluation(evaluation) for evaluation in facts.evaluations],
        *([] if facts.evaluations else ["No split was evaluated."]),
        "## Limits",
        "\n".join(f"- {cell(limit)}" for limit in (*facts.limits, *_LIMITS)),
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = (
    "It does well only what its examples show, makes up facts, and repeats the errors in its training text.",
    "It was not checked for safety or bias; do not rely on what it writes.",
)


def _metadata(facts: AnswerFacts) -> str:
    """YAML between two lines of dashes."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags:"]
    lines += [f"- {tag}" for tag in ("acorn", layout_of(facts.config).model_type, facts.task)]
    published = next((base for base in facts.bases if base.kind == "hub"), None)
    if published is not None:  # the Hub accepts only its own names
        lines += [f"base_model: {quoted(published.name)}", "base_model_relation: finetune"]
    lines += provenance(text_description(facts.sources), facts.bases)
    if datasets := hub_names(facts.sources):
        lines += ["datasets:", *(f"- {quoted(name)}" for name in datasets)]
    return "\n".join([*lines, "---"])


def _use(facts: AnswerFacts) -> str:
    asked = '[{"role": "user", "content": "Hello"}]' if facts.task == "chat" else '"A prompt"'
    return f"""With transformers, in this folder or under its name on the Hub:

```python
from transformers import pipeline

generator = pipeline("text-generation", model=".")
print(generator({asked}, max_new_tokens=100, return_full_text=False)[0]["generated_text"])
```

No code from this folder is run. The context is {facts.config.block_size:,} tokens, prompt and answer together."""


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    """One split's figures."""
    known = [name for name in TASK_FIGURES if evaluation.get(name) is not None]
    split = SPLITS.get(evaluation["split"], evaluation["split"])
    rows = [f"| {split} split | |", "|---|---|"]
    rows += [f"| {TASK_FIGURES[name]} | {figure(evaluation[name])} |" for name in known]
    return "\n".join(rows) + f"\n\nOf {counted(evaluation.get('examples', 0), 'answer')}."
