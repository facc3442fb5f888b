"""Names that may be published, and the models that a run started from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acorn.origin import Base, descent, hub_repository, is_repository, public_name, stored_bases, to_stored

CHAIN = (Base("b", "run", "step 5"), Base("me/model", "hub", "revision abc", "mit"), Base("old", "folder"))


@pytest.mark.parametrize(
    ("source", "repository"),
    [
        ("hf:me/model", "me/model"),
        ("hf:me/model:config-v1", "me/model"),
        ("hf:./local", ""),
        ("hf:../local", ""),
        ("hf:/data/me/local", ""),
        ("in/chat 12:30.txt", ""),
        ("bundled:wikitext-2", ""),
        ("C:\\texts\\a.txt", ""),
        ("", ""),
    ],
)
def test_only_hf_paths_name_a_repository(source: str, repository: str) -> None:
    assert hub_repository(source) == repository


def test_a_local_folder_in_the_hubs_layout_is_not_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me" / "texts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_repository("hf:me/texts") == hub_repository("hf:me/texts:config") == ""
    assert hub_repository("hf:me/other") == "me/other"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("my/*.txt", "my/*.txt"),
        ("in/chat 12:30.txt", "in/chat 12:30.txt"),
        ("hf:me/model:config", "hf:me/model:config"),
        ("bundled:wikitext-2", "bundled:wikitext-2"),
        ("/home/jane/diary/2024.txt", "2024.txt"),
        ("/home/jane/diary/", "diary"),
        ("~/diary/*.txt", "*.txt"),
        ("../../jane/2024.txt", "2024.txt"),
        ("hf:/home/jane/texts", "texts"),
        ("C:\\Users\\jane\\2024.txt", "2024.txt"),
        ("\\\\server\\jane\\2024.txt", "2024.txt"),
        ("..", "a folder"),
        ("/", "a folder"),
    ],
)
def test_a_local_path_is_shortened_to_its_last_part(source: str, name: str) -> None:
    assert public_name(source) == name


def test_a_chain_of_bases_is_one_sentence() -> None:
    assert descent(CHAIN) == (
        "the run b (step 5), which started from me/model (revision abc), which started from the model folder old"
    )
    assert descent(()) == ""


def test_stored_bases_are_read_back() -> None:
    assert stored_bases(json.loads(json.dumps(to_stored(CHAIN))), "runs/b") == CHAIN
    assert to_stored(()) == {}
    assert stored_bases({}, "") == ()


@pytest.mark.parametrize("stored", [{}, {"starts_from": 3}, {"starts_from": [{"name": "x"}, None, 7]}])
def test_without_stored_bases_the_setting_is_used(stored: dict[str, object]) -> None:
    """In runs of earlier versions, or after a file was edited."""
    assert stored_bases(stored, "hf:me/model") == (Base("me/model", "hub"),)
    assert stored_bases(stored, "/home/jane/models/mine") == (Base("mine", "folder"),)


def test_names_of_repositories_are_recognized() -> None:
    assert is_repository("me/model-1.0_b")
    assert not any(map(is_repository, ("model", "a/b/c", "/home/me", "me/", "own er/name")))
