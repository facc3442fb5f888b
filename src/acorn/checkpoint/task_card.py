"""The model card of a model that gives labels or values: README.md of its folder, with the metadata for the Hub.

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
    number,
    provenance,
    quoted,
    table,
    text_description,
)
from acorn.checkpoint.layouts import layout_of
from acorn.config import ModelConfig
from acorn.counting import counted
from acorn.figure_names import BASELINES, SPLITS, TASK_FIGURES
from acorn.model.label_head import HeadSpec, LabelKind
from acorn.model.sizing import size_of
from acorn.origin import Base, public_name

PIPELINES: dict[LabelKind, str] = {
    "class": "text-classification",
    "labels": "text-classification",
    "value": "text-classification",
    "tag": "token-classification",
}
"""Kind of a head -> the pipeline of transformers, which is also the Hub's name of the task."""

HUB_METRICS = {
    "accuracy": "accuracy",
    "micro_f1": "f1",
    "macro_f1": "f1",
    "subset_accuracy": "accuracy",
    "mean_absolute_error": "mae",
    "rmse": "rmse",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "token_accuracy": "accuracy",
    "entity_f1": "f1",
}
"""Figure of an evaluation -> its type in the Hub's metadata."""

GIVES: dict[LabelKind, str] = {
    "class": "gives each text one of {labels}",
    "labels": "gives each text any of {labels}",
    "value": "gives each text a value",
    "tag": "gives each word of a sentence one of {labels}",
}

MOST_LISTED = 200
"""Labels up to which the card lists them all; `config.json` has them in any case."""


@dataclass(frozen=True)
class TaskFacts:
    """The content of the card of a model with a label head.

    Attributes:
        name: name of the run.
        config: the network.
        head: the label head.
        labels: names of its outputs.
        tokenizer_kind: "bpe" or "wordpiece".
        sources: sources of the labeled examples.
        examples: number of training examples.
        steps: number of optimizer steps.
        recipe: other facts about the training, name -> value (optimizer, peak learning rate, epochs, seed...).
        evaluations: one mapping per split, with the keys that `acorn evaluate --json` prints, and `split`.
        bases: the models whose weights training started from, nearest first; none: random weights.
        license: license of the examples; empty: looked up for known sources, otherwise "not stated".
        limits: sentences on the limits of these weights, in addition to those of every model.
    """

    name: str
    config: ModelConfig
    head: HeadSpec
    labels: Sequence[str]
    tokenizer_kind: str
    sources: Sequence[str]
    examples: int
    steps: int
    recipe: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]] = ()
    bases: Sequence[Base] = ()
    license: str = ""
    limits: Sequence[str] = ()


