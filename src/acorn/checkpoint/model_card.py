"""The model card: README.md of a model folder, with the metadata for the Hugging Face Hub at its top.

It depends only on the given facts, not on time or machine, so equal runs write equal cards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acorn.checkpoint.card_parts import (
    architecture,
    base_section,
    figure,
    hub_names,
    license_of,
    linked,
    named_sources,
    number,
    provenance,
    quoted,
    table,
    text_description,
)
from acorn.config import Config, ModelConfig
from acorn.data.token_shards import SplitCount
from acorn.figure_names import CONDITIONS, SCORES, SPLITS, TEXT_COUNTS, altered_text, beside, in_a_sentence
from acorn.model.sizing import size_of
from acorn.origin import Base, descent, public_name
from acorn.tokenizer.tokenizer import Tokenizer

HUB_METRICS = {
    "loss_per_token": "loss",
    "perplexity_per_token": "perplexity",
    "bits_per_byte": "bits_per_byte",
    "word_perplexity": "word_perplexity",
}
"""Figure of an evaluation -> its type in the Hub's metadata, in the order of the table."""


@dataclass(frozen=True)
class CardFacts:
    """The content of a model card.

    Attributes:
        name: name of the run.
        config: the network.
        parameters: number of parameters; a tied matrix counts once.
        tokenizer_kind: "bpe" or "wordpiece".
        lossless: whether the tokenizer reproduces every text exactly.
        sources: sources of the training text, as in `data.source`.
        clean: how that text was cleaned, as in `data.clean`.
        bases: the models whose weights training started from, nearest first; none: it was trained from scratch.
        license: license of the training text; empty: looked up for known sources, otherwise "not stated".
        documents, tokens, words, bytes: counts of the training split; words and bytes before cleaning.
        steps: number of optimizer steps.
        tokens_seen: target tokens trained on, including repetitions.
        recipe: other facts about the training, name -> value (optimizer, peak learning rate, precision, seed...).
        evaluations: one mapping per split, with the keys that `acorn evaluate --json` prints.
        limits: sentences on the limits of these weights, in addition to those of every model.
    """

    name: str
    config: ModelConfig
    parameters: int
    tokenizer_kind: str
    lossless: bool
    sources: Sequence[str]
    documents: int
    tokens: int
    words: int
    bytes: int
    steps: int
    tokens_seen: int
    recipe: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]] = ()
    bases: Sequence[Base] = ()
    license: str = ""
    limits: Sequence[str] = ()
    clean: str = "none"


def facts_of_run(
    config: Config,
    model: ModelConfig,
    tokenizer: Tokenizer,
    train: SplitCount,
    step: int,
    evaluations: Sequence[Mapping[str, Any]],
    bases: Sequence[Base],
    limits: Sequence[str] = (),
    *,
    clean: str = "none",
) -> CardFacts:
    """The facts of a run's weights at `step`.

    Args:
        model: the network.
        train: counts of the training split.
        evaluations: of these weights, one per split.
        bases: the models that the run started from, nearest first.
        limits: sentences on the limits of these weights.
        clean: how the text was cleaned, as in `data.clean`.
    """
    recipe = {
        **({"starting weights": descent(bases)} if bases else {}),
        "optimizer": config.optimizer.name,
        "peak learning rate": config.optimizer.peak_lr,
        "schedule": config.schedule.name,
        "sequences per step": config.train.batch_size,
        "tokens per sequence": config.model.block_size,
        "precision": config.train.precision,
        "seed": config.train.seed,
    }
    return CardFacts(
        name=config.name,
        config=model,
        parameters=size_of(model).parameters,
        tokenizer_kind=tokenizer.kind,
        lossless=tokenizer.lossless,
        sources=config.data.source,
        documents=train.documents,
        tokens=train.tokens,
        words=train.words,
        bytes=train.bytes,
        steps=step,
        tokens_seen=step * config.train.batch_size * config.model.block_size,
        recipe=recipe,
        evaluations=tuple(evaluations),
        bases=tuple(bases),
        limits=tuple(limits),
        clean=clean,
    )


