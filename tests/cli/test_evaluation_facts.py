"""The figures of an evaluation, printed in the terminal."""

from __future__ import annotations

from acorn.cli.evaluation_facts import evaluation_facts

FIGURES = {
    "split": "valid",
    "loss_per_token": 5.58094,
    "bits_per_byte": 1.82793,
    "word_perplexity": None,
    "tokens": 63516,
    "unknown_rate": 0.0,
    "round_trip_rate": 0.9997,
    "word_perplexity_note": "not given",
}


def test_facts_have_the_names_of_the_report_and_rates_are_percentages() -> None:
    assert evaluation_facts(FIGURES) == {
        "split": "validation",
        "bits per byte": "1.8279",
        "loss (nats per token)": "5.5809",
        "tokens (separators included)": "63,516",
        "round-trip rate": "99.97 %",
        "out-of-vocabulary rate": "0 %",
        "note on word perplexity": "not given",
    }


def test_figures_of_altered_text_have_a_note_on_their_lines() -> None:
    facts = evaluation_facts(FIGURES, "cleaned text")
    beside = "  (cleaned text, not comparable with published figures)"
    assert facts["bits per byte"] == "1.8279" + beside
    assert [name for name, value in facts.items() if beside in value] == ["bits per byte", "loss (nats per token)"]