def write_task_card(facts: TaskFacts) -> str:
    """The text of README.md."""
    parameters = size_of(facts.config, facts.head).parameters
    parts = [
        _metadata(facts),
        f"# {facts.name}",
        _summary(facts, parameters),
        "## Use",
        _use(facts),
        *_labels(facts),
        "## Architecture",
        table("", "", architecture(facts.config, parameters, facts.tokenizer_kind, facts.head)),
        *base_section(facts.bases),
        "## Training data",
        table(
            "",
            "",
            {
                "source": named_sources(facts.sources),
                "license": facts.license or license_of(facts.sources),
                "examples": facts.examples,
            },
        ),
        "## Training",
        table("", "", {"config": f"`{facts.name}` (`name` in the config)", "steps": facts.steps, **facts.recipe}),
        "## Evaluation",
        *[_evaluation(evaluation) for evaluation in facts.evaluations],
        *([] if facts.evaluations else ["No split was evaluated."]),
        "## Limits",
        _limits(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: TaskFacts) -> str:
    """YAML between two lines of dashes."""
    task = PIPELINES[facts.head.kind]
    lines = ["---", "library_name: transformers", f"pipeline_tag: {task}", "tags:"]
    lines += [f"- {tag}" for tag in ("acorn", layout_of(facts.config).model_type)]
    published = next((base for base in facts.bases if base.kind == "hub"), None)
    if published is not None:  # the Hub accepts only its own names
        lines += [f"base_model: {quoted(published.name)}", "base_model_relation: finetune"]
    lines += provenance(text_description(facts.sources), facts.bases)
    datasets = hub_names(facts.sources)
    if datasets:
        lines += ["datasets:", *(f"- {quoted(name)}" for name in datasets)]
    results = []
    for evaluation in facts.evaluations:
        metrics = []
        for key, kind in HUB_METRICS.items():
            if evaluation.get(key) is not None:
                value = number(evaluation[key])
                metrics += [f"    - type: {kind}", f"      name: {quoted(TASK_FIGURES[key])}", f"      value: {value}"]
        if metrics:
            results += [
                "  - task:",
                f"      type: {task}",
                "    dataset:",
                f"      name: {quoted(', '.join(map(public_name, facts.sources)) or 'labeled examples')}",
                f"      type: {quoted(datasets[0] if datasets else 'text')}",
                f"      split: {quoted(evaluation['split'])}",
                "    metrics:",
                *metrics,
            ]
    if results:
        lines += ["model-index:", f"- name: {quoted(facts.name)}", "  results:", *results]
    return "\n".join([*lines, "---"])


def _summary(facts: TaskFacts, parameters: int) -> str:
    labels = counted(len(facts.labels), "label")
    gives = GIVES[facts.head.kind].format(labels=labels)
    start = f"from {linked(facts.bases[0])}" if facts.bases else "from random weights"
    return (
        f"A model of {parameters:,} parameters that {gives}, finetuned with acorn {start} on "
        f"{named_sources(facts.sources)}. It does not generate text."
    )


def _use(facts: TaskFacts) -> str:
    if facts.head.kind == "tag":
        return _use_of_tagger(facts)
    task = PIPELINES[facts.head.kind]
    options = ", truncation=True, top_k=None" if facts.head.kind == "labels" else ", truncation=True"
    score = {
        "class": "`score` is the probability of the label.",
        "labels": "`score` is the probability of each label by itself.",
        "value": "`score` is the value.",
    }[facts.head.kind]
    return f"""With transformers, in this folder or under its name on the Hub:

```python
from transformers import pipeline

model = pipeline("{task}", model=".")
print(model("A text."{options}))
```

{score} With acorn: `acorn predict . --text "A text."`. Neither runs code from this folder. The names of special
tokens are ordinary text in what the model reads, of which the first {facts.config.block_size:,} tokens count."""


def _use_of_tagger(facts: TaskFacts) -> str:
    """The pipeline of transformers has no way to read a word at its last token, so the example does it."""
    return f"""With transformers, in this folder or under its name on the Hub:

```python
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForTokenClassification.from_pretrained(".")
words = ["Anna", "lives", "in", "Paris", "."]
encoded = tokenizer(" ".join(words), return_tensors="pt", return_offsets_mapping=True)
parts = encoded.pop("offset_mapping")[0].tolist()
best = model(**encoded).logits[0].argmax(-1).tolist()
begin = 0
for word in words:
    end = begin + len(word)
    last = max(place for place, (first, after) in enumerate(parts) if first < end and after > begin)
    print(word, model.config.id2label[best[last]])
    begin = end + 1
```

The words are joined by single spaces. The tag of a word is that at its last token, where the model has seen the whole
word; its outputs at other tokens mean nothing. So `pipeline("{PIPELINES["tag"]}")`, which reads those too, gives other
tags, and so does `is_split_into_words`, which joins words without spaces. With acorn:
`acorn predict . --text "Anna lives in Paris ."`, which splits a text into words at white space. The names of special
tokens are ordinary text. At most {facts.config.block_size:,} tokens fit. No code from this folder is run."""


def _labels(facts: TaskFacts) -> list[str]:
    """The section with the names of the labels; empty for a regressor."""
    if facts.head.kind == "value":
        return []
    shown = {str(place): label for place, label in enumerate(facts.labels[:MOST_LISTED])}
    left = len(facts.labels) - len(shown)
    rest = [f"{left:,} more are in `config.json`."] if left else []
    return ["## Labels", table("output", "label", shown), *rest]


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    """One split's figures, with those of the baselines beside them."""
    known = [name for name in TASK_FIGURES if evaluation.get(name) is not None]
    found = evaluation.get("baselines")
    its = found if isinstance(found, Mapping) else {}
    baselines = {name: its[name] for name in BASELINES if isinstance(its.get(name), Mapping)}
    split = SPLITS.get(evaluation["split"], evaluation["split"])
    head = [f"{split} split", "this model", *(BASELINES[name] for name in baselines)]
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in known:
        values = [evaluation[name], *(baseline.get(name) for baseline in baselines.values())]
        cells = ["" if value is None else figure(value) for value in values]
        rows.append(f"| {' | '.join([TASK_FIGURES[name], *cells])} |")
    count = evaluation.get("examples")
    return "\n".join(rows) + (f"\n\nOf {counted(count, 'example')}." if isinstance(count, int) else "")


def _limits(facts: TaskFacts) -> str:
    what = {"value": "text a value", "tag": "word a label"}.get(facts.head.kind, "text a label")
    left = ["It reads from left to right: what follows a word does not change the label of that word."]
    limits = [
        *facts.limits,
        f"It gives every {what}, also one that is like none of its training examples.",
        *(left if facts.head.kind == "tag" else []),
        "It repeats the errors in its examples. It was not checked for bias; do not decide about people by it alone.",
    ]
    return "\n".join(f"- {cell(limit)}" for limit in limits)
