"""The model interface of the lm-evaluation-harness. Imported only by `harness.py`, after a check for the package.

Truncation and the token before a text follow the `hf` model of the harness, so that both give equal scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch.nn.utils.rnn import pad_sequence

from acorn.errors import InputError, UsageError
from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer

Write = Callable[[Sequence[list[int]], int, tuple[str, ...], dict[str, Any]], list[list[int]]]
"""(ids of prompts, largest number of new tokens, stop strings, sampling settings) -> new ids of each prompt."""

BATCH_SIZE = 8
DEFAULT_NEW_TOKENS = 256
"""Largest number of new tokens where a task does not define it."""

SAMPLING = ("temperature", "top_k", "top_p")


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A GPT and its tokenizer, with the interface that the harness needs."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, runtime: Runtime, write: Write) -> None:
        super().__init__()
        self.model, self.text, self.runtime, self.write = model, tokenizer, runtime, write
        self.max_length = model.config.block_size
        self.start = len(tokenizer.encode_prompt(""))  # number of tokens that every prompt begins with

    @property
    def eot_token_id(self) -> int:
        return self.text.separator_id

    @property
    def prefix_token_id(self) -> int:
        """The token used for an empty context: beginning of text, or the separator."""
        return self.text.document_start[-1]

    @property
    def tokenizer_name(self) -> str:
        return self.text.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a prompt, without the beginning-of-text token if the text already has it or it is not wanted."""
        ids = self.text.encode_prompt(string)
        begun = has_bos_prefix(string, self.text.piece(self.prefix_token_id))
        return ids[self.start :] if add_special_tokens is False or (add_special_tokens is None and begun) else ids

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood (nats) of whole texts, in windows that score each token once."""
        windows = [
            (number, make_disjoint_window(window))
            for number, request in enumerate(requests)
            for window in get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
            )
        ]
        scores = self._loglikelihood_tokens([(("", ""), *window) for _, window in windows])
        totals = [0.0] * len(requests)
        for (number, _), (score, _) in zip(windows, scores, strict=True):
            totals[number] += score
        return totals

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood (nats) of each continuation given its context, and whether it is the greedy one."""
        for (_context, continuation), _ids, ids in requests:
            if not 0 < len(ids) <= self.max_length:
                raise InputError(
                    f"A continuation has {len(ids):,} tokens, not 1 to {self.max_length:,}: {continuation[:60]!r}",
                    where="the task",
                    fix="choose a task whose answers fit the model's context",
                )
        order = sorted(range(len(requests)), key=lambda n: -len(requests[n][1] + requests[n][2]))
        scores: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for first in range(0, len(order), BATCH_SIZE):
            numbers = order[first : first + BATCH_SIZE]
            # The last token is only a target; rows that are too long are cut on the left.
            rows = [(requests[n][1] + requests[n][2])[-(self.max_length + 1) :] for n in numbers]
            for n, score in zip(numbers, self._scores(rows, [len(requests[n][2]) for n in numbers]), strict=True):
                scores[n] = score
        return scores

    @torch.inference_mode()
    def _scores(self, rows: list[list[int]], lengths: list[int]) -> list[tuple[float, bool]]:
        """Scores of the last `lengths` tokens of each row. Rows are padded on the right, which no scored token sees."""
        device = self.model.device
        ids = pad_sequence([torch.tensor(row[:-1]) for row in rows], batch_first=True)  # (B, T)
        scores = []
        with self.runtime.autocast():
            hidden = self.model.hidden(ids.to(device))  # (B, T, C)
            for row, length, states in zip(rows, lengths, hidden, strict=True):
                logits = self.model.logits(states[len(row) - 1 - length : len(row) - 1]).float()  # (length, V)
                targets = torch.tensor(row[-length:], device=device)
                chosen = logits.log_softmax(-1).gather(1, targets[:, None])
                scores.append((float(chosen.sum()), bool((logits.argmax(-1) == targets).all())))
        return scores

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations, each up to the first stop string of its task or the end of the text."""
        texts: list[str] = []
        for settings, group in groupby(requests, key=lambda request: request.args[1]):
            wanted = normalize_gen_kwargs(settings, DEFAULT_NEW_TOKENS)
            stop, new_tokens = wanted.pop("until"), wanted.pop("max_gen_toks")
            sampling = {name: wanted.pop(name) for name in SAMPLING if name in wanted}
            if not wanted.pop("do_sample", True):
                sampling = {"temperature": 0.0}
            if unknown := {name for name, value in wanted.items() if value is not None}:
                raise UsageError(
                    f"The task requires {', '.join(sorted(unknown))}, which acorn does not have.",
                    where="generation_kwargs of the task",
                    fix=f"choose a task that uses no sampling settings other than {', '.join(SAMPLING)}",
                )
            kept = self.max_length - new_tokens
            if kept < 1:
                raise UsageError(
                    f"The task requires {new_tokens:,} new tokens, but the model's context is {self.max_length:,}.",
                    where="max_gen_toks of the task",
                    fix="choose a task with shorter answers, or a model with a longer context",
                )
            # The separator as a string ends a continuation too.
            ends = tuple(end for end in [*stop, self.text.separator] if end)
            prompts = [self.tok_encode(request.args[0])[-kept:] or [self.prefix_token_id] for request in group]
            for new in self.write(prompts, new_tokens, ends, sampling):
                text = self.text.decode(new)
                for end in ends:
                    text = text.split(end)[0]
                texts.append(text)
        return texts
