"""Reading text."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from acorn.text.rows import TxtReader
from acorn.tokenizer.tokenizer import Tokenizer

ONE_STEP = ("train.steps=1", "train.eval_every=0", "train.save_every=0")


@pytest.fixture
def train_on(acorn, refused, untouched, tmp_path: Path):
    """Runs `acorn tokenizer train` on a source that must be refused; checks that nothing is written or changed."""

    def check(source: object, code: int, *parts: str) -> None:
        out = tmp_path / "new" / "t.json"
        with untouched(tmp_path):
            done = acorn("tokenizer", "train", "--vocab-size", 300, "--input", source, "--out", out)
        refused(done, code, *parts)

    return check


@pytest.mark.fault(8)
def test_invalid_utf8_is_named_with_its_byte(train_on, tmp_path: Path) -> None:
    """Fault 8: by default the file and the offset of the byte are named."""
    content = ("the cat saw a dog.\n" * 500).encode()
    (tmp_path / "latin.txt").write_bytes(content[:7000] + b"\xe9" + content[7000:])
    train_on(
        tmp_path / "latin.txt",
        3,
        "This text is not UTF-8: byte 0xE9",
        "bad bytes in the file: 1 of 9,501, 0.01%",
        "latin.txt, byte 7000",
        "data.encoding=latin-1",
        'data.errors to "replace"',
    )


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("errors", "note"),
    [
        ("replace", "2 documents have U+FFFD for bytes that cannot be decoded: 2 of {source}."),
        ("skip", "2 bad rows were dropped: 2 of {source}."),
    ],
)
def test_invalid_utf8_replaced_or_skipped(
    pretrain, fine, write_rows, untouched, tmp_path: Path, errors: str, note: str
) -> None:
    """Fault 8: on request it is replaced or skipped, and counted."""
    source, held_out = write_rows("train.jsonl"), write_rows("valid.jsonl", seed=1)
    lines = source.read_bytes().splitlines(keepends=True)
    for number in (3, 30):
        lines[number] = b'{"text": "caf\xe9 %d"}\n' % number
    source.write_bytes(b"".join(lines))
    with untouched(source, held_out):
        done = pretrain(
            tmp_path / "run", f"data.valid_source={held_out}", f"data.errors={errors}", *ONE_STEP, text=source
        )
    fine(done, f"train: {note.format(source=source)}")
    counts = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())["text"]["counts"]["train"]
    assert (counts["replaced"], counts["dropped_bad"]) == ((2, 0) if errors == "replace" else (0, 2))


@pytest.mark.fault(8)
def test_a_replaced_byte_counts_as_one_byte(acorn, pretrain, fine, tmp_path: Path, text_file: Path) -> None:
    """Fault 8: in every figure of bytes: those of the two commands agree with each other and with the file."""
    source, out = tmp_path / "latin.txt", tmp_path / "t.json"
    source.write_bytes(text_file.read_text().replace("a", "é").encode("latin-1"))
    settings = ("data.errors=replace", "data.dedup=false")
    done = acorn("tokenizer", "train", "--vocab-size", 5000, "--out", out, "--json", source, *settings)
    fine(done)
    report = json.loads(done.stdout)
    shards = acorn("data", "prepare", "--tokenizer", out, "--out", tmp_path / "shards", "--json", source, *settings)
    fine(shards)
    manifest = json.loads(shards.stdout)
    train, valid = manifest["splits"]["train"], manifest["splits"]["valid"]
    assert train["bytes"] + valid["bytes"] == source.stat().st_size
    text_tokens = valid["tokens"] - valid["documents"] - 1
    assert report["bytes_per_token"] == pytest.approx(valid["bytes"] / text_tokens)
    assert manifest["tokenizer_report"]["valid"]["bytes_per_token"] == report["bytes_per_token"]
    told = f"from {train['documents']} documents of {train['bytes']:,} bytes"
    assert told in done.stderr
    fine(pretrain(tmp_path / "run", *settings, *ONE_STEP, "tokenizer.vocab_size=5000", text=source), told)


@pytest.mark.fault(8)
def test_another_encoding_gives_the_same_shards(pretrain, fine, tmp_path: Path, text_file: Path) -> None:
    """Fault 8: with the right encoding, the run equals one on the same text in UTF-8."""
    text = text_file.read_text().replace("a", "é")
    manifests = []
    for name, encoding in (("utf-8", "utf-8"), ("latin", "latin-1")):
        source = tmp_path / f"{name}.txt"
        source.write_bytes(text.encode(encoding))
        fine(pretrain(tmp_path / name, f"data.encoding={encoding}", *ONE_STEP, text=source))
        manifests.append(json.loads((tmp_path / name / "data" / "manifest.json").read_text()))
    assert manifests[0] == manifests[1]
    config = (tmp_path / "latin" / "config.toml").read_text()
    assert 'encoding = "iso8859-1"' in config
    again = ("data.encoding=ISO-8859-1", *ONE_STEP, "--resume")
    fine(pretrain(tmp_path / "latin", *again, text=tmp_path / "latin.txt"))  # the same encoding under another name


@pytest.mark.fault(8)
@pytest.mark.parametrize("name", ["klingon", "base64", "punycode", ""])
def test_an_unknown_encoding(pretrain, refused, untouched, tmp_path: Path, name: str) -> None:
    """Fault 8: refused with the config, before anything is written."""
    with untouched(tmp_path):
        done = pretrain(tmp_path / "run", f'data.encoding="{name}"')
    refused(done, 2, "data.encoding", f"{name!r} is not an encoding of text files", "latin-1")


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"text": ', ("This line is not JSON", "line 61")),
        ("[1, 2]", ("This line is a JSON list, not an object", "line 61")),
        ('{"body": "b", "id": 7}', ("no field 'text'; it has 'body', 'id'", "line 61", "data.text_field")),
        ('{"text": 7}', ("The field 'text' of this line is a JSON number", "line 61")),
        ("[" * 100_000, ("This line is not JSON", "line 61")),
    ],
    ids=["cut", "list", "another field", "number", "nested"],
)
def test_a_bad_line_of_json(train_on, write_rows, line: str, parts: tuple[str, ...]) -> None:
    """Fault 9: the line is named; if the field is missing, the existing ones are named too."""
    train_on(write_rows("bad.jsonl", line), 3, "bad.jsonl", "data.errors=skip", *parts)


@pytest.mark.fault(9)
def test_bad_lines_of_json_skipped(pretrain, fine, write_rows, tmp_path: Path) -> None:
    """Fault 9: on request they are skipped and counted."""
    source, held_out = write_rows("bad.jsonl", "{", '{"body": "b"}'), write_rows("valid.jsonl", seed=1)
    done = pretrain(tmp_path / "run", f"data.valid_source={held_out}", "data.errors=skip", *ONE_STEP, text=source)
    fine(done, "train: 2 bad rows were dropped")


@pytest.mark.fault(10)
@pytest.mark.parametrize("packing", ["gz", "xz", "zst"])
def test_a_truncated_compressed_file(train_on, tmp_path: Path, text_file: Path, packing: str) -> None:
    """Fault 10: the file and the offset are named."""
    text = text_file.read_bytes()
    pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": lambda raw: pyarrow.compress(raw, "zstd", asbytes=True)}
    whole = pack[packing](text)
    path = tmp_path / f"cut.txt.{packing}"
    path.write_bytes(whole[: len(whole) // 2])
    size = path.stat().st_size
    train_on(path, 3, "The file is truncated", f"cut.txt.{packing}, at or before byte {size} of {size}", "again")


@pytest.mark.fault(10)
def test_a_truncated_parquet_file(train_on, tmp_path: Path) -> None:
    """Fault 10: the same for parquet, which has its metadata at the end."""
    path = tmp_path / "cut.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a text"] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])
    size = path.stat().st_size
    train_on(path, 3, "truncated or damaged", f"cut.parquet, after row 0 ({size:,} bytes)", "copy or download it again")


@pytest.mark.fault(11)
def test_byte_order_marks_crlf_and_nul_are_counted(acorn, fine, tokenizer_file: Path, tmp_path: Path) -> None:
    """Fault 11: a byte order mark is dropped; CRLF and NUL stay; all three are counted."""
    source = tmp_path / "text"
    source.mkdir()
    texts = [f"text number {n}\r\nwith a nul \0 in it\n" for n in range(40)]
    for number, text in enumerate(texts):
        (source / f"{number:02d}.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    done = acorn("data", "prepare", "--tokenizer", tokenizer_file, "--input", source, "--out", tmp_path / "d", "--json")
    fine(done)
    facts = json.loads(done.stdout)
    counts = facts["text"]["counts"]
    for count in ("with_crlf", "with_nul"):
        assert counts["train"][count] + counts["valid"][count] == 40, count
    assert counts["train"]["with_bom"] == 40
    assert sum(split["bytes"] for split in facts["splits"].values()) == sum(map(len, texts))
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
    assert all(word in page for word in ("byte order mark", "line ends", "NUL"))


@pytest.mark.fault(11)
def test_a_lone_surrogate(train_on, pretrain, fine, write_rows, tmp_path: Path) -> None:
    """Fault 11: JSON can contain lone surrogates: refused with the line, or replaced and counted."""
    source, held_out = write_rows("half.jsonl", '{"text": "half \\ud800 a pair"}'), write_rows("valid.jsonl", seed=1)
    train_on(source, 3, "lone surrogate (\\ud800)", "half.jsonl, line 61", 'data.errors to "replace"')
    done = pretrain(tmp_path / "run", f"data.valid_source={held_out}", "data.errors=replace", *ONE_STEP, text=source)
    fine(done, "1 document has U+FFFD")


@pytest.mark.fault(11)
def test_a_lone_surrogate_on_the_command_line(acorn, refused, finished: Path, tokenizer_file: Path) -> None:
    """Fault 11: arguments that are not UTF-8 reach the program as lone surrogates."""
    refused(acorn("generate", finished, "--prompt", "caf\udce9"), 3, "lone surrogate", "prompt 1", "valid Unicode")
    refused(acorn("tokenizer", "inspect", tokenizer_file, "--text", "caf\udce9"), 3, "lone surrogate", "valid Unicode")


@pytest.mark.fault(12)
def test_a_pipe_where_a_text_is_expected(train_on, named_pipe) -> None:
    """Fault 12: a named pipe is refused, so that nothing blocks."""
    train_on(named_pipe("pipe.txt"), 3, "This is a named pipe, but a file is expected", "pipe.txt", "a regular file")


@pytest.mark.fault(12)
def test_a_loop_of_links_where_a_text_is_expected(train_on, tmp_path: Path) -> None:
    """Fault 12: a symbolic link to itself."""
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    train_on(tmp_path / "loop.txt", 3, "The file cannot be read", "loop.txt", "check the path and its links")


@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "nothing"])
def test_no_file_where_a_tokenizer_is_expected(
    acorn, refused, untouched, named_pipe, tmp_path: Path, text_file: Path, kind: str
) -> None:
    """Fault 12: a tokenizer is a file too."""
    path = tmp_path / "tokenizer.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        named_pipe(path.name)
    elif kind == "loop":
        path.symlink_to(path)
    command = ("data", "prepare", "--tokenizer", path, "--input", text_file, "--out", tmp_path / "shards")
    with untouched(tmp_path):
        refused(acorn(*command), 3, "The tokenizer cannot be read", "tokenizer.json")


@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_no_file_where_a_config_is_expected(acorn, refused, untouched, named_pipe, tmp_path: Path, kind: str) -> None:
    """Fault 12: so is a config."""
    path = tmp_path / "my.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        named_pipe(path.name)
    else:
        path.symlink_to(path)
    with untouched(tmp_path):
        done = acorn("pretrain", path, "--out", tmp_path / "run")
    refused(done, 2, "The config file cannot be read", "my.toml", "TOML file")


@pytest.mark.fault(13)
def test_the_text_of_a_control_token_is_text(acorn, fine, write_rows, tmp_path: Path, tokenizer_file: Path) -> None:
    """Fault 13: a document that contains the separator's text is not split, and nothing of it is lost."""
    spelled = "one <|endoftext|> and <|reserved_0|> more"
    rows = [json.dumps({"text": f"{spelled} {n}"}) for n in range(40)]
    source = write_rows("mine.jsonl", *rows, rows=1)
    out = tmp_path / "shards"
    done = acorn("data", "prepare", "--tokenizer", tokenizer_file, "--input", source, "--out", out, "--json")
    fine(done)
    fine(acorn("data", "verify", out))  # counts the separators
    assert sum(split["documents"] for split in json.loads(done.stdout)["splits"].values()) == 41
    done = acorn("tokenizer", "inspect", tokenizer_file, "--text", spelled, "--json")
    inspected = json.loads(done.stdout)
    assert inspected["round_trip"]
    assert "<|endoftext|>" not in inspected["pieces"]


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("kind", "clean", "entry"),
    [("bpe", "none", "<unk>"), ("wordpiece", "wikitext", "[UNK]"), ("bpe", "wikitext", "[UNK]")],
)
def test_the_mark_of_a_rare_word_is_one_token(acorn, fine, tmp_path: Path, kind: str, clean: str, entry: str) -> None:
    """Fault 13: WikiText's mark of a rare word is one entry of the vocabulary."""
    source = tmp_path / "wiki.txt"
    lines = (f" The <unk> of number {n} was the {n % 7} @-@ year one . \n" for n in range(300))
    source.write_text(" = Title = \n" + "".join(lines))
    out = tmp_path / "t.json"
    command = ("tokenizer", "train", "--kind", kind, "--clean", clean, "--vocab-size", 330)
    fine(acorn(*command, "--input", source, "--out", out))
    tokenizer = Tokenizer.from_file(out)
    pieces = [tokenizer.piece(token_id) for token_id in tokenizer.encode_documents([f"The {entry} of"])[0]]
    assert pieces.count(entry) == 1


