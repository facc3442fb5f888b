from __future__ import annotations

from acorn.report.examples_section import LONGEST_TEXT, MOST_ROWS, answers_table, mistakes_table

MISTAKE = {"example": 3, "text": "<i>win</i> \x1b[2J", "true": "ham", "predicted": "", "probability": 0.987}


def test_mistakes_are_escaped_and_name_their_probability() -> None:
    section = mistakes_table([MISTAKE])
    assert "&lt;i&gt;win&lt;/i&gt; \\x1b[2J" in section
    assert '<td class="number">98.7 %</td>' in section
    assert "(empty)" in section


def test_long_texts_are_cut_and_the_table_says_so() -> None:
    section = mistakes_table([{**MISTAKE, "text": "x" * 1000}])
    assert "x" * LONGEST_TEXT + "…" in section
    assert "x" * (LONGEST_TEXT + 1) not in section
    assert "the first 400 of 1,000 characters, so that the table stays short" in section
    whole = mistakes_table([{**MISTAKE, "text": "x" * LONGEST_TEXT}])
    assert "characters" not in whole


def test_no_more_than_twenty_rows() -> None:
    assert mistakes_table([MISTAKE] * 30).count("<tr>") == 1 + MOST_ROWS
    assert "No prediction was wrong." in mistakes_table([])


def test_several_labels_are_listed_and_the_wrong_one_is_named() -> None:
    section = mistakes_table([{**MISTAKE, "true": [], "predicted": ["a", "b"], "label": "b"}])
    assert '(none)</td><td><span dir="auto">a</span><br><span dir="auto">b</span></td>' in section
    assert "of &quot;b&quot;" in section


def test_answers_that_do_not_match_come_first() -> None:
    def answer(text: str, exact: bool, normalized: bool, ended: bool = True) -> dict[str, object]:
        return {
            "prompt": "q", "expected": "<e>", "text": text, "ended": ended, "exact": exact, "normalized": normalized
        }  # fmt: skip

    section = answers_table(
        [answer("right", True, True), answer("close", False, True), answer("wrong", False, False, ended=False)]
    )
    assert section.index("wrong") < section.index("close") < section.index("right")
    assert "1 of 3 generated answers did not match; they come first. 3 rows in all." in section
    assert 'no<span class="note">did not end by itself</span>' in section
    assert "&lt;e&gt;" in section
    assert "No answers were generated." in answers_table([])


def test_records_without_fields_are_no_fault() -> None:
    assert "—" in mistakes_table([{}])
    assert "(empty)" in answers_table([{}])
