"""What all model cards have in common: metadata, provenance, the network, and figures in Markdown and YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from acorn.config import ModelConfig
from acorn.counting import counted
from acorn.model.label_head import HeadSpec
from acorn.origin import STARTS_FROM, Base, hub_repository, public_name

HUB_NAMES = {"bundled:wikitext-2": "Salesforce/wikitext"}
"""Source -> the Hub dataset that it is a copy of."""

WIKITEXT_LICENSE = "CC BY-SA 3.0 (text from Wikipedia; Merity et al. 2016)"
LICENSES = {"Salesforce/wikitext": WIKITEXT_LICENSE}
"""Hub dataset -> its license."""

NOT_STATED, NOT_KNOWN = "not stated; see the source", "unknown; see its own model card"
UNLICENSED = "license not stated"

PROVENANCE, TRAINED_ON = "acorn", "trained_on"
"""Keys of a card's metadata: PROVENANCE contains TRAINED_ON and STARTS_FROM, so that a run that starts from the model's
folder can read what the card says in sentences."""

EXPONENT_FROM = 1e15
"""Larger values are written with an exponent."""


def base_section(bases: Sequence[Base]) -> list[str]:
    """The section on the models that this one was trained from; empty for a model from scratch."""
    if not bases:
        return []
    head = "| model | license | trained on |\n|---|---|---|"
    rows = [
        f"| {cell(linked(base))} | {cell(base.license or NOT_STATED)} | {cell(base.text or NOT_KNOWN)} |"
        for base in bases
    ]
    chain = " Each of the models below was trained from the next one." if len(rows) > 1 else ""
    return [
        "## Base model",
        f"Training started from the weights and tokenizer of {linked(bases[0])}.{chain} Their licenses, and "
        "those of their training text, apply in addition to the license of the text below.",
        "\n".join([head, *rows]),
    ]


def linked(base: Base) -> str:
    """A base model in Markdown, with a link if it is on the Hub."""
    version = f" ({base.version})" if base.version else ""
    if base.kind == "hub":
        return f"[`{base.name}`](https://huggingface.co/{base.name}){version}"
    return f"the {'run' if base.kind == 'run' else 'model folder'} `{base.name}`{version}"


def provenance(text: str, bases: Sequence[Base]) -> list[str]:
    """Lines of metadata: the training text with its license, and the models that this one was trained from."""
    if not text and not bases:
        return []
    lines = [f"{PROVENANCE}:"]
    lines += [f"  {TRAINED_ON}: {quoted(text)}"] if text else []
    lines += [f"  {STARTS_FROM}:"] if bases else []
    for base in bases:
        fields = [f"{name}: {quoted(value)}" for name, value in asdict(base).items()]
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
    lines = "".join(f"{line}{newline}" for line in provenance(text, bases))
    found = _FRONT_MATTER.match(card)
    if found is None:
        return f"---{newline}{lines}---{newline}{newline}{card}" if lines else card
    rest = _PROVENANCE_BLOCK.sub("", found["rest"])
    return card[: found.start("rest")] + lines + rest + card[found.end("rest") :]


_FRONT_MATTER = re.compile(r"\s*---[\r\n]+(?P<rest>(?s:.*?))^---[ \t]*\r?$", re.MULTILINE)
"""Metadata at the top of a card, between two lines of dashes."""

_PROVENANCE_BLOCK = re.compile(rf"^{PROVENANCE}:.*\n(?:[ \t-].*\n)*", re.MULTILINE)


def architecture(
    config: ModelConfig, parameters: int, tokenizer_kind: str, head: HeadSpec | None = None
) -> dict[str, Any]:
    """The rows of the table of the network.

    Args:
        head: the label head; None: a language model.
    """
    modern = config.architecture == "modern"
    layout = ("Qwen3" if config.qk_norm else "Llama") if modern else "GPT-2"
    activation = {"original": "ReLU", "gpt2": "GELU (tanh)", "modern": "SwiGLU"}[config.architecture]
    output = "tied to the embedding" if config.is_tied else "not tied to the embedding"
    if head is not None:
        output = f"{counted(head.outputs, 'output')} {'for each token' if head.kind == 'tag' else 'at the last token'}"
    return {
        "architecture": f"{config.architecture} ({layout} layout)",
        "parameters": parameters,
        "transformer blocks": config.n_layer,
        "embedding size": config.n_embd,
        "query heads": config.heads,
        "key and value heads": config.kv_heads,
        "head size": config.head_dim,
        "MLP": f"hidden size {config.mlp_hidden:,}, {activation}",
        "norm": f"{'RMSNorm' if modern else 'LayerNorm'}, before attention and MLP, epsilon {config.epsilon:g}",
        "positions": f"rotary, base {config.rope_theta:,.0f}" if modern else "learned table",
        "context": f"{config.block_size:,} tokens",
        "vocabulary": f"{config.vocab_size:,} entries ({tokenizer_kind})",
        "output head": output,
        "dropout in training": config.dropout,
    }


def named_sources(sources: Sequence[str]) -> str:
    """The sources of the training text, in Markdown."""
    return ", ".join(f"`{public_name(source)}`" for source in sources) or "prepared token shards"


def license_of(sources: Sequence[str]) -> str:
    """The license of the sources, as far as it is known."""
    return _known_license(sources) or NOT_STATED


def text_description(sources: Sequence[str]) -> str:
    """The training text for a cell of a card: its sources, with their license if it is known."""
    if not sources:
        return "prepared token shards"
    return f"{', '.join(f'`{public_name(source)}`' for source in sources)} ({_known_license(sources) or UNLICENSED})"


def _known_license(sources: Sequence[str]) -> str:
    """The licenses of the sources if all of them are known; otherwise empty."""
    known = [LICENSES.get(HUB_NAMES.get(source) or hub_repository(source)) for source in sources]
    return "; ".join(dict.fromkeys(license for license in known if license)) if all(known) else ""


def hub_names(sources: Sequence[str]) -> list[str]:
    names = (HUB_NAMES.get(source) or hub_repository(source) for source in sources)
    return list(dict.fromkeys(name for name in names if name))


def table(left: str, right: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {cell(value)} |" for key, value in rows.items())])


def cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def figure(value: float) -> str:
    """A measured value in Markdown: five significant digits, or a whole number if that has more digits."""
    return f"{value:,.0f}" if 10_000 <= abs(value) < EXPONENT_FROM else f"{value:.5g}"


def number(value: float) -> str:
    """The same in YAML, where `1e+20` is a string and `1.0e+20` is a number."""
    digits, e, power = figure(value).replace(",", "").partition("e")
    return digits + (".0" if e and "." not in digits else "") + e + power


def quoted(text: str) -> str:
    """A YAML string. Characters that are allowed in JSON strings but not in YAML are escaped."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
