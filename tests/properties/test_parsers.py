"""For any file content, acorn's parsers return a value or one kind of error, and do not allocate memory by its claims.

The files are random, or of the right form with wrong values, or valid ones that were cut, flipped, repeated. Where a
folder has a manifest, it is also made again to fit: whoever changes a file on purpose can compute checksums too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from acorn.checkpoint.integrity import checkpoint_faults, model_faults, verify_run
from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import read_model_folder, write_model_folder
from acorn.checkpoint.training_state import Counters, read_checkpoint, restore, save_checkpoint
from acorn.config import Config, DataConfig, ModelConfig
from acorn.config_files import load_config, to_toml
from acorn.data.prepare import prepare
from acorn.data.token_shards import SplitCount, TokenShards, verify
from acorn.errors import AcornError, DamageError
from acorn.evaluate.validation import evaluate_split
from acorn.files import seal, sha256_of
from acorn.folders import verify_folder
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.report.html import write_report
from acorn.report.metrics_log import read_metrics, read_samples
from acorn.report.run_facts import read_run
from acorn.run_folder import MANIFEST, RunFolder
from acorn.runtime.choose import runtime_for_inference
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

TEXT = "".join(f"Number {n} is a number that comes after {n - 1}.\n\n" for n in range(1, 60))
STEP = "run/checkpoints/step-00000003"
EXIT_CODES = (2, 3, 4)
ADDRESS_SPACE_BYTES = 1 << 30  # bytes of address space beyond the process's: far more than any file here needs
FIXED_BYTES, BYTES_PER_INPUT_BYTE = 8 << 20, 100  # bytes that a parser may allocate, and per byte of its input

# --- the valid files


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: [TEXT], "bpe", 280)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """One folder of each kind, as acorn writes it."""
    root = tmp_path_factory.mktemp("whole")
    (root / "a.txt").write_text(TEXT)
    (root / "b.txt").write_text(TEXT[:200])
    splits = TextSplits.open(DataConfig(source=(str(root / "a.txt"),), valid_source=(str(root / "b.txt"),)))
    prepare(splits, tokenizer, root / "shards", shard_tokens=300)
    shapes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "block_size": 16, "vocab_size": tokenizer.vocab_size}
    models = {}
    for kind in ("modern", "gpt2"):
        models[kind] = GPT(ModelConfig.model_validate({"architecture": kind, **shapes}))
        models[kind].init_weights(0)
        write_model_folder(root / kind, models[kind], tokenizer, "card")
    head = HeadSpec("class", 2)
    classifier = GPT(ModelConfig.model_validate({"architecture": "modern", **shapes}), head=head)
    classifier.init_weights(0)
    write_model_folder(root / "classifier", classifier, tokenizer, "card", labels=["a", "b"])
    (root / "foreign").mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(root / "gpt2" / name, root / "foreign")
    shutil.copy(root / "gpt2/model.safetensors", root / "foreign/model-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(["transformer.wte.weight"], "model-00001.safetensors")}
    (root / "foreign/model.safetensors.index.json").write_text(json.dumps(index))

    run = RunFolder(root / "run")
    model, config = models["modern"], Config(model=models["modern"].config)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))[0].backward()
    optimizer.step()
    counters = Counters(step=3, samples=12, tokens=192)
    save_checkpoint(run.checkpoint(3), config, tokenizer.to_json(), model, [optimizer], counters, {"threads": 1})
    run.config.write_text(to_toml(config))
    run.best.write_text('{"step": 3, "loss": 1.5}')
    run.environment.write_text('{"torch": "2", "windows_per_rank": {"0": 5}}')
    train_line = {"step": 1, "tokens": 64, "epoch": 0.5, "seconds": 1.5, "split": "train", "loss": 5.5, "lr": 0.1}
    valid_line = {"step": 2, "tokens": 128, "seconds": 2.5, "split": "valid", "loss": 5.0, "bits_per_byte": 2.0}
    run.metrics.write_text(json.dumps(train_line) + "\n" + json.dumps(valid_line) + "\n")
    run.samples.write_text('{"step": 1, "prompt": "a", "text": "a b"}\n' * 2)
    figures = {"loss_per_token": 5.0, "bits_per_byte": 2.0, "word_perplexity": 100.0, "unknown_rate": 0.0}
    run.evaluation.write_text(json.dumps({"step": 3, "valid": figures}))
    shutil.copytree(root / "shards", run.data)
    return root


# --- damage

LITERALS = [
    *(None, True, False, 0, 1, -1, 2000, 2**31, 2**63, 10**12, 10**30, -(10**30), 10**400, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf"), "", "1", "..", ".", "../up", "/etc/hostname", "a\x00b", "\ud800"),
    *("x" * 300, "y" * 5000, "manifest.json", [], {}, [[]], {"": None}, ["a", 1], {"files": {}}),
]
literals = st.one_of(st.sampled_from(LITERALS), st.integers(), st.floats(), st.text(max_size=10))
values = st.recursive(
    literals,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
edits = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "repeat"]), st.integers(0, 1 << 30), st.binary(max_size=8)),
    min_size=1,
    max_size=3,
)
changes = st.lists(
    st.tuples(st.sampled_from(["replace", "remove", "add"]), st.integers(0, 1 << 30), values), min_size=1, max_size=3
)
damages = st.one_of(
    st.tuples(st.just("change"), changes),
    st.tuples(st.just("change"), changes),
    st.tuples(st.just("edit"), edits),
    st.tuples(st.just("bytes"), st.binary(max_size=100)),
    st.tuples(st.just("value"), values),
    st.tuples(st.just("nest"), st.sampled_from([40, 900, 100_000])),
    st.tuples(st.just("twice"), values),
)
Damage = tuple[str, Any]


def damaged(content: bytes, damage: Damage, name: str) -> bytes:
    """`content` after `damage`; changes inside its JSON keep the surrounding file format valid."""
    how, what = damage
    if how == "bytes":
        return what
    if how == "edit":
        return edited(content, what)
    if name.endswith(".toml"):
        return toml_damaged(content, how, what)
    if name.endswith(".safetensors"):
        size = int.from_bytes(content[:8], "little")
        header = damaged(content[8 : 8 + size], damage, "header.json")
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    if name.endswith(".jsonl"):
        first, _, rest = content.partition(b"\n")
        return damaged(first, damage, "line.json") + b"\n" + rest
    if name.endswith(".bin"):
        return edited(content, [("repeat", len(repr(what)), b"\xff\xff")])
    if how == "value":
        return json.dumps(what).encode()
    if how == "nest":
        return b"[" * what + b"]" * what
    if how == "twice":  # the second of two equal keys applies, and it may be either
        key = next(iter(json.loads(content)))
        member = f"{json.dumps(key)}: {json.dumps(what)}".encode()
        return b"{" + member + b"," + content.strip()[1:-1] + b"," + member + b"}"
    value = json.loads(content)
    for change in what:
        value = changed(value, *change)
    return json.dumps(value).encode()


def edited(content: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    for how, number, more in steps:
        place = number % (len(content) + 1)
        if how == "flip":
            flipped = bytes(byte ^ 1 << number % 8 for byte in content[place : place + 1])
            content = content[:place] + flipped + content[place + 1 :]
        elif how == "cut":
            content = content[:place]
        elif how == "insert":
            content = content[:place] + more + content[place:]
        else:
            content = content[:place] + content[place : place + 40] * 2 + content[place + 40 :]
    return content


def changed(value: Any, how: str, number: int, new: Any) -> Any:
    """`value` with one of its parts replaced or removed, or a key or item added. Large tables count as one part."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        inside = waiting.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        for key in keys if len(keys) <= 30 else list(keys)[:3]:
            places.append((inside, key))
            if isinstance(inside[key], dict | list):
                waiting.append(inside[key])
    if not places:
        return new
    inside, key = places[number % len(places)]
    if how == "replace":
        inside[key] = new
    elif how == "remove":
        del inside[key]
    elif isinstance(inside, dict):
        inside[str(new)[:50]] = new
    else:
        inside.insert(key, new)
    return value


