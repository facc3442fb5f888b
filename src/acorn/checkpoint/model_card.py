"""The model card: README.md of a model folder, with the metadata for the Hugging Face Hub at its top.

It depends only on the given facts, not on time or machine, so equal runs write equal cards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from acorn.config import Config, ModelConfig
from acorn.data.token_shards import SplitCount
from acorn.figure_names import CONDITIONS, SCORES, SPLITS, TEXT_COUNTS, altered_text, beside, in_a_sentence
from acorn.model.sizing import size_of
from acorn.origin import STARTS_FROM, Base, descent, hub_repository, public_name
from acorn.tokenizer.tokenizer import Tokenizer

HUB_NAMES = {"bundled:wikitext-2": "Salesforce/wikitext"}
"""Source -> the Hub dataset that it is a copy of."""

WIKITEXT_LICENSE = "CC BY-SA 3.0 (text from Wikipedia; Merity et al. 2016)"
LICENSES = {"Salesforce/wikitext": WIKITEXT_LICENSE}
"""Hub dataset -> its license."""

NOT_STATED, NOT_KNOWN = "not stated; see the source", "unknown; see its own model card"
UNLICENSED = "license not stated"

PROVENANCE, TRAINED_ON = "acorn", "trained_on"
"""Keys of a card's metadata: PROVENANCE contains TRAINED_ON and STARTS_FROM, so that a run that starts from the model's
folder can read what the card tells in sentences."""

EXPONENT_FROM = 1e15
"""Larger values are written with an exponent."""

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
        _table("", "", _architecture(facts)),
        *_base_section(facts),
        "## Training data",
        _table("", "", _data(facts)),
        "## Training",
        _table("", "", _training(facts)),
        "## Evaluation",
        *[_evaluation(evaluation, facts) for evaluation in facts.evaluations],
        *([] if facts.evaluations else ["No split was evaluated."]),
        "## Limits",
        _limits(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(facts: CardFacts) -> str:
    size = f"A language model of {facts.parameters:,} parameters"
    if facts.bases:
        return f"{size}: {_linked(facts.bases[0])}, trained further with acorn on {_sources(facts)}. It continues text."
    return (
        f"{size}, trained from scratch with acorn on {_sources(facts)}. It continues text; it was not trained to "
        "follow instructions."
    )


def _base_section(facts: CardFacts) -> list[str]:
    """The section on the models that this one was trained from; empty for a model from scratch."""
    if not facts.bases:
        return []
    head = "| model | license | trained on |\n|---|---|---|"
    rows = [
        f"| {_cell(_linked(base))} | {_cell(base.license or NOT_STATED)} | {_cell(base.text or NOT_KNOWN)} |"
        for base in facts.bases
    ]
    chain = " Each of the models below was trained from the next one." if len(rows) > 1 else ""
    return [
        "## Base model",
        f"Training started from the weights and tokenizer of {_linked(facts.bases[0])}.{chain} Their licenses, and "
        "those of their training text, apply in addition to the license of the text below.",
        "\n".join([head, *rows]),
    ]


def _linked(base: Base) -> str:
    """A base model in Markdown, with a link if it is on the Hub."""
    version = f" ({base.version})" if base.version else ""
    if base.kind == "hub":
        return f"[`{base.name}`](https://huggingface.co/{base.name}){version}"
    return f"the {'run' if base.kind == 'run' else 'model folder'} `{base.name}`{version}"


def _metadata(facts: CardFacts) -> str:
    """YAML between two lines of dashes. Strings are written as JSON strings, which are valid YAML."""
    layout = "qwen3" if facts.config.architecture == "modern" else "gpt2"
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags:"]
    lines += [f"- {tag}" for tag in ("acorn", layout, "continued-pretraining" if facts.bases else "from-scratch")]
    if published := next(
        (base for base in facts.bases if base.kind == "hub"), None
    ):  # the Hub accepts only its own names
        lines += [f"base_model: {_quoted(published.name)}", "base_model_relation: finetune"]
    lines += _provenance(text_description(facts.sources), facts.bases)
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
            f"      name: {_quoted(', '.join(map(public_name, facts.sources)) or 'token shards')}",
            f"      type: {_quoted(datasets[0] if datasets else 'text')}",
            f"      split: {_quoted(evaluation['split'])}",
            "    metrics:",
        ]
        for key, kind in HUB_METRICS.items():
            if evaluation.get(key) is not None:
                title = _quoted(_measured(key, facts))
                lines += [f"    - type: {kind}", f"      name: {title}", f"      value: {_number(evaluation[key])}"]
    return "\n".join([*lines, "---"])


def _provenance(text: str, bases: Sequence[Base]) -> list[str]:
    """Lines of metadata: the training text with its license, and the models that this one was trained from."""
    if not text and not bases:
        return []
    lines = [f"{PROVENANCE}:"]
    lines += [f"  {TRAINED_ON}: {_quoted(text)}"] if text else []
    lines += [f"  {STARTS_FROM}:"] if bases else []
    for base in bases:
        fields = [f"{name}: {_quoted(value)}" for name, value in asdict(base).items()]
        lines += [f"  - {fields[0]}", *(f"    {field}" for field in fields[1:])]
    return lines


def with_provenance(card: str, text: str, bases: Sequence[Base]) -> str:
    """A model card with these metadata added or replaced, and otherwise unchanged.

    Args:
        card: the text of README.md.
        text: the training text with its license; empty: unknown.
        bases: the models that this one was trained from, nearest first.
    """
    newline = "\r\n" if "\r\n" in card else "\n"
    lines = "".join(f"{line}{newline}" for line in _provenance(text, bases))
    found = _FRONT_MATTER.match(card)
    if found is None:
        return f"---{newline}{lines}---{newline}{newline}{card}" if lines else card
    rest = _PROVENANCE_BLOCK.sub("", found["rest"])
    return card[: found.start("rest")] + lines + rest + card[found.end("rest") :]


_FRONT_MATTER = re.compile(r"\s*---[\r\n]+(?P<rest>(?s:.*?))^---[ \t]*\r?$", re.MULTILINE)
"""Metadata at the top of a card, between two lines of dashes."""

_PROVENANCE_BLOCK = re.compile(rf"^{PROVENANCE}:.*\n(?:[ \t-].*\n)*", re.MULTILINE)


def _use(facts: CardFacts) -> str:
    return f"""With transformers, in this folder or under its name on the Hub:

