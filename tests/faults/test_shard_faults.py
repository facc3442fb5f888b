"""Writing and opening token shards."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from permissions import denied

from acorn import files
from acorn.data import prepare as prepare_module
from acorn.data.token_shards import ShardWriter
from acorn.tokenizer.tokenizer import Tokenizer

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def prepare(acorn, tokenizer_file: Path, text_file: Path):
    """`acorn data prepare` into a folder."""

    def run(out: Path, *more: object):
        return acorn("data", "prepare", "--tokenizer", tokenizer_file, "--input", text_file, "--out", out, *more)

    return run


@pytest.mark.fault(17)
def test_a_disk_too_small(prepare, refused, untouched, monkeypatch, tmp_path: Path) -> None:
    """Fault 17: detected before a split is written, with the bytes needed and free."""
    monkeypatch.setattr(files, "free_bytes", lambda path: 50)
    with untouched(tmp_path):
        done = prepare(tmp_path / "shards")
    refused(done, 6, "The disk is too small", "50 are free", str(tmp_path), "nothing was written")
    needed = re.search(r"about ([\d,]+) bytes are needed", " ".join(done.stderr.split()))
    assert needed
    assert int(needed[1].replace(",", "")) > 1000


@pytest.mark.fault(17)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(prepare, refused, untouched, monkeypatch, tmp_path: Path, number: int) -> None:
    """Fault 17: no partly written file remains."""
    real = ShardWriter.append

    def full(self: ShardWriter, ids) -> None:
        real(self, ids)
        if self.split == "train":
            raise OSError(number, os.strerror(number), str(self.folder / "train-00000.bin"))

    monkeypatch.setattr(ShardWriter, "append", full)
    with untouched(tmp_path):
        done = prepare(tmp_path / "shards")
    refused(done, 6, "The disk is full", "bytes are free", str(tmp_path / "shards"), "free some space")


@pytest.mark.fault(18)
def test_a_token_id_too_large(prepare, refused, untouched, monkeypatch, tmp_path: Path) -> None:
    """Fault 18: an id that does not fit the shards' integers is refused, never truncated."""
    monkeypatch.setattr(Tokenizer, "encode_documents", lambda self, texts: [[70_000] for _ in texts])
    monkeypatch.setattr(prepare_module, "_measure", lambda *arguments: {})
    with untouched(tmp_path):
        done = prepare(tmp_path / "shards")
    refused(done, 3, "Token id 70000 is too large for uint16 shards, whose largest id is 65535", "train", "use another")


@pytest.mark.fault(19)
def test_an_existing_folder(prepare, fine, refused, untouched, shards: Path, digest, tmp_path: Path) -> None:
    """Fault 19: refused and unchanged; a new folder with the same inputs gets the same bytes."""
    with untouched(shards):
        refused(prepare(shards), 2, "already exists", str(shards), "name another folder")
    fine(prepare(tmp_path / "again"))
    assert digest(tmp_path / "again") == digest(shards)


KILLED = """
import os, sys
from acorn.cli.main import main
from acorn.data.token_shards import ShardWriter

real, last = ShardWriter.append, sys.argv[1]

def append(self, ids):
    real(self, ids)
    if self.split == last:
        os._exit(9)

ShardWriter.append = append
sys.argv = ["acorn", *sys.argv[2:]]
main()
"""


@pytest.mark.fault(20)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_killed_between_shards(
    acorn, fine, shards: Path, digest, tokenizer_file: Path, text_file: Path, tmp_path: Path, split: str
) -> None:
    """Fault 20: there is no folder under the final name; the same command again gives equal bytes."""
    out = tmp_path / "killed"
    command = ["data", "prepare", "--tokenizer", tokenizer_file, "--input", text_file, "--out", out]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, split, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
    )
    assert done.returncode == 9, done.stderr
    assert not out.exists()
    assert (tmp_path / "killed.new" / f"{split}-00000.bin").exists()
    fine(acorn(*command))
    assert digest(out) == digest(shards)
    assert not (tmp_path / "killed.new").exists()