def write_card(facts: CardFacts) -> str:
    """The text of README.md."""
    parts = [
        _metadata(facts),
        f"# {facts.name}",
        _summary(facts),
        "## Use",
        _use(facts),
        "## Architecture",
        table("", "", architecture(facts.config, facts.parameters, facts.tokenizer_kind)),
        *base_section(facts.bases),
        "## Training data",
        table("", "", _data(facts)),
        "## Training",
        table("", "", _training(facts)),
        "## Evaluation",
        *[_evaluation(evaluation, facts) for evaluation in facts.evaluations],
        *([] if facts.evaluations else ["No split was evaluated."]),
        "## Limits",
        _limits(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(facts: CardFacts) -> str:
    size, text = f"A language model of {facts.parameters:,} parameters", named_sources(facts.sources)
    if facts.bases:
        return f"{size}: {linked(facts.bases[0])}, trained further with acorn on {text}. It continues text."
    return (
        f"{size}, trained from scratch with acorn on {text}. It continues text; it was not trained to "
        "follow instructions."
    )


def _metadata(facts: CardFacts) -> str:
    """YAML between two lines of dashes. Strings are written as JSON strings, which are valid YAML."""
    layout = "qwen3" if facts.config.architecture == "modern" else "gpt2"
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags:"]
    lines += [f"- {tag}" for tag in ("acorn", layout, "continued-pretraining" if facts.bases else "from-scratch")]
    if published := next(
        (base for base in facts.bases if base.kind == "hub"), None
    ):  # the Hub accepts only its own names
        lines += [f"base_model: {quoted(published.name)}", "base_model_relation: finetune"]
    lines += provenance(text_description(facts.sources), facts.bases)
    datasets = hub_names(facts.sources)
    if datasets:
        lines += ["datasets:", *(f"- {quoted(name)}" for name in datasets)]
    if facts.evaluations:
        lines += ["model-index:", f"- name: {quoted(facts.name)}", "  results:"]
    for evaluation in facts.evaluations:
        lines += [
            "  - task:",
            "      type: text-generation",
            "    dataset:",
            f"      name: {quoted(', '.join(map(public_name, facts.sources)) or 'token shards')}",
            f"      type: {quoted(datasets[0] if datasets else 'text')}",
            f"      split: {quoted(evaluation['split'])}",
            "    metrics:",
        ]
        for key, kind in HUB_METRICS.items():
            if evaluation.get(key) is not None:
                title = quoted(_measured(key, facts))
                lines += [f"    - type: {kind}", f"      name: {title}", f"      value: {number(evaluation[key])}"]
    return "\n".join([*lines, "---"])


def _use(facts: CardFacts) -> str:
    return f"""With transformers, in this folder or under its name on the Hub:

```python
from transformers import pipeline

generator = pipeline("text-generation", model=".")
print(generator("The ", max_new_tokens=50, do_sample=True, temperature=0.8, top_k=50)[0]["generated_text"])
```

With acorn: `acorn generate . --prompt "The "`. Neither runs code from this folder. The context is
{facts.config.block_size:,} tokens, prompt and new text together."""


def _data(facts: CardFacts) -> dict[str, Any]:
    return {
        "source": named_sources(facts.sources),
        "license": facts.license or license_of(facts.sources),
        "cleaning": facts.clean,
        **{in_a_sentence(label): getattr(facts, key) for key, label in TEXT_COUNTS.items()},
        "epochs": figure(facts.tokens_seen / facts.tokens) if facts.tokens else 0,
    }


def _training(facts: CardFacts) -> dict[str, Any]:
    named = f"`{facts.name}` (`name` in the config)"
    return {"config": named, "steps": facts.steps, "tokens seen": facts.tokens_seen, **facts.recipe}


def _evaluation(evaluation: Mapping[str, Any], facts: CardFacts) -> str:
    """One split's figures, with what they were measured on and the notes on them."""
    figures = {_measured(key, facts): figure(evaluation[key]) for key in HUB_METRICS if evaluation.get(key) is not None}
    names = {**{key: CONDITIONS[key] for key in ("context", "stride", "precision")}, **TEXT_COUNTS}
    others = {name: evaluation[key] for key, name in names.items() if key in evaluation}
    said = {name: evaluation.get(f"{key}_note") for key, name in SCORES.items()}
    notes = [f"{name}: {str(note).removesuffix('.')}." for name, note in said.items() if note]
    split = SPLITS.get(evaluation["split"], evaluation["split"])
    return "\n\n".join([table(f"{split} split", "", {**figures, **others}), *notes])


def _measured(key: str, facts: CardFacts) -> str:
    """The name of a figure, with what a reader has to know before it is compared with another one."""
    note = beside(altered_text(facts.clean, facts.lossless))
    return SCORES[key] + (f": {note}" if note else "")


def _limits(facts: CardFacts) -> str:
    more = " and that of its base" if facts.bases else ""
    limits = [
        *facts.limits,
        f"It knows only its training text{more}, repeats the errors in it, and makes up facts.",
        "It was not checked for safety or bias; do not rely on what it writes.",
    ]
    if facts.config.architecture != "modern":
        limits.append(f"It has no positions beyond {facts.config.block_size:,} tokens.")
    if not facts.lossless:
        limits.append("The tokenizer is not lossless: it drops accents and some characters.")
    return "\n".join(f"- {limit}" for limit in limits)