```python
from transformers import pipeline

generator = pipeline("text-generation", model=".")
print(generator("The ", max_new_tokens=50, do_sample=True, temperature=0.8, top_k=50)[0]["generated_text"])
```

With acorn: `acorn generate . --prompt "The "`. Neither runs code from this folder. The context is
{facts.config.block_size:,} tokens, prompt and new text together."""


def _architecture(facts: CardFacts) -> dict[str, Any]:
    config = facts.config
    modern = config.architecture == "modern"
    layout = ("Qwen3" if config.qk_norm else "Llama") if modern else "GPT-2"
    activation = {"original": "ReLU", "gpt2": "GELU (tanh)", "modern": "SwiGLU"}[config.architecture]
    return {
        "architecture": f"{config.architecture} ({layout} layout)",
        "parameters": facts.parameters,
        "transformer blocks": config.n_layer,
        "embedding size": config.n_embd,
        "query heads": config.heads,
        "key and value heads": config.kv_heads,
        "head size": config.head_dim,
        "MLP": f"hidden size {config.mlp_hidden:,}, {activation}",
        "norm": f"{'RMSNorm' if modern else 'LayerNorm'}, before attention and MLP, epsilon {config.epsilon:g}",
        "positions": f"rotary, base {config.rope_theta:,.0f}" if modern else "learned table",
        "context": f"{config.block_size:,} tokens",
        "vocabulary": f"{config.vocab_size:,} entries ({facts.tokenizer_kind})",
        "output head": "tied to the embedding" if config.is_tied else "not tied to the embedding",
        "dropout in training": config.dropout,
    }


def _data(facts: CardFacts) -> dict[str, Any]:
    return {
        "source": _sources(facts),
        "license": _license(facts),
        "cleaning": facts.clean,
        **{in_a_sentence(label): getattr(facts, key) for key, label in TEXT_COUNTS.items()},
        "epochs": _figure(facts.tokens_seen / facts.tokens) if facts.tokens else 0,
    }


def _training(facts: CardFacts) -> dict[str, Any]:
    named = f"`{facts.name}` (`name` in the config)"
    return {"config": named, "steps": facts.steps, "tokens seen": facts.tokens_seen, **facts.recipe}


def _evaluation(evaluation: Mapping[str, Any], facts: CardFacts) -> str:
    """One split's figures, with what they were measured on and the notes on them."""
    figures = {
        _measured(key, facts): _figure(evaluation[key]) for key in HUB_METRICS if evaluation.get(key) is not None
    }
    names = {**{key: CONDITIONS[key] for key in ("context", "stride", "precision")}, **TEXT_COUNTS}
    others = {name: evaluation[key] for key, name in names.items() if key in evaluation}
    said = {name: evaluation.get(f"{key}_note") for key, name in SCORES.items()}
    notes = [f"{name}: {str(note).removesuffix('.')}." for name, note in said.items() if note]
    split = SPLITS.get(evaluation["split"], evaluation["split"])
    return "\n\n".join([_table(f"{split} split", "", {**figures, **others}), *notes])


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


def _sources(facts: CardFacts) -> str:
    return ", ".join(f"`{public_name(source)}`" for source in facts.sources) or "prepared token shards"


def _license(facts: CardFacts) -> str:
    return facts.license or _known_license(facts.sources) or NOT_STATED


def text_description(sources: Sequence[str]) -> str:
    """The training text for a cell of a card: its sources, with their license if it is known."""
    if not sources:
        return "prepared token shards"
    return f"{', '.join(f'`{public_name(source)}`' for source in sources)} ({_known_license(sources) or UNLICENSED})"


def _known_license(sources: Sequence[str]) -> str:
    """The licenses of the sources if all of them are known; otherwise empty."""
    known = [LICENSES.get(HUB_NAMES.get(source) or hub_repository(source)) for source in sources]
    return "; ".join(dict.fromkeys(license for license in known if license)) if all(known) else ""


def _hub_names(sources: Sequence[str]) -> list[str]:
    names = (HUB_NAMES.get(source) or hub_repository(source) for source in sources)
    return list(dict.fromkeys(name for name in names if name))


def _table(left: str, right: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {_cell(value)} |" for key, value in rows.items())])


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _figure(value: float) -> str:
    """A measured value in Markdown: five significant digits, or a whole number if that has more digits."""
    return f"{value:,.0f}" if 10_000 <= abs(value) < EXPONENT_FROM else f"{value:.5g}"


def _number(value: float) -> str:
    """The same in YAML, where `1e+20` is a string and `1.0e+20` is a number."""
    digits, e, power = _figure(value).replace(",", "").partition("e")
    return digits + (".0" if e and "." not in digits else "") + e + power


def _quoted(text: str) -> str:
    """A YAML string. Characters that are allowed in JSON strings but not in YAML are escaped."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
