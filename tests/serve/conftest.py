"""Servers in a thread of the test's process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from fake_scheduler import FakeScheduler
from small_models import LINES, random_model_of

from acorn.checkpoint.load import LoadedModel
from acorn.runtime.choose import runtime_for_inference
from acorn.serve.limits import LIMITS, Limits
from acorn.serve.server import Server, Settings
from acorn.tokenizer.template_format import chat_format_of
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train_tokenizer

BLOCK_SIZE = 64


def tiny_language_model(*, chat: bool = True) -> LoadedModel:
    """A model with random weights, one block and a byte-level BPE."""
    tokenizer = train_tokenizer(LINES, kind="bpe", vocab_size=340)
    model = random_model_of("modern", tokenizer.vocab_size, BLOCK_SIZE, n_layer=1)
    template = chat_format_of(tokenizer).template if chat else ""
    return LoadedModel(model, tokenizer, model.config, Path("/nowhere/tiny"), 7, chat_template=template)
