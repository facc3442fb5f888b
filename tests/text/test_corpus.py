from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text.corpus import Corpus, Document
from acorn.text.reading import Reading, SplitCounts
from acorn.text.text_files import TextFile

Write = Callable[[str, bytes | str], Path]


def read(*paths: Path, **settings: Any) -> tuple[list[Document], SplitCounts]:
    data = DataConfig(**settings)
    reading = Reading(data.errors)
    documents = list(
        Corpus([TextFile.at(path, encoding=data.encoding) for path in paths], data).documents(reading, rows=reading)
    )
    return documents, reading.counts


def test_a_document_knows_its_text_size_and_place(write: Write) -> None:
    path = write("a.txt", "Été in town\n\n \u3000\n'two'  words")
    documents, counts = read(path, document="line")
    assert documents == [
        Document("Été in town\n", n_bytes=14, n_words=4, source=f"{path}, byte 0"),
        Document("'two'  words", n_bytes=12, n_words=3, source=f"{path}, byte 20"),
    ]
    assert (counts.documents, counts.bytes, counts.words, counts.dropped_empty) == (2, 26, 7, 2)


def test_words_include_one_line_end_per_line(write: Write) -> None:
    (document,), _ = read(write("a.txt", "one two\nthree\n\nfour"))
    assert document.n_words == 4 + 4
    (document,), _ = read(write("a.txt", "one two\nthree\n\nfour\n"))
    assert document.n_words == 4 + 4


def test_cleaning_changes_the_text_but_not_the_counts(write: Write) -> None:
    path = write("a.txt", " = Title = \n \n the 17th @-@ century <unk> \n '\\' \n")
    documents, counts = read(path, clean="wikitext")
    assert [document.text for document in documents] == [" = Title = ", " the 17th  century [UNK] "]
    assert [(document.n_bytes, document.n_words) for document in documents] == [(12, 4), (29, 6)]
    assert (counts.dropped_empty, counts.dropped_by_cleaning) == (1, 1)
    assert counts.dropped() == "1 empty, 1 left empty by cleaning"


def test_crlf_and_nul_are_kept_and_counted(write: Write) -> None:
    """Fault 11: BOM, CRLF, NUL: documented, counted."""
    documents, counts = read(write("a.txt", b"\xef\xbb\xbfone\r\ntwo\0\nthree\n"), document="line")
    assert [document.text for document in documents] == ["one\r\n", "two\0\n", "three\n"]
    assert (counts.with_bom, counts.with_crlf, counts.with_nul) == (1, 1, 1)
    assert counts.bytes == 5 + 5 + 6


def test_invalid_utf8_names_file_and_byte(write: Write) -> None:
    """Fault 8: invalid UTF-8: file and byte offset; replace and skip with counts."""
    content = b"good\n" + b"caf\xe9 cut \xe2\x82\nagain good\n"
    path = write("a.txt", content)
    with pytest.raises(InputError, match="byte 0xE9, invalid continuation byte") as error:
        read(path, document="line")
    assert error.value.where == f"{path}, byte 8"
    assert 'data.errors to "replace"' in error.value.fix
    with pytest.raises(InputError) as error:
        read(write("a.txt.gz", gzip.compress(content)), document="line")
    assert "a.txt.gz, byte 8 of the uncompressed text" in error.value.where

    documents, counts = read(path, document="line", errors="replace")
    assert [document.text for document in documents] == ["good\n", "caf\ufffd cut \ufffd\n", "again good\n"]
    assert [document.n_bytes for document in documents] == [5, len(b"caf\xe9 cut \xe2\x82\n"), 11]
    assert (counts.replaced, counts.bytes) == (1, len(content))

    documents, counts = read(path, document="line", errors="skip")
    assert [document.text for document in documents] == ["good\n", "again good\n"]
    assert (counts.documents, counts.dropped_bad) == (2, 1)