def toml_damaged(content: bytes, how: str, what: Any) -> bytes:
    if how == "nest":
        return b"a = " + b"[" * what
    lines = content.split(b"\n")
    for change in what if how == "change" else [("replace", 7, what)]:
        kind, number, new = change
        settings_ = [place for place, line in enumerate(lines) if b" = " in line and not line.startswith(b"#")]
        place = settings_[number % len(settings_)]
        literal = json.dumps(new).encode()  # also TOML, except null and NaN, which must be refused
        if kind == "replace":
            lines[place] = lines[place].partition(b" = ")[0] + b" = " + literal
        elif kind == "remove":
            lines[place] = b""
        else:
            lines.insert(place, b"more = " + literal)
    return b"\n".join(lines)


# --- requirements for a parser


@contextlib.contextmanager
def little_room() -> Iterator[None]:
    """Allocating memory by a file's claims fails inside. No limit on systems without RLIMIT_AS."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def tried(action: Callable[[], object]) -> AcornError | None:
    """Runs `action`, which may fail with an expected error; others propagate."""
    try:
        with little_room():
            action()
    except AcornError as error:
        if error.exit_code not in EXIT_CODES:
            raise
        return error
    return None


@contextlib.contextmanager
def with_damage(file: Path, content: bytes, manifest: str) -> Iterator[None]:
    """Inside: the file with other content, and the manifest "as it was", "made to fit" or "gone"; restored
    afterwards."""
    kept = {path: path.read_bytes() for path in (file, file.parent / MANIFEST) if path.exists()}
    try:
        file.write_bytes(content)
        if manifest == "gone":
            (file.parent / MANIFEST).unlink(missing_ok=True)
        elif manifest == "made to fit":
            fit(file)
        yield
    finally:
        for path, before in kept.items():
            path.write_bytes(before)


def fit(file: Path) -> None:
    """Updates the manifest of the file's folder to its current content."""
    path = file.parent / MANIFEST
    if not path.exists():
        return
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if not isinstance(manifest, dict):
        return
    if file != path:
        manifest["files"][file.name] = {"sha256": sha256_of(file), "bytes": file.stat().st_size}
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate has no digest
        manifest = seal({key: value for key, value in manifest.items() if key != "manifest_sha256"})
    path.write_text(json.dumps(manifest))


