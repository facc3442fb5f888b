"""The model card: read back by the Hub's own library, and its figures are those of the run."""

from __future__ import annotations

import dataclasses
import re

import huggingface_hub
import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results
from network_switches import variants

from acorn.checkpoint.card_parts import with_provenance
from acorn.checkpoint.model_card import CardFacts, write_card
from acorn.config import ModelConfig
from acorn.origin import Base

EVALUATION = {
    "split": "test",
    "loss_per_token": 3.912345678,
    "perplexity_per_token": 50.01617,
    "bits_per_byte": 1.6123456,
    "word_perplexity": None,
    "tokens": 300_123,
    "bytes": 1_256_449,
    "words": 245_569,
    "documents": 4358,
    "context": 256,
    "stride": 128,
    "precision": "fp32",
    "bits_per_byte_note": "The tokenizer is not lossless: this scores normalized text.",
    "word_perplexity_note": "Cleaning changed the words.",
}
FACTS = CardFacts(
    name="demo",
    config=ModelConfig(vocab_size=8192, n_kv_head=2, block_size=256),
    parameters=6_123_456,
    tokenizer_kind="wordpiece",
    lossless=False,
    sources=("bundled:wikitext-2",),
    documents=23_767,
    tokens=2_500_000,
    words=2_088_628,
    bytes=10_797_148,
    steps=1234,
    tokens_seen=5_054_464,
    recipe={"optimizer": "muon", "peak learning rate": 0.02, "precision": "bf16", "seed": 0},
    evaluations=(EVALUATION,),
)


