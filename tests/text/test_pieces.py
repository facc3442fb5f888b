from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.progress import QUIET
from acorn.text.corpus import Corpus
from acorn.text.pieces import Pieces, differences
from acorn.text.reading import Reading
from acorn.text.sources import merged, resolve


def corpus_of(data: DataConfig) -> Corpus:
    return Corpus(merged(resolve(data.source, data, "data.source", QUIET))["train"], data)


def rows_of(corpus: Corpus) -> tuple[list[bytes], Reading]:
    reading = Reading("skip")
    return [raw for raw, _, _ in corpus.rows(reading)], reading


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.sampled_from("ab\n\r é日")), min_size=1, max_size=4),
    document=st.sampled_from(["auto", "line", "block", "file"]),
    bom=st.booleans(),
    piece_bytes=st.integers(1, 60),
)
def test_the_pieces_of_text_files_have_all_rows_once_and_in_order(
    texts: list[str], document: str, bom: bool, piece_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("text")
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    data = DataConfig(source=(str(folder),), document=document)  # type: ignore[arg-type]
    check_pieces(corpus_of(data), piece_bytes)


@pytest.mark.parametrize("piece_bytes", [1, 7, 40, 1000])
def test_the_pieces_of_tables_have_all_rows_once_and_in_order(piece_bytes: int, tmp_path: Path) -> None:
    rows = [{"text": f"row {number} é"} for number in range(20)]
    lines = "\n".join([json.dumps(rows[0]), "", "no JSON", *map(json.dumps, rows[1:])]).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    check_pieces(corpus_of(DataConfig(source=(str(tmp_path),))), piece_bytes)


def test_each_file_of_a_dataset_is_a_piece(tmp_path: Path) -> None:
    for number in range(3):
        rows = [{"text": f"{number} {row}"} for row in range(4)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"train-0000{number}-of-00003.parquet")
    pieces = check_pieces(corpus_of(DataConfig(source=(f"hf:{tmp_path}",))), None)
    assert len([piece for piece in pieces.pieces if piece]) == 3


def check_pieces(corpus: Corpus, piece_bytes: int | None) -> Pieces:
    expected, whole = rows_of(corpus)
    pieces = Pieces.of(corpus, piece_bytes)
    found, counts = [], Reading("skip").counts
    for number in range(len(pieces)):
        rows, reading = rows_of(pieces.open(number))
        found += rows
        counts += reading.counts
    assert found == expected
    assert counts == whole.counts
    return pieces


def test_a_jsonl_is_spread_over_its_pieces(write: Callable[[str, str], Path]) -> None:
    path = write("a.jsonl", "\n".join(json.dumps({"text": f"row {n}"}) for n in range(1000)))
    pieces = Pieces.of(corpus_of(DataConfig(source=(str(path),))), 2000)
    assert len(pieces) == -(-path.stat().st_size // 2000)
    sizes = [len(rows_of(pieces.open(number))[0]) for number in range(len(pieces))]
    assert max(sizes) < 1.5 * 2000 / (path.stat().st_size / 1000)


@given(pieces=st.integers(1, 50), parts=st.integers(1, 60))
def test_parts_share_the_pieces_about_equally(pieces: int, parts: int) -> None:
    cut = Pieces(Corpus((), DataConfig()), 1, ((),) * pieces)
    shares = [cut.of_part(part, parts) for part in range(1, parts + 1)]
    assert [piece for share in shares for piece in share] == list(range(pieces))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_bad_row_is_named_by_its_line_after_the_beginning_of_the_piece(write: Callable[[str, str], Path]) -> None:
    path = write("a.jsonl", '{"text": "a"}\n' * 20 + '{"text": 3}\n')
    pieces = Pieces.of(corpus_of(DataConfig(source=(str(path),))), 140)
    with pytest.raises(InputError, match=r"is a JSON number") as error:
        list(pieces.open(2).rows(Reading("strict")))
    assert error.value.where.endswith("a.jsonl, line 1 after byte 280")


def test_files_are_told_apart_by_content_and_not_by_path(write: Callable[[str, str], Path]) -> None:
    def identities(name: str, content: str):  # type: ignore[no-untyped-def]
        return Pieces.of(corpus_of(DataConfig(source=(str(write(name, content)),)))).identities()

    one = identities("a.txt", "x" * 20_000)
    assert differences(one, identities("moved.txt", "x" * 20_000)) == []
    assert "other content" in differences(one, identities("b.txt", "x" * 19_999 + "y"))[0]
    assert "20,000 bytes, not" in differences(one, identities("c.txt", "x" * 5))[0]
    assert differences(one, [*one, *one]) == ["1 files, not 2"]
