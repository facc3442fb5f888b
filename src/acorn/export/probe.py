"""The questions that an exported model is checked with, and the answers of the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from acorn.checkpoint.label_config import reader_of
from acorn.export.probe_texts import adversarial_strings, held_out_lines
from acorn.export.runtimes import Question
from acorn.model.gpt import GPT
from acorn.model.kv_cache import KVCache
from acorn.model.label_head import HeadSpec
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer

WINDOWS, LONGEST_WINDOW = 4, 256
"""Number of windows whose logits are compared, and their largest length in tokens; more would make large files."""

LABEL_WINDOWS = 64
"""Number of texts whose labels are compared: of all lengths, so that batches are padded."""

GREEDY_TOKENS, PROMPT_TOKENS = 200, 16
"""Number of tokens chosen greedily, over as many continuations as the context requires; length of each prompt."""


@dataclass(frozen=True)
class Probe:
    """A question with the answers of acorn in fp32.

    Attributes:
        n_lines: number of held-out lines; they are the first of the question's texts.
        origins: source of these lines -> their number.
        tokens: token ids of each text.
        logits: logits of each window (T, V).
        gaps: for each token of each continuation, the difference of the two highest logits.
        head: the label head, whose outputs are then what is called logits here: of a window's last token (1, L), of a
            tagger (T, L).
    """

    question: Question
    n_lines: int
    origins: dict[str, int]
    tokens: list[list[int]]
    logits: list[Tensor]
    gaps: list[list[float]]
    head: HeadSpec | None = None


def probe(model: GPT, tokenizer: Tokenizer, folder: Path) -> Probe:
    """The probe for a model in fp32 that was loaded from `folder`."""
    lines, origins = held_out_lines(folder, tokenizer)
    texts = [*lines, *adversarial_strings(tokenizer)]
    stream = [id_ for ids in tokenizer.encode_documents(lines) for id_ in (tokenizer.separator_id, *ids)]
    most = model.config.block_size
    length = min(most, LONGEST_WINDOW)
    windows = [stream[place : place + length] for place in range(0, WINDOWS * length, length)]
    continuations: list[tuple[list[int], list[int]]] = []
    gaps: list[list[float]] = []
    missing = GREEDY_TOKENS
    n_prompt = max(1, min(PROMPT_TOKENS, most // 2))
    n_new = max(1, most - n_prompt)  # the last chosen token is not fed back
    while missing:
        begin = n_prompt * len(continuations)
        prompt = stream[begin : begin + n_prompt]
        ids, gap = _greedy(model, prompt, min(missing, n_new))
        continuations.append((prompt, ids))
        gaps.append(gap)
        missing -= len(ids)
    with torch.inference_mode():
        logits = [model(torch.tensor([window]))[0] for window in windows if window]
    question = Question(texts, [window for window in windows if window], continuations)
    return Probe(question, len(lines), origins, [tokenizer.encode_prompt(text) for text in texts], logits, gaps)


def probe_labels(model: GPT, label_text: LabelText, folder: Path) -> Probe:
    """The probe for a model with a label head, in fp32, that was loaded from `folder`."""
    head, tokenizer = model.head_spec, label_text.tokenizer
    assert head is not None
    lines, origins = held_out_lines(folder, tokenizer)
    hard = adversarial_strings(tokenizer)
    # Where nothing is put before a text, an empty one has no token in other programs.
    if not tokenizer.prompt_start:
        hard = [text for text in hard if tokenizer.encode_part(text)[0]]
    texts = [*lines, *hard]
    tokens = label_text.encode(texts)
    most = min(model.config.block_size, LONGEST_WINDOW)
    chosen = tokens[:: max(1, len(tokens) // LABEL_WINDOWS)][:LABEL_WINDOWS]
    windows = [ids[:most] for ids in chosen]
    reader = reader_of(head)
    with torch.inference_mode():
        outputs = [model(torch.tensor([window]))[0] for window in windows]
    logits = [found if reader == "token" else found[-1:] for found in outputs]
    return Probe(Question(texts, windows, [], reader), len(lines), origins, tokens, logits, [], head)


@torch.inference_mode()
def _greedy(model: GPT, prompt: Sequence[int], n: int) -> tuple[list[int], list[float]]:
    """`n` greedy tokens after the prompt, and for each the difference of the two highest logits."""
    cache = KVCache(model.config, 1, len(prompt) + n)
    ids: list[int] = []
    gaps: list[float] = []
    read = list(prompt)
    while len(ids) < n:
        best = model(torch.tensor([read]), cache=cache)[0, -1].topk(2)
        ids.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        read = ids[-1:]
    return ids, gaps
