"""An export is equal to the trained model, or is removed; checked in the runtimes if they are installed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import jinja2
import pytest
import torch
import transformers
from other_models import make_model

from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import fill_model_folder, write_model_folder
from acorn.errors import DamageError, InputError, UsageError
from acorn.export import export as module
from acorn.export.export import GGUF_FILE, export
from acorn.export.runtimes import Answer, Question, Runtime
from acorn.folders import verify_folder
from acorn.model.gpt import GPT
from acorn.tokenizer.chat_format import TEMPLATE
from acorn.tokenizer.tokenizer import Tokenizer

Folder = Callable[..., Path]


def parameters(path: Path) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in load(path).model.named_parameters()}


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_llama_cpp_loads_and_agrees_with_the_export(
    folder: Folder, tmp_path: Path, architecture: str, dtype: str
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python takes minutes to build; extra `llama`")
    out = tmp_path / "out"
    parity = export(folder(architecture), out, "gguf", dtype).parity
    assert parity.runtime_version
    assert parity.tokens_by == f"llama.cpp {parity.runtime_version}"
    assert (parity.lines_equal, parity.strings_equal) == (2000, 200)
    assert parity.logit_positions == 4 * 64
    assert parity.greedy_tokens == 200
    assert (parity.weight_difference == 0) == (dtype == "f32")
    if dtype == "f32":
        assert parity.greedy_equal == 200
        assert parity.likeliest_agreement == 1
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "manifest.json", "model.gguf", "parity.json"]
    assert json.loads((out / "parity.json").read_text()) == dataclasses.asdict(parity)
    assert not verify_folder(out)


@pytest.mark.parametrize(("architecture", "dtype"), [("original", "f32"), ("modern", "bf16")])
def test_transformers_loads_and_agrees_with_the_export(
    folder: Folder, tmp_path: Path, architecture: str, dtype: str
) -> None:
    parity = export(folder(architecture), tmp_path / "out", "hf", dtype).parity
    assert parity.runtime_version
    assert (parity.lines_equal, parity.strings_equal) == (2000, 200)
    assert parity.logit_difference is not None
    assert parity.logit_difference < (1e-4 if dtype == "f32" else 0.5)
    assert parity.greedy_tokens == 200
    if dtype == "f32":
        assert parity.greedy_equal == 200


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_a_hugging_face_export_reads_back_equal(folder: Folder, tmp_path: Path, architecture: str) -> None:
    source = folder(architecture)
    for dtype, kind in [("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)]:
        out = tmp_path / dtype
        parity = export(source, out, "hf", dtype).parity
        back = parameters(out)
        largest = 0.0
        for name, weight in parameters(source).items():
            assert torch.equal(back[name], weight.to(kind).float()), name
            largest = max(largest, float((back[name] - weight).abs().max()))
        assert parity.weight_difference == largest
        assert json.loads((out / "config.json").read_text())["dtype"] == str(kind).removeprefix("torch.")
        assert (out / "README.md").read_text() == "---\nlicense: mit\n---\n# card"
        assert not verify_folder(out)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_nothing_is_claimed_for_a_runtime_that_is_not_installed(folder: Folder, tmp_path: Path, format: str) -> None:
    parity = export(folder("modern"), tmp_path / "out", format).parity
    assert parity.runtime_version is None
    assert f"'.[{'transformers' if format == 'hf' else 'llama'}]'" in (parity.runtime_note or "")
    assert parity.tokens_by == "the written file, read back"
    assert (parity.lines_equal, parity.strings_equal) == (2000, 200)
    assert parity.logit_difference is parity.greedy_equal is parity.kl_divergence is None


@pytest.mark.parametrize("wrong", ["tokens", "logits", "crash"])
def test_an_export_that_fails_a_check_is_removed(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    source = folder("modern")
    before = set(tmp_path.iterdir())

    def ask(runtime: Runtime, model: Path, question: Question) -> Answer:
        assert model.exists()
        if wrong == "crash":
            raise DamageError("It crashed.", where="there", fix="thus")
        loaded = load(source)
        tokens = [loaded.tokenizer.encode_prompt(text) for text in question.texts]
        with torch.no_grad():
            logits = [loaded.model(torch.tensor([window]))[0] for window in question.windows]
        if wrong == "tokens":
            tokens[5] = tokens[6]
        else:
            logits[1] = logits[1].roll(1, 0)
        return Answer("1.0", tokens, logits, [ids for _, ids in question.continuations])

    monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(Runtime, "installed", True)
    for format in ("hf", "gguf"):
        with pytest.raises(DamageError):
            export(source, tmp_path / "out", format)
        assert set(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("no_runtime")
def test_large_weights_are_split_into_several_files(
    folder: Folder, tmp_path: Path, tokenizer: Tokenizer, build: Callable[..., GPT]
) -> None:
    source, out = folder("gpt2"), tmp_path / "out"
    export(source, out, "hf", "bf16", shard_bytes=50_000)
    files = sorted(file.name for file in out.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    # The embedding alone is larger than a file should be, and cannot be cut.
    assert all(file.stat().st_size < 60_000 for file in out.glob("*.safetensors") if file.name != files[0])
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * sum(weight.numel() for weight in parameters(source).values())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.arange(60)[None]
    with torch.no_grad():
        torch.testing.assert_close(load(out).model(ids), theirs(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("form", ["file", "config"])
def test_a_chat_template_is_exported(folder: Folder, tmp_path: Path, form: str) -> None:
    from transformers import AutoTokenizer

    source = folder("modern")
    template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    if form == "file":
        (source / "chat_template.jinja").write_text(template)
    else:
        config = json.loads((source / "tokenizer_config.json").read_text())
        (source / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    export(source, tmp_path / "hf", "hf")
    asked = [{"role": "user", "content": "Hello"}]
    written = AutoTokenizer.from_pretrained(tmp_path / "hf").apply_chat_template(asked, tokenize=False)
    assert written == "<|user|>Hello<|end|>"
    export(source, tmp_path / "gguf", "gguf")
    fields = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == template


@pytest.mark.usefixtures("no_runtime")
def test_a_gguf_files_template_has_no_tag_that_only_transformers_knows(folder: Folder, tmp_path: Path) -> None:
    """llama-cpp-python fails at `{% generation %}`."""
    source = folder("modern")
    (source / "chat_template.jinja").write_text(TEMPLATE)
    export(source, tmp_path / "gguf", "gguf")
    template = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields["tokenizer.chat_template"].contents()
    text = jinja2.Environment().from_string(template).render(messages=[{"role": "assistant", "content": "Hello"}])
    assert text == "<|endoftext|><|assistant|>Hello<|end|>"
    export(source, tmp_path / "hf", "hf")
    assert (tmp_path / "hf" / "chat_template.jinja").read_text() == TEMPLATE


@pytest.mark.usefixtures("no_runtime")
def test_only_an_earlier_export_is_replaced(folder: Folder, tmp_path: Path) -> None:
    source, out = folder("gpt2"), tmp_path / "out"
    export(source, out, "gguf", "f16")
    with pytest.raises(UsageError, match="already exists"):
        export(source, out, "hf")
    assert (out / "model.gguf").exists()
    export(source, out, "hf", force=True)
    assert (out / "config.json").exists()
    assert not (out / "model.gguf").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.txt").write_text("precious")
    for place in (mine, source, source / "inside", out / "parity.json"):
        with pytest.raises(UsageError):
            export(source, place, "hf", force=True)
    assert (mine / "precious.txt").read_text() == "precious"
    assert not verify_folder(source)
    with pytest.raises(UsageError, match="the folder of the model"):
        export(out, out, "hf", force=True)


@pytest.mark.usefixtures("no_runtime")
def test_unsuitable_formats_and_data_types_are_refused(folder: Folder, tmp_path: Path) -> None:
    source, out = folder("gpt2"), tmp_path / "out"
    with pytest.raises(UsageError, match="format hf has no data type 'q8_0'") as caught:
        export(source, out, "hf", "q8_0")
    assert "--format gguf" in caught.value.fix
    with pytest.raises(UsageError, match="Unknown format 'onnx'"):
        export(source, out, "onnx")
    with pytest.raises(UsageError, match="no data type 'int4'"):
        export(source, out, "gguf", "int4")
    loaded = load(source)
    with torch.no_grad():
        loaded.model.blocks[0].mlp.up_proj.weight[0, 0] = 70_000
    big = tmp_path / "big"
    write_model_folder(big, loaded.model, loaded.tokenizer, "card")
    with pytest.raises(UsageError, match=r"blocks.0.mlp.up_proj.weight has 70,000"):
        export(big, out, "hf", "f16")
    assert not out.exists()


def test_a_folder_that_does_not_read_back_equal_is_refused(
    tokenizer: Tokenizer, build: Callable[..., GPT], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acorn.checkpoint import model_folder

    save = model_folder.save_tensors

    def damaged(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        save(path, {name: tensor + (name == "model.norm.weight") for name, tensor in tensors.items()})

    monkeypatch.setattr(model_folder, "save_tensors", damaged)
    with pytest.raises(DamageError, match="final_norm"):
        fill_model_folder(tmp_path, build(tokenizer, "modern"), tokenizer, "card", dtype=torch.bfloat16)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("style", ["gpt2", "llama-2", "llama-3", "qwen3"])
def test_foreign_models_keep_the_first_token_of_their_prompts(tmp_path: Path, style: str) -> None:
    """Prompts of GPT-2 and Qwen have no first token; those of Llama begin with a token other than the separator."""
    make_model(tmp_path / "theirs", style)
    result = export(tmp_path / "theirs", tmp_path / "ours", "hf")
    assert result.parity.strings_equal == 200
    theirs, ours = (load(tmp_path / name).tokenizer for name in ("theirs", "ours"))
    assert ours.encode_prompt("In winter") == theirs.encode_prompt("In winter")


@pytest.mark.parametrize("tied", [True, False])
def test_a_foreign_llama_is_exported_to_gguf(tmp_path: Path, tokenizer: Tokenizer, tied: bool) -> None:
    """GGUF stores queries and keys in another order. Checked in llama.cpp if that is installed."""
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        tie_word_embeddings=tied,
        initializer_range=0.1,
    )
    torch.manual_seed(3)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs" / "tokenizer.json")
    parity = export(tmp_path / "theirs", tmp_path / "ours", "gguf").parity
    assert (parity.lines_equal, parity.strings_equal) == (2_000, 200)
    if parity.runtime_version:
        assert (parity.greedy_tokens, parity.greedy_equal) == (200, 200)
        assert parity.logit_difference_in_deviations is not None
        assert parity.logit_difference_in_deviations < 1e-3


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_all_end_tokens_of_a_chat_model_are_kept(tmp_path: Path, end: str) -> None:
    model = make_model(tmp_path / "theirs", "qwen3")
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    prompt = auto("The keeper", return_tensors="pt")
    with torch.no_grad():
        wanted = model.model(**prompt).last_hidden_state[0, -1]
        model.lm_head.weight[auto.convert_tokens_to_ids(end)] = 50 * wanted
    ends = auto.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config.eos_token_id = ends
    model.save_pretrained(tmp_path / "theirs")
    export(tmp_path / "theirs", tmp_path / "ours", "hf")
    for file in ("generation_config.json", "config.json"):
        assert json.loads((tmp_path / "ours" / file).read_text())["eos_token_id"] == ends
    assert load(tmp_path / "ours").end_ids == tuple(ends)
    for name in ("theirs", "ours"):
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)
        made = again.generate(**prompt, max_new_tokens=9, do_sample=False)[0, prompt["input_ids"].size(1) :]
        assert made.tolist() == auto.convert_tokens_to_ids([end])


@pytest.mark.usefixtures("no_runtime")
def test_llama_cpp_stops_at_the_models_end_tokens(tmp_path: Path) -> None:
    make_model(tmp_path / "theirs", "gpt2", n_embd=64)
    path, out = tmp_path / "theirs" / "generation_config.json", tmp_path / "ours"
    path.write_text(json.dumps({"eos_token_id": [7, 300, 9]}))
    export(tmp_path / "theirs", out, "gguf")
    fields = gguf.GGUFReader(out / GGUF_FILE).fields
    assert [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot", "eom")] == [7, 300, 9]
    path.write_text(json.dumps({"eos_token_id": [7, 300, 9, 11]}))
    with pytest.raises(InputError, match="has 4 tokens that end"):
        export(tmp_path / "theirs", tmp_path / "four", "gguf")
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python takes minutes to build; extra `llama`")
    llama = llama_cpp.Llama(str(out / GGUF_FILE), verbose=False)
    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
    tokenizer = load(tmp_path / "theirs").tokenizer
    ends = [id_ for id_ in range(tokenizer.vocab_size) if llama_cpp.llama_vocab_is_eog(vocabulary, id_)]
    assert ends == [7, 9, 300, tokenizer.separator_id]  # with us, too, the separator is an end by itself
    llama.close()


def test_a_foreign_gpt2_is_exported_to_gguf_without_a_bos_token(tmp_path: Path) -> None:
    """Checked in llama.cpp if that is installed."""
    make_model(tmp_path / "theirs", "gpt2", n_embd=64)
    result = export(tmp_path / "theirs", tmp_path / "ours", "gguf")
    assert result.parity.lines_equal == 2_000
    assert not gguf.GGUFReader(tmp_path / "ours" / GGUF_FILE).fields["tokenizer.ggml.add_bos_token"].contents()


@pytest.mark.usefixtures("no_runtime")
def test_files_that_a_user_added_to_an_export_are_not_removed(folder: Folder, tmp_path: Path) -> None:
    """Edited files and an earlier export put aside are kept too; the message names them, and nothing is written."""
    source, out = folder("gpt2"), tmp_path / "out"
    export(source, out, "gguf", "f16")
    (out / ".DS_Store").touch()  # what a file manager leaves is nobody's work

    def check_refused(*parts: str) -> None:
        with pytest.raises(UsageError) as caught:
            export(source, out, "hf", force=True)
        assert all(part in caught.value.what for part in parts)
        assert (out / "model.gguf").exists()

    (out / "notes").mkdir()
    (out / "notes" / "a.txt").write_text("precious")
    (out / ".hidden").write_text("precious")
    check_refused("not part of the export", "notes", ".hidden")
    assert (out / "notes" / "a.txt").read_text() == (out / ".hidden").read_text() == "precious"
    shutil.rmtree(out / "notes")
    (out / ".hidden").unlink()
    card = (out / "README.md").read_bytes()
    (out / "README.md").write_bytes(card + b"Mine.")
    check_refused("README.md (changed)")
    (out / "README.md").write_bytes(card)
    for place in (out, tmp_path / "gone"):
        aside = place.with_name(place.name + ".old")
        shutil.copytree(out, aside)
        with pytest.raises(UsageError, match=r"\.old is in the way"):
            export(source, place, "hf", force=True)
        assert not verify_folder(aside)
        shutil.rmtree(aside)
    export(source, out, "hf", force=True)
    assert not (out / "model.gguf").exists()