def metadata(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def changed(**changes: object) -> CardFacts:
    return dataclasses.replace(FACTS, **changes)


def test_the_hub_reads_the_metadata() -> None:
    data = huggingface_hub.ModelCard(write_card(FACTS)).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.datasets == ["Salesforce/wikitext"]
    assert data.tags == ["acorn", "qwen3", "from-scratch"]
    assert data.language is None
    results = {result.metric_type: result for result in data.eval_results}
    assert {kind: result.metric_value for kind, result in results.items()} == {
        "loss": 3.9123,
        "perplexity": 50.016,
        "bits_per_byte": 1.6123,
    }
    assert results["loss"].dataset_split == "test"
    assert results["loss"].dataset_type == "Salesforce/wikitext"


def test_without_evaluations_there_is_no_model_index() -> None:
    card = write_card(changed(evaluations=()))
    assert "model-index" not in metadata(card)
    assert "No split was evaluated." in card


def test_metrics_are_shown_with_their_conditions() -> None:
    card = write_card(FACTS)
    for cell in (
        "| Context (tokens) | 256 |",
        "| Stride (tokens) | 128 |",
        "| Tokens (separators included) | 300,123 |",
    ):
        assert cell in card
    assert EVALUATION["bits_per_byte_note"] in card
    assert "| Word perplexity" not in card
    assert EVALUATION["word_perplexity_note"] in card


@pytest.mark.parametrize(
    ("clean", "lossless", "beside"),
    [
        ("none", True, ""),
        ("wikitext", True, ": cleaned text, not comparable with published figures"),
        ("none", False, ": normalized text, not comparable with published figures"),
        ("wikitext", False, ": cleaned and normalized text, not comparable with published figures"),
    ],
)
def test_metrics_of_altered_text_have_a_note_beside_each(clean: str, lossless: bool, beside: str) -> None:
    """In the table and in what the Hub shows, whose leaderboards compare figures by their names."""
    card = write_card(changed(clean=clean, lossless=lossless))
    assert f"| Bits per byte{beside} | 1.6123 |" in card
    assert f"| Loss (nats per token){beside} | 3.9123 |" in card
    names = [result.metric_name for result in huggingface_hub.ModelCard(card).data.eval_results]
    assert f"Bits per byte{beside}" in names
    assert all(name.endswith(beside) for name in names)
    assert f"| cleaning | {clean} |" in card


def test_a_rounded_figure_has_no_decimal_that_was_not_measured() -> None:
    """Whole digits from five on; YAML still reads each as the number it is."""
    told = {"loss_per_token": 3.0, "perplexity_per_token": 1e20, "bits_per_byte": 0.00001, "word_perplexity": 14311.97}
    card = write_card(changed(evaluations=({**EVALUATION, **told},), recipe={"peak learning rate": 2.0}, lossless=True))
    for row in ("Word perplexity | 14,312", "Loss (nats per token) | 3", "Perplexity per token | 1e+20"):
        assert f"| {row} |" in card
    assert "| peak learning rate | 2 |" in card
    assert "| dropout in training | 0 |" in card
    assert not re.search(r"\.0 \||: \d+\.0$", card, re.MULTILINE)
    metrics = metadata(card)["model-index"][0]["results"][0]["metrics"]
    assert [metric["value"] for metric in metrics] == [3, 1e20, 0.00001, 14312]


def test_limits_of_these_weights_come_first() -> None:
    card = write_card(changed(limits=("Validation loss had risen.",)))
    assert card.split("## Limits\n\n")[1].startswith("- Validation loss had risen.\n- It knows only its")


def test_the_card_says_where_its_title_comes_from() -> None:
    assert "| config | `demo` (`name` in the config) |" in write_card(FACTS)


def test_data_and_architecture_are_described() -> None:
    card = write_card(FACTS)
    for cell in (
        "| parameters | 6,123,456 |",
        "| key and value heads | 2 |",
        "| context | 256 tokens |",
        "| words (each line end counts as one) | 2,088,628 |",
        "| epochs | 2.0218 |",
        "| optimizer | muon |",
    ):
        assert cell in card
    assert "CC BY-SA 3.0" in card
    assert "acorn generate" in card
    assert 'pipeline("text-generation"' in card


def test_every_setting_of_the_network_is_described() -> None:
    for parameter in variants():
        cards = [write_card(changed(config=config)) for config in parameter.values]
        assert cards[0] != cards[1], f"checkpoint/card_parts.py: architecture does not tell {parameter.id}"


@pytest.mark.parametrize(
    ("sources", "license", "said"),
    [
        (("hf:Salesforce/wikitext:wikitext-103-v1",), "", "CC BY-SA 3.0"),
        (("bundled:wikitext-2", "my/*.txt"), "", "not stated"),
        (("my/*.txt",), "public domain", "public domain"),
        ((), "", "not stated"),
    ],
)
def test_the_license_is_never_guessed(sources: tuple[str, ...], license: str, said: str) -> None:
    card = write_card(changed(sources=sources, license=license))
    row = next(line for line in card.splitlines() if line.startswith("| license"))
    assert said in row


@pytest.mark.parametrize(
    "source", ["my/*.txt", "C:\\texts", "/data/a.jsonl", "hf:./local", "in/chat 12:30.txt", "hf:/data/x/y"]
)
def test_a_file_is_not_called_a_hub_dataset(source: str) -> None:
    assert "datasets" not in metadata(write_card(changed(sources=(source,))))


def test_a_model_trained_from_scratch_names_no_base() -> None:
    card = write_card(FACTS)
    assert "trained from scratch" in card
    assert "Base model" not in card
    assert "base_model" not in metadata(card)


def test_a_model_trained_further_names_its_bases() -> None:
    """The Hub takes a repository as `base_model`, so it is the nearest one that is published."""
    run = Base("mine", "run", "step 20", text="`my.txt` (license not stated)")
    hub = Base("me/model", "hub", "revision 0123", "apache-2.0")
    card = write_card(changed(bases=(run, hub)))
    data = huggingface_hub.ModelCard(card).data
    assert "scratch" not in card
    assert (data.base_model, data.base_model_relation) == ("me/model", "finetune")
    assert "from-scratch" not in data.tags
    assert "the run `mine` (step 20), trained further with acorn on `bundled:wikitext-2`" in card
    rows = [line for line in card.splitlines() if line.startswith(("| the run", "| [`me"))]
    assert rows == [
        "| the run `mine` (step 20) | not stated; see the source | `my.txt` (license not stated) |",
        "| [`me/model`](https://huggingface.co/me/model) (revision 0123) | apache-2.0 "
        "| unknown; see its own model card |",
    ]
    assert "and that of its base" in card


def test_only_bases_on_the_hub_become_base_model_in_the_metadata() -> None:
    card = write_card(changed(bases=(Base("theirs", "folder"),)))
    assert "base_model" not in metadata(card)
    assert "the model folder `theirs`, trained further" in card
    assert "from-scratch" not in metadata(card)["tags"]


def test_cards_contain_no_path_of_this_machine() -> None:
    card = write_card(changed(sources=("/home/jane/2024.txt", "../jane/b.txt", "hf:/home/jane/c")))
    assert "jane" not in card
    assert "2024.txt" in card


def test_odd_names_do_not_break_the_metadata() -> None:
    name = 'a "quoted": name\nwith #, é, 🙂, \x7f, \x85, \u2028 and | in it'
    card = write_card(changed(name=name, sources=('we"ird|/*.txt',)))
    index = metadata(card)["model-index"]
    assert index[0]["name"] == name
    assert model_index_to_eval_results(index)[1][0].dataset_name == 'we"ird|/*.txt'


def test_equal_facts_give_an_equal_card() -> None:
    assert write_card(FACTS) == write_card(dataclasses.replace(FACTS))


@pytest.mark.parametrize("architecture", ["original", "gpt2"])
def test_limits_follow_the_model(architecture: str) -> None:
    config = ModelConfig(architecture=architecture, tied=architecture == "gpt2", vocab_size=10, block_size=128)
    card = write_card(changed(config=config, lossless=True))
    assert "no positions beyond 128 tokens" in card
    assert "no positions beyond" not in write_card(FACTS)
    assert "drops accents" not in card
    assert "drops accents" in write_card(FACTS)
    assert metadata(card)["tags"] == ["acorn", "gpt2", "from-scratch"]


def test_the_metadata_contain_the_provenance() -> None:
    """A run that starts from the folder reads them, including strings that YAML could read as another type."""
    run = Base("2024", "run", "step 20", "no", 'on "this": #1\n- and | that')
    hub = Base("me/model", "hub", "revision 0123", "apache-2.0")
    told = metadata(write_card(changed(bases=(run, hub))))["acorn"]
    assert told == {
        "trained_on": "`bundled:wikitext-2` (CC BY-SA 3.0 (text from Wikipedia; Merity et al. 2016))",
        "starts_from": [dataclasses.asdict(run), dataclasses.asdict(hub)],
    }
    assert "starts_from" not in metadata(write_card(FACTS))["acorn"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("metadata_lines", ["license: mit\ntags:\n- a\n", ""])
def test_provenance_is_added_to_a_foreign_card_without_other_changes(metadata_lines: str, newline: str) -> None:
    base = Base("me/model", "hub", "revision 0123")
    card = f"---\n{metadata_lines}---\n# A card\n---\nacorn: no metadata\n".replace("\n", newline)
    once = with_provenance(card, "", [base])
    data = huggingface_hub.ModelCard(once).data.to_dict()
    assert data.pop("acorn") == {"starts_from": [dataclasses.asdict(base)]}
    assert data == (yaml.safe_load(metadata_lines) or {})
    assert once.endswith("# A card\n---\nacorn: no metadata\n".replace("\n", newline))
    again = with_provenance(once, "a text", [])  # in the place of what was there
    assert huggingface_hub.ModelCard(again).data.to_dict()["acorn"] == {"trained_on": "a text"}
    assert again.count("acorn:") == 2
    assert with_provenance(card, "", []) == card


def test_provenance_is_added_to_a_card_without_metadata() -> None:
    card = with_provenance("# A card\n", "a text", [])
    assert metadata(card) == {"acorn": {"trained_on": "a text"}}
    assert card.endswith("\n# A card\n")
    assert with_provenance("# A card\n", "", []) == "# A card\n"
