from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

from acorn.errors import InputError, UsageError
from acorn.progress import Quiet
from acorn.tokenizer import training
from acorn.tokenizer.training import MAX_RUN_CHARACTERS, Kind, train

SRC = Path(__file__).parents[2] / "src"
KINDS: tuple[Kind, ...] = ("wordpiece", "bpe")

TRAIN_AND_HASH = """
import hashlib, random
from acorn.tokenizer.training import train
draw = random.Random(0)
words = ["".join(draw.choices("etaoinshrdlué", k=draw.randint(1, 9))) for _ in range(3000)]
texts = [" ".join(draw.choices(words, k=30)) for _ in range(600)]
for kind in ("wordpiece", "bpe"):
    print(hashlib.sha256(train(lambda: texts, kind, 900).to_json().encode()).hexdigest())
"""


class Notes(Quiet):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def words(n: int) -> list[str]:
    draw = random.Random(n)
    return [" ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(20)) for _ in range(n)]


def test_every_process_and_thread_count_learns_the_same_vocabulary() -> None:
    """Fault 7. The random words contain many pairs with equal counts, so any randomness would show."""
    digests = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(SRC)}
        run = subprocess.run(
            [sys.executable, "-c", TRAIN_AND_HASH], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_contiguous_and_the_size_is_the_requested_one(kind: Kind) -> None:
    tokenizer = train(lambda: words(50), kind, 400, entries=["<unk>"])
    vocabulary = json.loads(tokenizer.to_json())["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(400))
    assert tokenizer.vocab_size == 400
    assert "<unk>" in vocabulary


def test_wordpiece_begins_with_the_named_tokens_and_both_forms_of_each_letter() -> None:
    tokenizer = train(lambda: ["ba cab"] * 3, "wordpiece", 30)
    vocabulary = json.loads(tokenizer.to_json())["model"]["vocab"]
    assert list(vocabulary)[:8] == ["[UNK]", "<|EOS|>", "##a", "##b", "##c", "a", "b", "c"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_train_on(kind: Kind) -> None:
    """Fault 1."""
    with pytest.raises(InputError, match="2 documents, 3 bytes"):
        train(lambda: ["\n", " \t"], kind, 1000)
    with pytest.raises(InputError, match="0 documents, 0 bytes"):
        train(lambda: [], kind, 1000)


@pytest.mark.parametrize(("kind", "least"), [("wordpiece", 2 + 1 + 2 * 8), ("bpe", 17 + 1 + 256)])
def test_a_vocabulary_that_is_too_small_is_refused_with_the_smallest_size(kind: Kind, least: int) -> None:
    """Fault 2."""
    with pytest.raises(UsageError, match=f"need {least:,}") as caught:
        train(lambda: words(50), kind, least - 1, entries=["<unk>"])
    assert f"{least:,}" in caught.value.fix
    assert train(lambda: words(50), kind, least, entries=["<unk>"]).vocab_size == least


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_corpus_gives_a_note_with_the_size_reached(kind: Kind) -> None:
    """Fault 3."""
    listener = Notes()
    tokenizer = train(lambda: ["one small text"], kind, 5000, progress=listener)
    assert tokenizer.vocab_size < 5000
    assert [f"{tokenizer.vocab_size:,}" in note and "5,000" in note for note in listener.notes] == [True]
    listener.notes.clear()
    train(lambda: words(50), kind, 300, progress=listener)
    assert listener.notes == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_note_counts_bytes_of_the_originals(kind: Kind) -> None:
    class Sized(NamedTuple):
        text: str
        n_bytes: int

    listener = Notes()
    original = "caf\xe9 and th\xe9".encode("latin-1")
    train(lambda: [Sized(original.decode("utf-8", "replace"), len(original))], kind, 5000, progress=listener)
    assert [f"from 1 document of {len(original)} bytes" in note for note in listener.notes] == [True]


@pytest.mark.parametrize(("kind", "character"), [("wordpiece", "a"), ("bpe", "a"), ("bpe", " ")])
def test_a_million_equal_characters(kind: Kind, character: str) -> None:
    """Fault 4. Without cutting, the trainer's time grows with the square: ten minutes here."""
    line = character * 1_000_000
    tokenizer = train(lambda: [*words(5), line], kind, 320)
    ids = tokenizer.encode_documents([line])[0]
    if kind == "bpe":
        assert tokenizer.decode(ids) == line
    else:
        assert ids == [tokenizer.unknown_id]


def test_cutting_long_words_loses_no_letter() -> None:
    """Fault 4: all pieces of a word 3.5 times the maximum length are learned from."""
    line = "x" * (3 * MAX_RUN_CHARACTERS + MAX_RUN_CHARACTERS // 2)
    size = 17 + 256 + 11
    tokenizer = train(lambda: [line], "bpe", size)
    longest = max(len(piece) for piece in json.loads(tokenizer.to_json())["model"]["vocab"] if set(piece) == {"x"})
    assert longest == MAX_RUN_CHARACTERS  # 2**10, reached by ten merges that double; the eleventh joins what is left
    assert tokenizer.vocab_size <= size


@pytest.mark.parametrize("length", [MAX_RUN_CHARACTERS + n for n in (-1, 0, 1, 2, 1025)])
@pytest.mark.parametrize("run", ["x", " ", "é"])
def test_long_runs_are_cut_at_any_position(run: str, length: int) -> None:
    other = "." if run == " " else " "
    for before in (0, 1, 2, 511, 512, 513, 1000, 1023, 1024, 1025):
        for after in (0, 1, 600):
            text = "".join(other if i % 2 else run for i in range(before)) + other * (before > 0)
            text += run * length + "".join(run if i % 2 else other for i in range(after))
            pieces = list(training._cut(text))
            assert "".join(pieces) == text
            assert max(len(list(g)) for piece in pieces for _, g in groupby(piece, str.isspace)) <= MAX_RUN_CHARACTERS
            assert length > MAX_RUN_CHARACTERS or pieces == [text]


@pytest.mark.parametrize("cache_bytes", [0, 200, 10_000])
def test_wordpiece_reads_a_text_larger_than_the_cache_twice(monkeypatch: pytest.MonkeyPatch, cache_bytes: int) -> None:
    texts, passes = ["the cat sat on the mat"] * 20, []
    whole = train(lambda: texts, "wordpiece", 60).to_json()
    monkeypatch.setattr(training, "TEXT_CACHE_BYTES", cache_bytes)
    assert train(lambda: passes.append(1) or texts, "wordpiece", 60).to_json() == whole
    assert len(passes) == (1 if cache_bytes > 200 else 2)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        (["<a>", "<b>", "<a>"], "'<a>' is given 2 times"),
        (["<|endoftext|>"], "'<|endoftext|>' is a special token"),
        (["the"], "'the' would collide"),
        (["!"], "'!' would collide"),
        (["<é>"], "'<é>' does not consist of"),
        (["< >"], "'< >' does not consist of"),
        ([""], "'' does not consist of"),
    ],
)
def test_colliding_entries_are_refused(entries: list[str], named: str) -> None:
    """Fault 5."""
    with pytest.raises(UsageError) as caught:
        train(lambda: words(5), "bpe", 400, entries=entries)
    assert named in caught.value.what


def test_all_colliding_entries_are_reported_together() -> None:
    """Fault 5."""
    with pytest.raises(UsageError, match=r"'\[UNK\]' is a special token.*'<a>' is given 2 times|'<a>'.*'\[UNK\]'"):
        train(lambda: words(5), "wordpiece", 400, entries=["[UNK]", "<a>", "<a>"])


def test_entries_are_not_learned_as_pieces() -> None:
    """They are matched as a whole, so pieces such as `unk` would only waste entries."""
    tokenizer = train(lambda: ["<unk> <unk> see"] * 50, "bpe", 400, entries=["<unk>"])
    assert not any("nk" in piece for piece in json.loads(tokenizer.to_json())["model"]["vocab"] if piece != "<unk>")


def test_an_error_from_the_text_keeps_its_type() -> None:
    """The library runs the generator. An exception from it must not be changed."""

    def texts() -> Iterator[str]:
        yield "some text"
        raise InputError("bad byte", where="file.txt")

    for kind in KINDS:
        with pytest.raises(InputError, match="bad byte"):
            train(texts, kind, 400)


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="unigram"):
        train(lambda: ["text"], "unigram", 400)  # type: ignore[arg-type]


def test_wordpiece_learns_the_most_frequent_pairs() -> None:
    """By hand: `ab` occurs 13 times, then `abc` 10 times, then `abd` 3 times."""
    tokenizer = train(lambda: ["abc " * 10 + "abd " * 3 + "bc"], "wordpiece", 2 + 2 * 4 + 3)
    assert list(json.loads(tokenizer.to_json())["model"]["vocab"])[-3:] == ["ab", "abc", "abd"]


def test_the_fingerprint_depends_on_the_text_only() -> None:
    first, second = train(lambda: words(20), "bpe", 300), train(lambda: words(20), "bpe", 300)
    assert first.fingerprint == second.fingerprint != train(lambda: words(21), "bpe", 300).fingerprint
    assert first.to_json() == second.to_json()