@pytest.mark.fault(14)
@pytest.mark.parametrize("change", ["longer", "touched"])
def test_a_file_that_changes_while_it_is_read(
    acorn, refused, monkeypatch, tmp_path: Path, text_file: Path, change: str
) -> None:
    """Fault 14: by adding bytes, or by writing the same content again."""
    source = tmp_path / "growing.txt"
    source.write_bytes(text_file.read_bytes())
    real = TxtReader._cut

    def meanwhile(self, head, rest):
        if change == "longer":
            with open(source, "a") as file:
                file.write("more\n")
        else:
            status = source.stat()
            os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
        return real(self, head, rest)

    monkeypatch.setattr(TxtReader, "_cut", meanwhile)
    done = acorn("tokenizer", "train", "--vocab-size", 300, "--input", source, "--out", tmp_path / "t.json")
    refused(done, 3, "The file changed while it was in use", "growing.txt", "wait until the program")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.fault(15)
@pytest.mark.parametrize("name", ["nothing.txt", "*.txt", "folder"])
def test_a_source_that_matches_nothing(pretrain, refused, untouched, tmp_path: Path, name: str) -> None:
    """Fault 15: it is named, with alternatives that need no files or network; no run folder remains."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "picture.png").touch()
    with untouched(tmp_path):
        done = pretrain(tmp_path / "run", text=tmp_path / name)
    refused(done, 3, name, "bundled:wikitext-2")


@pytest.mark.fault(15)
def test_an_unreachable_hub(pretrain, refused, untouched, tmp_path: Path) -> None:
    """Fault 15: the message says how to work without the Hub. (Tests run offline.)"""
    with untouched(tmp_path):
        done = pretrain(tmp_path / "run", text=Path("hf:owner/name"))
    refused(done, 3, "The Hub cannot be reached", "hf:owner/name", "hf download owner/name", "and use hf:name")


@pytest.mark.fault(15)
@pytest.mark.parametrize("errors", ["strict", "skip"])
def test_runs_among_the_text(pretrain, refused, fine, untouched, tmp_path: Path, text_file: Path, errors: str) -> None:
    """Fault 15: runs and models in a folder of text are skipped and reported; a run alone is refused."""
    (tmp_path / "my.txt").write_bytes(text_file.read_bytes())
    options = (*ONE_STEP, f"data.errors={errors}")
    fine(pretrain(tmp_path / "runs" / "1", *options, text=tmp_path))
    done = pretrain(tmp_path / "runs" / "2", *options, text=tmp_path)
    fine(done, "skipped, because it is not your text: 1 run folder", "1 folder of this run (--out)")
    shards = [(tmp_path / "runs" / run / "data" / "manifest.json").read_bytes() for run in "12"]
    assert shards[0] == shards[1]
    with untouched(tmp_path):
        done = pretrain(tmp_path / "runs" / "3", *options, text=tmp_path / "runs" / "1")
    refused(done, 3, "is a run folder, not text", "name a folder of text")


@pytest.fixture
def overlapping(write_rows) -> tuple[Path, Path]:
    """Training and validation text with 3 of 60 documents in common."""
    train = write_rows("train.jsonl")
    common = train.read_text().splitlines()[:3]
    return train, write_rows("valid.jsonl", *common, rows=57, seed=1)


@pytest.mark.fault(16)
@pytest.mark.parametrize("overlap", ["warn", "drop"])
def test_the_same_document_in_training_and_validation(
    pretrain, fine, overlapping, tmp_path: Path, overlap: str
) -> None:
    """Fault 16: reported with the rate, and removed from the training text on request."""
    train, valid = overlapping
    done = pretrain(tmp_path / "run", f"data.valid_source={valid}", f"data.overlap={overlap}", *ONE_STEP, text=train)
    fine(done, "3 of 60 distinct valid documents (5.00%", "are also training documents")
    assert ("were dropped from training" in " ".join(done.stderr.split())) == (overlap == "drop")
    splits = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())["splits"]
    assert splits["train"]["documents"] == (57 if overlap == "drop" else 60)
    assert splits["valid"]["documents"] == 60


@pytest.mark.fault(16)
def test_a_document_that_occurs_many_times(pretrain, fine, write_rows, tmp_path: Path) -> None:
    """Fault 16: if acorn splits, repeats are removed before the split, which is reported."""
    once = write_rows("once.jsonl")
    often = tmp_path / "often.jsonl"
    often.write_text(once.read_text() + once.read_text().splitlines(keepends=True)[7] * 500)
    done = pretrain(tmp_path / "run", *ONE_STEP, text=often)
    fine(done, "warning: 560 documents, 60 of them distinct: the 500 exact repeats", "data.dedup=false keeps them")
    fine(pretrain(tmp_path / "other", *ONE_STEP, text=once))
    splits = [json.loads((tmp_path / run / "data" / "manifest.json").read_text())["splits"] for run in ("run", "other")]
    assert splits[0] == splits[1]


@pytest.mark.fault(1)
def test_one_repeated_document(train_on, tmp_path: Path) -> None:
    """Fault 1: one document cannot be split, however often it is repeated; the message has both numbers."""
    path = tmp_path / "same.jsonl"
    path.write_text('{"text": "the same again"}\n' * 5_000)
    train_on(path, 3, "of 5,000 documents, 1 is distinct", "same.jsonl", "data.valid_source")


@pytest.mark.fault(16)
def test_overlap_refused_on_request(pretrain, refused, untouched, overlapping, tmp_path: Path) -> None:
    """Fault 16: with data.overlap = "fail"."""
    train, valid = overlapping
    with untouched(tmp_path):
        done = pretrain(tmp_path / "run", f"data.valid_source={valid}", "data.overlap=fail", text=train)
    refused(done, 3, "3 of 60 distinct valid documents", 'data.overlap = "fail"', "take them out of the training text")
