"""The card of a model that answers."""

from __future__ import annotations

import huggingface_hub
import pytest

from acorn.checkpoint.answer_card import AnswerFacts, write_answer_card
from acorn.config import ModelConfig
from acorn.origin import Base


@pytest.mark.parametrize("task", ["chat", "complete"])
def test_the_card_says_what_was_done_and_the_hub_reads_it(tmp_path, task: str) -> None:
    config = ModelConfig(vocab_size=300, n_layer=1, n_embd=32)
    bases = [Base("owner/base", "hub")]
    figures = [{"split": "valid", "exact_match": 0.5, "answer_loss": 1.25, "examples": 4}]
    facts = AnswerFacts("dates", task, config, "bpe", ["dates.jsonl"], 40, 9, {"seed": 0}, bases, figures)
    card = write_answer_card(facts)
    (tmp_path / "README.md").write_text(card)
    metadata = huggingface_hub.metadata_load(tmp_path / "README.md")
    assert (metadata["pipeline_tag"], metadata["base_model"]) == ("text-generation", "owner/base")
    assert "| Exact match | 0.5 |" in card
    assert ('"role": "user"' in card) == (task == "chat")