@pytest.mark.fault(21)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_failing_encoding_thread(prepare, refused, untouched, monkeypatch, tmp_path: Path, split: str) -> None:
    """Fault 21: any failure in an encoding thread ends the command with a message; nothing hangs."""

    class PanicException(BaseException):
        """The kind of exception that the tokenizers library raises when its code panics."""

    class Broken:
        def encode_batch_fast(self, texts, add_special_tokens):
            raise PanicException("index out of bounds")

    real, calls = prepare_module.encode, []

    def dies(batch, tokenizer):
        calls.append(batch[0].source)
        if len(calls) == (1 if split == "train" else 2):
            monkeypatch.setattr(tokenizer, "_documents", Broken())
        return real(batch, tokenizer)

    monkeypatch.setattr(prepare_module, "encode", dies)
    with untouched(tmp_path):
        done = prepare(tmp_path / "shards")
    refused(done, 3, "cannot encode", "index out of bounds", "my.txt, byte")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("shards")]


def damage_shard(folder: Path, kind: str, flip) -> str:
    """Damages token shards; returns the name of the file that the message must contain."""
    shard = folder / "train-00000.bin"
    if kind == "added":
        shutil.copy(shard, folder / "train-00001.bin")
        return "train-00001.bin"
    if kind == "missing":
        shard.unlink()
    elif kind == "cut short":
        shard.write_bytes(shard.read_bytes()[:-2])
    else:
        flip(shard)
    return shard.name


DAMAGES = ["added", "missing", "cut short", "bit flipped"]


@pytest.mark.fault(22)
@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_damaged_shards(acorn, refused, untouched, shards: Path, flip, damage: str) -> None:
    """Fault 22: `acorn data verify` names the file."""
    name = damage_shard(shards, damage, flip)
    with untouched(shards):
        refused(acorn("data", "verify", shards), 4, "These token shards are damaged", name, str(shards), "restore them")


@pytest.mark.fault(22)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_shards_are_detected_before_the_first_step(
    pretrain, refused, untouched, shards: Path, tmp_path: Path, flip, damage: str
) -> None:
    """Fault 22: a new run on prepared shards first checks all of them."""
    name = damage_shard(shards, damage, flip)
    with untouched(shards):
        done = pretrain(tmp_path / "run", f"data.shards={shards}", text=None)
    refused(done, 4, name, str(shards))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.fault(22)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_shards_are_detected_before_a_run_resumes(
    acorn, refused, untouched, unfinished: Path, flip, damage: str
) -> None:
    """Fault 22: so does a resumed run; its checkpoints are not changed."""
    name = damage_shard(unfinished / "data", damage, flip)
    with untouched(unfinished):
        refused(acorn("pretrain", "--resume", "--out", unfinished), 4, name)


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", ["data", "data/manifest.json"])
def test_shards_without_read_permission(acorn, refused, unfinished: Path, name: str) -> None:
    """Fault 22: every command reports it in the same words."""
    with denied(unfinished / name):
        for command in (("evaluate", unfinished), ("pretrain", "--resume", "--out", unfinished)):
            refused(acorn(*command), 3, "cannot be read: permission denied", str(unfinished / name), "chmod")
        shutil.rmtree(unfinished / "checkpoints")
        refused(acorn("pretrain", "--resume", "--out", unfinished), 3, "cannot be read: permission denied")


@pytest.mark.fault(22)
def test_a_manifest_edited_by_hand(acorn, refused, untouched, shards: Path) -> None:
    """Fault 22: the manifest is part of what is checked."""
    path = shards / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["bytes"] += 1
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    with untouched(shards):
        refused(acorn("data", "verify", shards), 4, "manifest.json")


@pytest.fixture
def other_tokenizer(acorn, fine, text_file: Path, tmp_path: Path) -> Path:
    """Another tokenizer of the same text."""
    out = tmp_path / "other.json"
    fine(acorn("tokenizer", "train", "--vocab-size", 280, "--input", text_file, "--out", out))
    return out


@pytest.mark.fault(23)
@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_shards_of_another_tokenizer(
    acorn, fine, refused, untouched, unfinished: Path, text_file: Path, other_tokenizer: Path, command: str
) -> None:
    """Fault 23: both fingerprints are named, wherever tokenizer and shards meet."""
    shutil.rmtree(unfinished / "data")
    prepared = ("data", "prepare", "--tokenizer", other_tokenizer, "--input", text_file, "--out", unfinished / "data")
    fine(acorn(*prepared))
    theirs, own = (Tokenizer.from_file(path).fingerprint for path in (other_tokenizer, unfinished / "tokenizer.json"))
    arguments = ("evaluate", unfinished) if command == "evaluate" else ("pretrain", "--resume", "--out", unfinished)
    with untouched(unfinished):
        refused(
            acorn(*arguments), 3, "made with another tokenizer", theirs, own, "manifest.json", "make the shards again"
        )