@given(content=st.binary(min_size=1, max_size=40))
def test_the_offset_is_that_of_the_first_byte_python_cannot_decode(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Fault 8, against Python's own decoder on the whole file."""
    path = tmp_path_factory.mktemp("bytes") / "a.txt"
    path.write_bytes(content)
    offset = first_bad_byte(content)
    if offset is None:
        documents, _ = read(path, document="line")
        lines = content.decode("utf-8-sig").split("\n")
        assert [document.text.removesuffix("\n") for document in documents] == [line for line in lines if line.strip()]
    else:
        with pytest.raises(InputError) as error:
            read(path, document="line")
        assert error.value.where == f"{path}, byte {offset}"


def first_bad_byte(content: bytes) -> int | None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def test_utf16_is_recognized(write: Write) -> None:
    """Fault 8: the usual cause of invalid UTF-8 on Windows."""
    path = write("a.txt", "some text".encode("utf-16"))
    with pytest.raises(InputError, match="like UTF-16") as error:
        read(path)
    assert "data.encoding=utf-16 " in error.value.fix
    documents, counts = read(path, encoding="utf-16")
    assert [document.text for document in documents] == ["some text"]
    assert counts.bytes == len("some text")


def test_the_share_of_bad_bytes_is_that_of_the_file(write: Write) -> None:
    """Fault 8: the share of bytes that are not UTF-8 tells a damaged file from one in another encoding."""
    text = "Café à la crème, élève.\n" * 500
    raw = text.encode("latin-1")
    count = sum(byte >= 0x80 for byte in raw)
    with pytest.raises(InputError, match=f"bad bytes in the file: {count:,} of {len(raw):,}, {count / len(raw):.2%}"):
        read(write("latin.txt", raw), document="line")
    with pytest.raises(InputError, match=r"bad bytes in the file: 1 of 13,201, under 0\.01%"):
        read(write("damaged.txt", b"plain text " * 1_200 + b"\xff"))


SPELLINGS = {
    "latin-1": "élève à la crème\n",
    "cp1251": "русский текст\n",
    "gb18030": "中文文本\n",
    "utf-16-be": "é漢🌰\n",
}


@pytest.mark.parametrize("encoding", SPELLINGS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_named_encoding_gives_the_documents_that_utf8_gives(write: Write, encoding: str, packed: bool) -> None:
    lines = [f"{number} {SPELLINGS[encoding]}" for number in range(40_000)]
    raw = "".join(lines).encode(encoding)
    path = write("a.txt.gz", gzip.compress(raw, 1)) if packed else write("a.txt", raw)
    documents, counts = read(path, document="line", encoding=encoding)
    assert [document.text for document in documents] == lines
    assert counts.bytes == len("".join(lines).encode())  # of UTF-8, whatever the encoding of the file


def test_bad_bytes_of_a_named_encoding_follow_data_errors(write: Write) -> None:
    """Fault 8: the same for other encodings. In cp1252 the byte 0x81 is undefined."""
    content = "élève\n".encode("cp1252") + b"a\x81b\x8d\n" + b"more\n"
    path = write("a.txt", content)
    with pytest.raises(InputError, match="not cp1252: byte 0x81, character maps") as error:
        read(path, document="line", encoding="cp1252")
    assert error.value.where == f"{path}, byte 7"
    assert "data.encoding=utf-8" in error.value.fix
    documents, counts = read(path, document="line", encoding="cp1252", errors="replace")
    assert [document.text for document in documents] == ["élève\n", "a\ufffdb\ufffd\n", "more\n"]
    assert [document.n_bytes for document in documents] == [8, 5, 5]
    documents, counts = read(path, document="line", encoding="cp1252", errors="skip")
    assert [document.text for document in documents] == ["élève\n", "more\n"]
    assert counts.dropped_bad == 1


@pytest.mark.parametrize("errors", ["replace", "skip"])
def test_bytes_are_those_of_the_original_text(write: Write, errors: str) -> None:
    """U+FFFD in place of Latin-1 accents does not make a text longer, nor a line of JSON."""
    raw = ("élève, crème brûlée\n" * 100).encode("latin-1")
    _, counts = read(write("a.txt", raw), errors=errors)
    assert counts.bytes == (len(raw) if errors == "replace" else 0)
    record = b'{"text": "\xe9l\xe8ve"}\n' + rb'{"text": "half \ud800"}' + b"\n"
    documents, counts = read(write("a.jsonl", record), errors=errors)
    if errors == "replace":
        assert [(document.text, document.n_bytes) for document in documents] == [
            ("\ufffdl\ufffdve", 5),
            ("half \ufffd", 6),
        ]
        assert counts.replaced == 2
    else:
        assert (documents, counts.dropped_bad) == ([], 2)


def test_progress_counts_bytes_on_disk(write: Write, listener: Any) -> None:
    text = b"".join(b"Line %d of a text that takes some time to be read.\n" % number for number in range(100_000))
    paths = [write("a.txt", text), write("b.txt.gz", gzip.compress(text))]
    data = DataConfig()
    reading = Reading("strict")
    parts = [TextFile.at(path) for path in paths]
    for _ in Corpus(parts, data).documents(reading, rows=reading, progress=listener, task="reading"):
        pass
    total = sum(path.stat().st_size for path in paths)
    done = [step[1] for step in listener.steps]
    assert {(task, of) for task, _, of in listener.steps} == {("reading", total)}
    assert done == sorted(done)
    assert len(done) > 8
    assert done[-1] == total
    assert listener.ended == ["reading"]