def counted(shards: TokenShards, split: str) -> SplitCount:
    count = shards.count(split)
    assert all(type(n) is int and n >= 0 for n in dataclasses.astuple(count)), count
    return count


def use_shards(folder: Path) -> None:
    """Opens and reads a folder of shards as the commands do."""
    assert all(isinstance(fault, str) for fault in [*verify_folder(folder), *verify(folder)])
    for check in (False, True):
        shards = TokenShards.open(folder, check=check)
        shards.tokenizer()
        for split in shards.splits:
            assert len(shards.tokens(split)[:]) == counted(shards, split).tokens
        assert type(shards.manifest["tokenizer"]["separator_id"]) is int


def typed_counters(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    defaults = dataclasses.asdict(Counters())
    for name, value in dataclasses.asdict(checkpoint.counters).items():
        kinds = (int, float, type(None)) if defaults[name] is None else (type(defaults[name]), int)
        assert isinstance(value, kinds), name
    assert isinstance(checkpoint.resolved, dict)


def use_checkpoint(folder: Path) -> None:
    faults = checkpoint_faults(folder)
    assert all(isinstance(fault, str) for fault in faults)
    verify_run(folder)
    typed_counters(folder)
    load(folder)


def use_model(folder: Path) -> None:
    assert all(isinstance(fault, str) for fault in model_faults(folder))
    read_model_folder(folder)
    load(folder)


def use_run(folder: Path) -> None:
    run = RunFolder(folder)
    for reader in (lambda: read_metrics(run.metrics), lambda: read_samples(run.samples), lambda: load(folder, "best")):
        tried(reader)
    write_report(folder)


USES = {"shards": use_shards, "checkpoint": use_checkpoint, "model": use_model, "run": use_run}
PLACES = {
    "shards": ["shards/manifest.json", "shards/train-00000.bin", "shards/tokenizer.json"],
    "checkpoint": [
        f"{STEP}/{name}"
        for name in ("manifest.json", "state.json", "config.toml", "tokenizer.json", "model.safetensors")
    ]
    + [f"{STEP}/optimizer.safetensors"],
    "model": [
        *(f"modern/{name}" for name in ("manifest.json", "config.json", "tokenizer.json", "model.safetensors")),
        *("gpt2/config.json", "gpt2/model.safetensors", "gpt2/generation_config.json"),
        *("classifier/config.json", "foreign/model.safetensors.index.json", "foreign/model-00001.safetensors"),
    ],
    "run": [
        *("run/config.toml", "run/metrics.jsonl", "run/samples.jsonl", "run/evaluation.json", "run/environment.json"),
        *("run/data/manifest.json", "run/checkpoints/best.json"),
    ],
}


@pytest.mark.parametrize(("use", "place"), [(use, place) for use, places in PLACES.items() for place in places])
@settings(max_examples=25)
@given(damage=damages, manifest=st.sampled_from(["made to fit", "made to fit", "made to fit", "as it was", "gone"]))
def test_any_file_content_gives_a_value_or_one_kind_of_error(
    whole: Path, use: str, place: str, damage: Damage, manifest: str
) -> None:
    file = whole / place
    folder = whole / "run" if use == "run" else file.parent
    with with_damage(file, damaged(file.read_bytes(), damage, file.name), manifest):
        tried(lambda: USES[use](folder))


ODD = [None, True, 1.5, float("inf"), -1, 10**30, "", "5", "x" * 300, "..", "a\x00b", [], {}]


def check_shards(folder: Path) -> None:
    shards = TokenShards.open(folder, check=True)
    for split in shards.splits:
        counted(shards, split)


@pytest.mark.parametrize(
    ("place", "use"),
    [
        ("shards/manifest.json", check_shards),
        (f"{STEP}/manifest.json", verify_folder),
        (f"{STEP}/state.json", typed_counters),
        ("modern/manifest.json", read_model_folder),
        ("modern/config.json", read_model_folder),
        ("gpt2/config.json", read_model_folder),
        ("gpt2/generation_config.json", read_model_folder),
        ("classifier/config.json", read_model_folder),
    ],
)
def test_each_value_replaced_by_an_unusual_one(whole: Path, place: str, use: Callable[[Path], object]) -> None:
    """And each key; all failures are listed together."""
    file = whole / place
    before = json.loads(file.read_bytes())
    faults = []
    for keys in [keys for keys in paths_of(before) if set(keys).isdisjoint(NOT_READ)]:
        contents = [(f"{keys} = {str(odd)[:20]!r}", replaced(before, keys, odd)) for odd in ODD]
        contents += [(f"{keys} named {odd[:20]!r}", renamed(before, keys, odd)) for odd in ODD if isinstance(odd, str)]
        for what, content in contents:
            with with_damage(file, json.dumps(content).encode(), "made to fit"):
                try:
                    tried(lambda: use(file.parent))
                except Exception as error:
                    faults.append(f"{what}: {type(error).__name__}: {error}"[:200])
    assert not faults, "\n".join(faults)


NOT_READ = {"text", "tokenizer_report", "valid", "valid-00000.bin", 1, "README.md", "generation_config.json"}
"""Parts of a manifest without a meaning for the shards, or equivalent to another."""


def paths_of(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path of keys of each part of `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield (key,)
        yield from ((key, *rest) for rest in paths_of(inside))


def replaced(value: Any, keys: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in keys[:-1]:
        inside = inside[key]
    inside[keys[-1]] = new
    return copy


def renamed(value: Any, keys: tuple[Any, ...], new: str) -> Any:
    """`value` without the last key or item of the path; and with it under another name."""
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in keys[:-1]:
        inside = inside[key]
    kept = inside.pop(keys[-1])
    if isinstance(inside, dict):
        inside[new] = kept
    return copy


@settings(max_examples=150)
@given(st.one_of(st.text(max_size=60), st.tuples(st.sampled_from(LITERALS), st.text(max_size=5)).map(repr)))
@example("[" * 100_000)
@example("train.steps = 0x" + "f" * 5000)
@example("a" + ".a" * 3000 + " = 1")
def test_config_files_of_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(text.encode())
    tried(lambda: to_toml(load_config(path)).encode())


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(codec=None), max_size=20),
            st.tuples(
                st.sampled_from(["data.source", "model.n_embd", "train.steps", "name", "optimizer.lr", "train", "x.y"]),
                st.sampled_from(LITERALS),
            ).map(lambda pair: f"{pair[0]}={pair[1]}"),
        ),
        max_size=3,
    )
)
@example(["train.steps=" + "1" * 5000])
@example(["train.steps=0x" + "f" * 5000])
@example(["train.steps=" + "[" * 100_000])
@example(["data.source=\udcff"])
def test_overrides_of_any_text(overrides: list[str]) -> None:
    tried(lambda: to_toml(load_config(None, overrides)).encode())


@settings(max_examples=100)
@given(st.one_of(st.text(st.characters(codec=None), max_size=20), st.sampled_from(["a\x00b", "x" * 5000, "~nobody/x"])))
def test_names_of_any_text(name: str) -> None:
    """A name that no file can have counts as a missing file."""
    for action in (
        lambda: load_config(f"/nowhere/{name}"),
        lambda: Tokenizer.from_file(f"/nowhere/{name}"),
        lambda: TextSplits.open(DataConfig.model_construct(source=(f"/nowhere/{name}",))),
        lambda: TextSplits.open(DataConfig.model_construct(source=(f"hf:/nowhere/{name}",))),
        lambda: read_run(Path("/nowhere") / name),
        lambda: TokenShards.open(Path("/nowhere") / name),
        lambda: load(Path("/nowhere") / name),
    ):
        assert tried(action) is not None


@settings(max_examples=120)
@given(damage=damages)
def test_tokenizers_of_any_json(tokenizer: Tokenizer, damage: Damage) -> None:
    content = damaged(tokenizer.to_json().encode(), damage, "tokenizer.json")

    def use() -> None:
        read = Tokenizer.from_json(content.decode("utf-8", "replace"))
        for text in ("Number 5 is", "\u00e9\x00 <|endoftext|>", ""):
            (ids,) = read.encode_documents([text])
            read.decode(ids)
            read.decode(read.encode_prompt(text))
        read.transformers_config(16)

    tried(use)


@pytest.mark.parametrize(
    "claim",
    [
        *({"tokenizer_report": odd} for odd in ([], "a", {"valid": []})),
        *({"text": odd} for odd in (None, [], {"clean": 5})),
        *({"splits": odd} for odd in ({"bytes": 0}, {"words": 0}, {"documents": 0})),
    ],
)
def test_an_evaluation_of_unusual_shards(whole: Path, claim: dict[str, Any]) -> None:
    file = whole / "shards/manifest.json"
    manifest = json.loads(file.read_bytes())
    if "splits" in claim:
        manifest["splits"]["valid"] |= claim["splits"]
    else:
        manifest |= claim
    with with_damage(file, json.dumps(manifest).encode(), "made to fit"):
        tried(lambda: evaluated(whole))


def test_an_evaluation_of_ids_that_the_model_does_not_have(whole: Path) -> None:
    file = whole / "shards/valid-00000.bin"
    content = bytearray(file.read_bytes())
    content[6:8] = b"\xff\xff"
    with with_damage(file, bytes(content), "made to fit"):
        assert isinstance(tried(lambda: evaluated(whole)), DamageError)


def evaluated(whole: Path) -> None:
    loaded = load(whole / "modern")
    runtime = runtime_for_inference("cpu", "fp32")
    evaluate_split(loaded.model, loaded.tokenizer, TokenShards.open(whole / "shards"), "valid", runtime)


@pytest.mark.parametrize("name", ["model", "optimizer"])
@pytest.mark.parametrize("how", ["one row", "missing", "more", "integers"])
def test_a_run_does_not_resume_with_tensors_of_other_shapes(whole: Path, name: str, how: str) -> None:
    """Copying would broadcast one row over a matrix, and an optimizer's kernel would read out of bounds."""
    file = whole / STEP / f"{name}.safetensors"
    tensors = load_file(file)
    key = next(key for key in sorted(tensors) if tensors[key].ndim == 2)
    if how == "missing":
        del tensors[key]
    elif how == "more":
        tensors["another.weight"] = torch.zeros(2, 2)
    else:
        tensors[key] = tensors[key][:1].clone() if how == "one row" else tensors[key].to(torch.int32)
    model = GPT(load_config(whole / STEP / "config.toml").model)
    with with_damage(file, save(tensors, {"format": "pt"}), "made to fit"), pytest.raises(DamageError):
        restore(model, [torch.optim.AdamW(model.parameters())], read_checkpoint(file.parent))
    restore(model, [torch.optim.AdamW(model.parameters())], read_checkpoint(file.parent))


# --- claims


def peak_of(action: Callable[[], object]) -> int:
    """Peak bytes of Python and NumPy while `action` runs; tensors are limited by the address space."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        tried(action)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def size_of_folder(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("number", [2000, 10**12, float("inf")])
@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ("modern/config.json", ["num_hidden_layers", "vocab_size", "hidden_size", "max_position_embeddings"]),
        ("modern/config.json", ["num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size"]),
        ("gpt2/config.json", ["n_layer", "vocab_size", "n_embd", "n_positions", "n_head", "n_inner"]),
        ("classifier/config.json", ["num_labels", "id2label"]),
    ],
)
def test_claims_of_a_model_take_no_memory(whole: Path, place: str, keys: list[str], number: Any) -> None:
    file = whole / place
    for key in keys:
        claim = {**json.loads(file.read_bytes()), key: number}
        with with_damage(file, json.dumps(claim).encode(), "made to fit"):
            peak = peak_of(lambda: read_model_folder(file.parent))
        assert peak <= FIXED_BYTES + BYTES_PER_INPUT_BYTE * size_of_folder(file.parent), key


@pytest.mark.parametrize("number", ["2000", "1" + "0" * 12, "0x" + "f" * 40])
def test_claims_of_a_checkpoint_take_no_memory(whole: Path, number: str) -> None:
    file = whole / f"{STEP}/config.toml"
    for key in ("n_layer", "n_embd", "n_head", "block_size", "vocab_size", "batch_size", "steps"):
        lines = [f"{key} = {number}" if line.startswith(f"{key} = ") else line for line in file.read_text().split("\n")]
        with with_damage(file, "\n".join(lines).encode(), "made to fit"):
            peak = peak_of(lambda: load(file.parent))
        assert peak <= FIXED_BYTES + BYTES_PER_INPUT_BYTE * size_of_folder(file.parent), key


@pytest.mark.parametrize("number", [10**12, 10**30, float("inf")])
def test_counts_in_a_manifest_take_no_memory(whole: Path, number: Any) -> None:
    """Each number of the manifest in turn, with matching sums."""
    file = whole / "shards/manifest.json"
    for key in ("tokens", "documents", "bytes", "separator_id", "vocab_size"):
        manifest = json.loads(file.read_bytes())
        split = manifest["splits"]["train"]
        if key in manifest["tokenizer"]:
            manifest["tokenizer"][key] = number
        else:
            split[key] = number
        if key == "tokens":
            split["shards"] = [{**split["shards"][0], "tokens": number}]
        if key == "bytes":
            manifest["files"]["train-00000.bin"]["bytes"] = number
        with with_damage(file, json.dumps(manifest).encode(), "made to fit"):
            peak = peak_of(lambda: use_shards(file.parent))
        assert peak <= FIXED_BYTES + BYTES_PER_INPUT_BYTE * size_of_folder(file.parent), key


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
        {"dtype": "F32", "shape": [10**12, 10**12], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0, 10**18], "data_offsets": [0, 0]},
        {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "U64", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]},
        {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]},
    ],
)
def test_shapes_in_a_weights_file_take_no_memory(whole: Path, entry: dict[str, Any]) -> None:
    header = json.dumps({"model.norm.weight": entry}).encode()
    size = min(entry["data_offsets"][1], 8)
    contents = [len(header).to_bytes(8, "little") + header + bytes(size), (1 << 62).to_bytes(8, "little") + header]
    for place in ("modern/model.safetensors", f"{STEP}/optimizer.safetensors"):
        for content in contents:
            with with_damage(whole / place, content, "made to fit"):
                peak = peak_of(lambda: (use_model if "modern" in place else use_checkpoint)((whole / place).parent))  # noqa: B023 - called immediately
            assert peak <= FIXED_BYTES + BYTES_PER_INPUT_BYTE * size_of_folder(whole / "modern")


@pytest.mark.parametrize("claimed", [3_000_000, 4_000_000_000])
def test_ids_in_a_tokenizer_take_no_memory(tokenizer: Tokenizer, claimed: int) -> None:
    spec = json.loads(tokenizer.to_json())
    spec["model"]["vocab"]["zzz"] = claimed
    assert peak_of(lambda: Tokenizer.from_json(json.dumps(spec))) <= FIXED_BYTES
