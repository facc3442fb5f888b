"""Wrong use and bad input: exit code, one message with what, where and how to fix it, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest


def refused(done, code: int, *parts: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("bogus",), "No such command"),
        (("pretrain", "--nope"), "No such option"),
        (("generate",), "Missing argument"),
        (("pretrain", "smal"), "did you mean small?"),
        (("pretrain", "--resume"), "No config is given"),
        (("pretrain", "small"), "No text is named"),
        (("pretrain", "small", "data.source=x.txt", "train.stepz=3"), "did you mean train.steps?"),
        (("pretrain", "small", "data.source=x.txt", "train.steps=0"), "no length"),
        (("tokenizer", "train"), "No text is named"),
        (("tokenizer", "train", "--kind", "sentencepiece", "--input", "x.txt"), "tokenizer.kind"),
        (("evaluate", "nowhere"), "does not exist"),
        (("generate", "nowhere", "--decoder", "abacus"), "where: --decoder"),  # before looking for a model
        (("verify", "nowhere"), "does not exist"),
        (("report", "nowhere"), "not a run folder"),
        (("plan", "small", "model.n_embd=7"), "even head width"),
    ],
)
def test_wrong_use_is_refused_and_writes_nothing(acorn, tmp_path: Path, arguments: tuple[str, ...], part: str) -> None:
    refused(acorn(*arguments, cwd=tmp_path), 2, part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("empty.txt", b"", ("empty",)),
        ("blank.txt", b" \n\n ", ("empty",)),
        ("latin.txt", b"caf\xe9 " * 50, ("latin.txt", "UTF-8")),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n' * 20, ("bad.jsonl", "line 2")),
        ("field.jsonl", b'{"body": "a"}\n' * 20, ("body", "text")),
        ("cut.txt.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcbH", ("cut.txt.gz",)),
        ("tiny.txt", b"one line\n", ("train", "valid")),
    ],
)
def test_bad_text_is_refused(acorn, tmp_path: Path, name: str, content: bytes, parts: tuple[str, ...]) -> None:
    """Faults 1, 8, 9 and 10."""
    (tmp_path / name).write_bytes(content)
    done = acorn("tokenizer", "train", "--vocab-size", 300, "--input", tmp_path / name, "--out", tmp_path / "t.json")
    refused(done, 3, *parts, "fix:")
    assert not (tmp_path / "t.json").exists()


def test_a_source_that_matches_no_file_is_refused(acorn, tmp_path: Path) -> None:
    """Fault 15."""
    done = acorn("pretrain", "small", f"data.source={tmp_path}/*.txt", "--out", tmp_path / "run")
    refused(done, 3, "*.txt", "fix:")


def test_the_message_about_a_small_vocabulary_names_the_minimum(acorn, tmp_path: Path, text_file: Path) -> None:
    """Fault 2."""
    done = acorn("tokenizer", "train", "--vocab-size", 100, "--input", text_file, "--out", tmp_path / "t.json")
    refused(done, 2, "273")  # 256 bytes, the separator and 16 reserved entries


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--temperature", "-1"), "temperature"),
        (("--temperature", "nan"), "temperature"),
        (("--top-p", "0"), "top_p"),
        (("--top-p", "1.5"), "top_p"),
        (("--min-p", "1"), "min_p"),
        (("--max-new-tokens", "0"), "max_new_tokens"),
        (("--precision", "int3"), "int3"),
        (("--device", "abacus"), "abacus"),
        (("--device", "cuda"), "cuda"),
        (("--prompt", "word " * 100, "--strict"), "context"),
    ],
)
def test_invalid_generation_settings_are_refused(acorn, run: Path, arguments: tuple[str, ...], part: str) -> None:
    """Faults 53 and 55."""
    refused(acorn("generate", run, *arguments), 2, part)


def test_a_long_prompt_is_cut_with_a_note(acorn, run: Path) -> None:
    """Fault 53; and fault 54, an empty prompt."""
    done = acorn("generate", run, "--prompt", "word " * 100, "--max-new-tokens", 2)
    assert done.returncode == 0
    assert "context" in done.stderr
    assert acorn("generate", run, "--prompt", "", "--max-new-tokens", 2).returncode == 0


def test_evaluate_refuses_invalid_arguments(acorn, run: Path, tmp_path: Path) -> None:
    refused(acorn("evaluate", run, "--split", "test"), 2, "The run has no test text.", "--input FILE")
    refused(acorn("evaluate", run, "--split", "tests"), 2, "choose one of train, valid")
    refused(acorn("evaluate", run, "--context", 33), 2, "context")
    refused(acorn("evaluate", run / "final", "--input", run / "nothing.txt"), 3, "nothing.txt")
    (tmp_path / "empty.txt").write_text("")
    refused(acorn("evaluate", run, "--input", tmp_path / "empty.txt"), 3, f"where: --input: {tmp_path / 'empty.txt'}")


def test_a_pickle_is_refused_without_opening_it(acorn, tmp_path: Path) -> None:
    """Fault 44."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    done = acorn("generate", folder, cwd=tmp_path)
    assert done.returncode in (3, 4)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "pwned").exists()


def test_debug_shows_the_traceback(acorn) -> None:
    done = acorn("evaluate", "nowhere", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_text_file_given_as_config_is_refused(acorn, text_file: Path, tmp_path: Path) -> None:
    refused(
        acorn("pretrain", text_file, cwd=tmp_path), 2, "not a config", f"acorn pretrain small data.source={text_file}"
    )


def test_a_refused_run_leaves_no_folder(acorn, tmp_path: Path) -> None:
    done = acorn("pretrain", "small", f"data.source={tmp_path}/missing.txt", "--out", tmp_path / "run")
    refused(done, 3, "missing.txt")
    assert list(tmp_path.iterdir()) == []
