"""README.md of a model folder: the model card, with the metadata that the Hugging Face Hub reads at its top.

Everything in it comes from the facts handed in: no clock, no host, so equal runs give equal cards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acorn.config import Config, ModelConfig
from acorn.data.token_shards import SplitCount
from acorn.model.sizing import size_of
from acorn.tokenizer.tokenizer import Tokenizer

HUB_NAMES = {"bundled:wikitext-2": "Salesforce/wikitext"}
"""Sources that are a Hub dataset under another name."""

WIKITEXT_LICENCE = "CC BY-SA 3.0 (text from Wikipedia; Merity et al. 2016)"
LICENCES = {"bundled:wikitext-2": WIKITEXT_LICENCE, "hf:Salesforce/wikitext": WIKITEXT_LICENCE}
"""Licences of sources that are known by name."""

METRICS = {
    "loss_per_token": ("Loss per token (nats)", "loss"),
    "perplexity_per_token": ("Perplexity per token", "perplexity"),
    "bits_per_byte": ("Bits per byte", "bits_per_byte"),
    "word_perplexity": ("Word perplexity", "word_perplexity"),
}
"""Figure of an evaluation -> what it is called, and its type in the Hub's metadata."""


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells.

    Attributes:
        name: of the run.
        config: the network's shape.
        parameters: its count, a tied matrix once.
        tokenizer_kind: "bpe" or "wordpiece".
        lossless: every text comes back from the tokenizer as it went in.
        sources: where the training text came from, as in `data.source`.
        licence: of the training text; empty: looked up for known sources, else said to be the reader's to find out.
        documents, tokens, words, bytes: of the training split; words and bytes before cleaning.
        steps: optimizer steps taken.
        tokens_seen: target tokens trained on, repetitions included.
        recipe: what else to know about the training, setting -> value (optimizer, peak rate, precision, seed...).
        evaluations: one mapping a split, with the keys that `acorn evaluate --json` prints.
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
    licence: str = ""


def facts_of_run(
    config: Config,
    model: ModelConfig,
    tokenizer: Tokenizer,
    train: SplitCount,
    step: int,
    evaluations: Sequence[Mapping[str, Any]],
) -> CardFacts:
    """The facts of a run's weights at `step`.

    Args:
        model: the network's shape.
        train: counts of the training split.
        evaluations: one a split, of these weights.
    """
    recipe = {
        **({"starts from": config.train.init_from} if config.train.init_from else {}),
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
    )


