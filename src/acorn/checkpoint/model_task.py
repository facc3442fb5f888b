"""What a model is for, if not only for continuing text; its weights alone do not show it."""

from __future__ import annotations

from dataclasses import dataclass

from acorn.checkpoint.label_config import TASKS
from acorn.model.label_head import HeadSpec


@dataclass(frozen=True)
class ModelTask:
    """What a model folder, or the config of a finetuned model's checkpoint, says in addition to network, weights and
    tokenizer.

    Attributes:
        head: the label head; None: a language model.
        labels: names of the head's outputs.
        end_ids: tokens that end a text, in addition to the separator; empty for a model with a label head.
        trained_ids: reserved tokens that were trained, so that they may be sampled, beside those that end a text.
        chat_template: Jinja template that turns a conversation into text; empty: none.
    """

    head: HeadSpec | None = None
    labels: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()
    trained_ids: tuple[int, ...] = ()
    chat_template: str = ""

    @property
    def name(self) -> str:
        """`classify`, `regress` or `tag`; empty: a language model."""
        return "" if self.head is None else TASKS[self.head.kind]


LANGUAGE_MODEL = ModelTask()
