from __future__ import annotations

from acorn.text.reading import Losses, Reading, names_of


def test_a_long_list_of_names_is_cut_and_counted() -> None:
    assert names_of([]) == ""
    assert names_of("abcdefghij") == "a, b, c, d, e, f, g, h, i, j"
    assert names_of(map(str, range(1_210))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1,200 more"


def test_losses_are_summarized_by_source() -> None:
    side, rows = Reading("skip"), Reading("skip")
    losses = Losses(side, rows)
    side.counts.documents += 3
    losses.source_ends("good.txt")
    assert losses.summary() == ""
    side.counts.dropped_bad += 1
    losses.source_ends("latin.txt")
    side.counts.documents += 1
    rows.counts.dropped_bad += 2
    side.counts.replaced += 1
    losses.source_ends("mixed.jsonl")
    rows.counts.dropped_bad += 4
    losses.source_ends("bad.jsonl")
    assert losses.summary() == (
        "7 bad rows were dropped: all of latin.txt, 2 of mixed.jsonl, all of bad.jsonl; "
        "1 document has U+FFFD for bytes that cannot be decoded: 1 of mixed.jsonl"
    )


def test_columns_are_remembered_with_their_first_source_up_to_a_limit() -> None:
    reading = Reading("strict")
    reading.sees(["text", "label"], "text", "a.jsonl")
    reading.sees(["label", "id"], "text", "b.jsonl")
    assert reading.ignored == {"label": "a.jsonl", "id": "b.jsonl"}
    reading.sees(map(str, range(10_000)), "text", "c.jsonl")
    assert len(reading.ignored) == 100
