from __future__ import annotations

import re
from html import unescape
from typing import Any

from acorn.report.data_section import IN_THE_TEXT, UNSPELLED, data_section

ZEROS = {"dropped_bad": 0, "dropped_duplicates": 0, "with_bom": 0, "with_nul": 0}


def manifest(**valid: Any) -> dict[str, Any]:
    count = {"documents": 2, "tokens": 1000, "bytes": 4000, "words": 700, "unknown_tokens": 0, "text_sha256": "f" * 64}
    return {
        "splits": {"train": {**count, "unknown_tokens": 25}, "valid": {**count, **valid}},
        "text": {"counts": {"train": {**ZEROS, "dropped_duplicates": 7}, "valid": ZEROS}},
        "tokenizer": {"kind": "wordpiece", "separator_id": 1},
        "tokenizer_report": {"valid": {"bytes_per_token": 4.4, "unknown_rate": 0.0, "round_trip_rate": 0.5}},
    }


def rows(shards: dict[str, Any]) -> dict[str, list[str]]:
    cells = [
        [unescape(cell) for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", row)]
        for row in re.findall("<tr>(.*?)</tr>", data_section(shards))
    ]
    names = [row[0] for row in cells]
    assert len(names) == len(set(names))
    return {row[0]: row[1:] for row in cells}


def test_bytes_per_token_are_shown_once() -> None:
    assert rows(manifest())["Bytes per token"] == ["4.000", "4.000"]
    assert "4.4" not in data_section(manifest())


def test_unknown_tokens_are_counted_without_separators() -> None:
    """Of 1,000 tokens 3 are separators: a rate of 2 of 997 is 2 tokens."""
    shards = manifest(unknown_tokens=7)
    shards["tokenizer_report"] |= {"train": {"unknown_rate": 0.0}, "valid": {"unknown_rate": 2 / 997}}
    found = rows(shards)
    assert found["Unknown tokens"] == ["25 (2.5 %)", "7 (0.7 %)"]
    assert found[f'<span class="part">{IN_THE_TEXT}</span>'] == ["25", "5"]
    assert found[f'<span class="part">{UNSPELLED}</span>'] == ["0", "2"]
    assert not any("0 %" in cell for cells in found.values() for cell in cells)


def test_without_unknown_tokens_there_is_no_row() -> None:
    shards = manifest()
    shards["splits"]["train"]["unknown_tokens"] = 0
    assert not any("nknown" in name for name in rows(shards))
    assert "Zero in every split: unknown tokens; " in data_section(shards)


def test_counts_of_zero_are_summed_up_in_one_sentence() -> None:
    found = rows(manifest())
    assert found["Dropped as duplicates"] == ["7", "0"]
    assert "Files with a byte order mark" not in found
    assert (
        "Zero in every split: dropped as unreadable; files with a byte order mark; documents with NUL"
        in data_section(manifest())
    )


def test_no_raw_field_name_is_shown() -> None:
    words = re.sub("<[^>]*>", " ", data_section(manifest(with_crlf=3)))
    assert not re.search(r"[a-z]_[a-z]|With (bom|crlf|nul)", words)


def test_unknown_fields_are_shown_too() -> None:
    found = rows(manifest(novel_count=3, documents="many"))
    assert found["Novel count"] == ["—", "3"]
    assert found["Documents"] == ["2", "many"]