def write_card(facts: CardFacts) -> str:
    """The text of README.md."""
    parts = [
        _metadata(facts),
        f"# {facts.name}",
        f"A language model of {facts.parameters:,} parameters, trained from scratch with acorn on "
        f"{_sources(facts)}. It continues text; it was not taught to follow instructions.",
        "## Use",
        _use(facts),
        "## Architecture",
        _table("", "", _architecture(facts)),
        "## Training data",
        _table("", "", _data(facts)),
        "## Training",
        _table("", "", {"steps": facts.steps, "tokens seen": facts.tokens_seen, **facts.recipe}),
        "## Evaluation",
        *[_evaluation(evaluation) for evaluation in facts.evaluations],
        *([] if facts.evaluations else ["No split was evaluated."]),
        "## Limits",
        _limits(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> str:
    """YAML between two lines of dashes. Strings are written as JSON, which YAML reads too."""
    layout = "qwen3" if facts.config.architecture == "modern" else "gpt2"
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags:"]
    lines += [f"- {tag}" for tag in ("acorn", layout, "from-scratch")]
    datasets = _hub_names(facts.sources)
    if datasets:
        lines += ["datasets:", *(f"- {_quoted(name)}" for name in datasets)]
    if facts.evaluations:
        lines += ["model-index:", f"- name: {_quoted(facts.name)}", "  results:"]
    for evaluation in facts.evaluations:
        lines += [
            "  - task:",
            "      type: text-generation",
            "    dataset:",
            f"      name: {_quoted(', '.join(facts.sources) or 'token shards')}",
            f"      type: {_quoted(datasets[0] if datasets else 'text')}",
            f"      split: {_quoted(evaluation['split'])}",
            "    metrics:",
        ]
        for key, (title, kind) in METRICS.items():
            if evaluation.get(key) is not None:
                lines += [f"    - type: {kind}", f"      name: {title}", f"      value: {_rounded(evaluation[key])}"]
    return "\n".join([*lines, "---"])


def _use(facts: CardFacts) -> str:
    return f"""With transformers, in this folder or under its name on the Hub:

```python
from transformers import pipeline

generator = pipeline("text-generation", model=".")
print(generator("The ", max_new_tokens=50, do_sample=True, temperature=0.8, top_k=50)[0]["generated_text"])
```

With acorn: `acorn generate . --prompt "The "`. Neither runs code from this folder. Prompt and new text together fit
into {facts.config.block_size:,} tokens."""


def _architecture(facts: CardFacts) -> dict[str, Any]:
    config = facts.config
    modern = config.architecture == "modern"
    layout = ("Qwen3" if config.qk_norm else "Llama") if modern else "GPT-2"
    activation = {"original": "ReLU", "gpt2": "GELU (tanh)", "modern": "SwiGLU"}[config.architecture]
    return {
        "architecture": f"{config.architecture} ({layout} layout)",
        "parameters": facts.parameters,
        "blocks": config.n_layer,
        "width": config.n_embd,
        "query heads": config.heads,
        "key and value heads": config.kv_heads,
        "MLP": f"{config.mlp_hidden:,} wide, {activation}",
        "norm": f"{'RMSNorm' if modern else 'LayerNorm'}, before attention and MLP, epsilon {config.epsilon:g}",
        "positions": f"rotary, base {config.rope_theta:,.0f}" if modern else "learned table",
        "context": f"{config.block_size:,} tokens",
        "vocabulary": f"{config.vocab_size:,} entries ({facts.tokenizer_kind})",
        "head": "tied to the embedding" if config.is_tied else "its own matrix",
        "dropout in training": config.dropout,
    }


def _data(facts: CardFacts) -> dict[str, Any]:
    return {
        "source": _sources(facts),
        "licence": _licence(facts),
        "documents": facts.documents,
        "tokens": facts.tokens,
        "words": facts.words,
        "bytes": facts.bytes,
        "passes over the data": _rounded(facts.tokens_seen / facts.tokens) if facts.tokens else 0,
    }


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    """One split's figures, with what they were measured on and what to know about them."""
    figures = {
        title: _rounded(evaluation[key]) for key, (title, _) in METRICS.items() if evaluation.get(key) is not None
    }
    measured = {key: evaluation[key] for key in ("context", "stride", "precision") if key in evaluation}
    counts = {key: evaluation[key] for key in ("documents", "tokens", "words", "bytes") if key in evaluation}
    notes = [evaluation[key] for key in ("bits_per_byte_note", "word_perplexity_note") if evaluation.get(key)]
    table = _table(f"{evaluation['split']} split", "", {**figures, **measured, **counts})
    return "\n\n".join([table, *notes])


def _limits(facts: CardFacts) -> str:
    limits = [
        "It knows nothing but its training text, repeats what is wrong in it, and makes up the rest.",
        "It was not checked for safety or bias; do not rely on what it writes.",
    ]
    if facts.config.architecture != "modern":
        limits.append(f"Positions beyond {facts.config.block_size:,} tokens do not exist in it.")
    if not facts.lossless:
        limits.append("The tokenizer drops accents and some characters: text does not come back exactly as it went in.")
    return "\n".join(f"- {limit}" for limit in limits)


def _sources(facts: CardFacts) -> str:
    return ", ".join(f"`{source}`" for source in facts.sources) or "prepared token shards"


def _licence(facts: CardFacts) -> str:
    if facts.licence:
        return facts.licence
    known = [LICENCES.get(_without_config(source)) for source in facts.sources]
    if known and all(known):
        return "; ".join(dict.fromkeys(licence for licence in known if licence))
    return "not stated; look at the source"


def _hub_names(sources: Sequence[str]) -> list[str]:
    names = (
        HUB_NAMES.get(source) or _without_config(source).removeprefix("hf:") for source in sources if ":" in source
    )
    return list(dict.fromkeys(name for name in names if name.count("/") == 1 and not name.startswith((".", "/"))))


def _without_config(source: str) -> str:
    """`hf:OWNER/NAME:CONFIG` -> `hf:OWNER/NAME`; other sources as they are."""
    return ":".join(source.split(":")[:2]) if source.startswith("hf:") else source


def _table(left: str, right: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {_cell(value)} |" for key, value in rows.items())])


def _cell(value: Any) -> str:
    counted = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if counted else str(value).replace("|", "\\|").replace("\n", " ")


def _rounded(value: float) -> float:
    """Five significant digits."""
    return float(f"{value:.5g}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
