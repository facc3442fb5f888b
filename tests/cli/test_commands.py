"""Every command with valid input: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_acorn

import acorn.run.pretrain  # noqa: F401 - loaded before a test patches what it imports
from acorn.errors import UsageError
from acorn.figure_names import FIGURES, SCORES
from acorn.report.data_section import HIDDEN
from acorn.report.labels import DATA, ENVIRONMENT, TOKENIZER
from acorn.report.metrics_log import read_metrics
from acorn.report.sparkline import sparkline


def json_of(done) -> dict:
    """Exactly one JSON object on stdout."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_help_and_version(acorn) -> None:
    done = acorn("--help")
    assert done.returncode == 0
    verbs = (
        "demo",
        "tokenizer",
        "data",
        "pretrain",
        "evaluate",
        "generate",
        "verify",
        "report",
        "plan",
        "config",
        "presets",
    )
    assert all(f"  {verb} " in done.stdout for verb in verbs)
    assert acorn("--version").stdout.startswith("acorn 0.")


def test_help_loads_no_large_packages() -> None:
    """So help appears immediately."""
    script = "import sys; sys.argv = ['acorn', '--help']\nfrom acorn.cli.main import main\n"
    script += "try: main()\nexcept SystemExit: pass\n"
    script += "print(sorted({'torch', 'numpy', 'datasets', 'tokenizers', 'pydantic', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("own", "spins"), [({}, 10000), ({"GOMP_SPINCOUNT": "77"}, 77), ({"OMP_WAIT_POLICY": "passive"}, 0)]
)
def test_openmp_threads_do_not_spin_for_long(tmp_path: Path, own: dict[str, str], spins: int) -> None:
    """Checked in OpenMP's own output. A value that the user sets is kept."""
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-m", "acorn", "generate", tmp_path / "nothing"],  # loads PyTorch and exits
        env=others | own | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    if "GOMP" not in done.stderr:
        pytest.skip("another OpenMP library than GNU's")
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_tokenizer_train_and_inspect(acorn, tmp_path: Path, text_file: Path) -> None:
    path = tmp_path / "tokenizer.json"
    facts = json_of(
        acorn("tokenizer", "train", "--kind", "bpe", "--vocab-size", 320, "--input", text_file, "--out", path, "--json")
    )
    assert facts["vocab_size"] == 320
    assert facts["round_trip_rate"] == 1.0
    assert facts["unknown_rate"] == 0.0
    assert facts["bytes_per_token"] > 1
    shown = json_of(acorn("tokenizer", "inspect", path, "--text", "Sentence 7 é", "--json"))
    assert shown["round_trip"] is True
    assert len(shown["pieces"]) == len(shown["ids"])
    assert shown["decoded"] == "Sentence 7 é"
    assert json_of(acorn("tokenizer", "inspect", tmp_path, "--json"))["fingerprint"] == facts["fingerprint"]
    plain = acorn("tokenizer", "inspect", path, "--text", "Sentence 7")
    assert "round trip  exact" in plain.stdout


def test_data_prepare_and_verify(acorn, tmp_path: Path, text_file: Path) -> None:
    tokenizer, out = tmp_path / "tokenizer.json", tmp_path / "shards"
    assert acorn("tokenizer", "train", "--vocab-size", 300, "--input", text_file, "--out", tokenizer).returncode == 0
    manifest = json_of(acorn("data", "prepare", "--tokenizer", tokenizer, "--input", text_file, "--out", out, "--json"))
    assert manifest["splits"]["train"]["bytes"] + manifest["splits"]["valid"]["bytes"] == text_file.stat().st_size
    assert acorn("data", "verify", out).returncode == 0
    shard = out / manifest["splits"]["train"]["shards"][0]["file"]
    shard.write_bytes(shard.read_bytes()[:-2])
    done = acorn("data", "verify", out)
    assert done.returncode == 4
    assert shard.name in done.stderr


def test_pretrain_from_prepared_shards(acorn, tmp_path: Path, text_file: Path, settings) -> None:
    tokenizer, shards = tmp_path / "tokenizer.json", tmp_path / "shards"
    acorn("tokenizer", "train", "--vocab-size", 300, "--input", text_file, "--out", tokenizer)
    acorn("data", "prepare", "--tokenizer", tokenizer, "--input", text_file, "--out", shards)
    result = json_of(
        acorn("pretrain", "small", f"data.shards={shards}", *settings, "--out", tmp_path / "run", "--json")
    )
    assert result["step"] == 8
    assert not (tmp_path / "run" / "data").exists()
    again = json_of(acorn("evaluate", tmp_path / "run", "--json"))
    assert again["bits_per_byte"] == pytest.approx(result["evaluation"]["valid"]["bits_per_byte"], rel=1e-6)


def test_evaluate(acorn, run: Path, tmp_path: Path) -> None:
    facts = json_of(acorn("evaluate", run, "--json"))
    assert facts["split"] == "valid"
    assert facts["perplexity_per_token"] == pytest.approx(math.exp(facts["loss_per_token"]))
    nats = facts["loss_per_token"] * facts["tokens"]
    assert facts["bits_per_byte"] == pytest.approx(nats / math.log(2) / facts["bytes"])
    assert facts["word_perplexity"] == pytest.approx(math.exp(nats / facts["words"]))
    assert (facts["context"], facts["stride"], facts["lossless"]) == (32, 32, True)
    assert facts["round_trip_rate"] == 1.0
    closer = json_of(acorn("evaluate", run, "--stride", 8, "--json"))
    assert closer["tokens"] == facts["tokens"]
    train = json_of(acorn("evaluate", run, "--split", "train", "--json"))
    assert (train["split"], train["unknown_rate"]) == ("train", 0.0)
    assert train["tokens"] > facts["tokens"]
    assert "valid, test or train" in " ".join(acorn("evaluate", "--help").stdout.split())
    other = tmp_path / "other.txt"
    other.write_text("Sentence 5 says that 5 and 6 make 11.\n")
    mine = json_of(acorn("evaluate", run, "--input", other, "--json"))
    assert (mine["bytes"], mine["words"], mine["documents"]) == (38, 10, 1)
    assert "bits per byte" in acorn("evaluate", run).stdout


def test_generate_json(acorn, run: Path) -> None:
    arguments = ("--prompt", "Sentence 7", "--max-new-tokens", 12, "--seed", 3)
    facts = json_of(acorn("generate", run, *arguments, "--json"))
    wanted = {
        "prompt",
        "text",
        "completion",
        "prompt_ids",
        "new_ids",
        "finish_reason",
        "prefill_seconds",
        "decode_seconds",
        "tokens_per_second",
    }
    assert wanted <= set(facts)
    assert facts["text"] == facts["prompt"] + facts["completion"]
    assert facts["finish_reason"] in ("length", "eos")
    again = json_of(acorn("generate", run, *arguments, "--json"))
    assert again["new_ids"] == facts["new_ids"]
    streamed = acorn("generate", run, *arguments)
    assert streamed.stdout == facts["text"] + "\n"
    several = json_of(acorn("generate", run, "--prompt", "One", "--prompt", "Two", "--greedy", "--json"))
    assert [result["prompt"] for result in several["results"]] == ["One", "Two"]


def test_generate_from_a_checkpoint_and_a_model_folder(acorn, run: Path, tmp_path: Path) -> None:
    arguments = ("--prompt", "Sentence", "--greedy", "--max-new-tokens", 8, "--json")
    expected = json_of(acorn("generate", run, *arguments))["new_ids"]
    shutil.copytree(run / "final", tmp_path / "elsewhere")
    assert json_of(acorn("generate", tmp_path / "elsewhere", *arguments))["new_ids"] == expected
    assert json_of(acorn("generate", run, "--checkpoint", "last", *arguments))["new_ids"] == expected
    assert json_of(acorn("generate", run / "checkpoints" / "step-00000008", *arguments))["new_ids"] == expected


def test_verify_names_what_is_damaged_and_what_is_intact(acorn, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert acorn("verify", copy).returncode == 0
    damaged = copy / "checkpoints" / "step-00000008" / "state.json"
    damaged.write_text(damaged.read_text().replace("8", "9", 1))
    done = acorn("verify", copy)
    assert done.returncode == 4
    assert "step-00000008/state.json" in done.stderr
    assert "still good" in done.stderr
    assert str(copy / "final") in done.stderr


def test_report_and_compare(acorn, run: Path) -> None:
    done = acorn("report", run, "--compare", run)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.strip()).read_text()
    assert "<svg" in page
    assert 'src="http' not in page


def test_every_field_of_a_real_run_is_labeled_in_its_report(run: Path) -> None:
    """A new field in one of these files needs a label; otherwise, the page would show its raw name."""
    manifest, evaluation = (json.loads((run / name).read_text()) for name in ("data/manifest.json", "evaluation.json"))
    assert set(json.loads((run / "environment.json").read_text())) <= set(ENVIRONMENT)
    assert set(manifest["tokenizer"]) <= set(TOKENIZER)
    for split in manifest["splits"]:
        found = {**manifest["splits"][split], **manifest["text"]["counts"][split]}
        found |= manifest["tokenizer_report"].get(split, {})
        assert set(found) - {"shards"} <= set(DATA) | HIDDEN
    notes = {f"{name}_note" for name in SCORES}
    assert set(evaluation["valid"]) - {"split"} <= set(FIGURES) | notes


def test_a_comparison_is_written_to_out_and_leaves_the_report_unchanged(acorn, run: Path, tmp_path: Path) -> None:
    own = (run / "report.html").read_bytes()
    assert acorn("report", run, run).stdout.strip() == str(run / "comparison.html")
    done = acorn("report", run, "--compare", run, "--out", tmp_path / "both.html")
    assert done.stdout.strip() == str(tmp_path / "both.html")
    assert (run / "report.html").read_bytes() == own
    refused = acorn("report", run, "--out", run / "metrics.jsonl")
    assert refused.returncode == 2
    assert "name a file, such as report.html" in refused.stderr


def test_plan(acorn) -> None:
    facts = json_of(acorn("plan", "small", "train.steps=100", "--json"))
    assert facts["parameters"] == 1_475_456
    assert facts["tokens"] == 100 * facts["tokens_per_step"]
    assert "parameters" in acorn("plan", "gpt2-124m").stdout


def test_demo_runs_all_steps_and_can_be_run_again(acorn, tmp_path: Path, monkeypatch, capsys) -> None:
    """In this process, with a tiny version of the preset: the bundled text is large for a test."""
    from acorn.cli import demo as verb
    from acorn.config_files import load_config

    small = tmp_path / "valid.txt"
    small.write_text("".join(f" = Article {n} = \n The {n} cats of <unk> saw {n} birds . \n" for n in range(300)))
    tiny = [f"data.source={small}", "data.clean=wikitext", "tokenizer.vocab_size=150", "model.n_layer=1"]
    tiny += ["model.n_embd=16", "model.block_size=16", "train.threads=1"]
    monkeypatch.setattr(
        "acorn.config_files.load_config",
        lambda name, given=(): load_config(name, [*given, *tiny] if name == "demo" else given),
    )
    for _ in range(2):
        verb.demo(out=tmp_path / "demo", minutes=0.03)
    assert (tmp_path / "demo" / "final" / "config.json").exists()
    told = capsys.readouterr()
    assert "a small model for 0.03 minutes, evaluates" in " ".join(told.err.split())
    [following] = [line.split()[1:] for line in told.out.splitlines()[-4:] if line.startswith("next ")]
    assert following[:2] == ["acorn", "finetune"]
    (tmp_path / "my.csv").write_text("text,label\n" + "".join(f"{n} cats,{'ab'[n % 2]}\n" for n in range(20)))
    quick = ["train.steps=1", "train.precision=fp32", "train.threads=1"]
    done = run_acorn(*following[1:], *quick, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with pytest.raises(UsageError, match=r"train.minutes=0.02 is below the training time so far"):
        verb.demo(out=tmp_path / "demo", minutes=0.02)


def test_demo_refuses_the_folder_of_another_run(acorn, run: Path) -> None:
    """Before it says that the same command resumes; and it does not advise an option that demo does not have."""
    done = acorn("demo", "--out", run)
    assert done.returncode == 2
    assert "holds another run, not a demo" in done.stderr
    assert f"acorn pretrain --resume --out {run}" in done.stderr
    assert "--allow-change" not in done.stderr
    assert "Demo:" not in done.stderr


def test_interrupted_training_saves_and_resumes(acorn, text_file: Path, tmp_path: Path, settings) -> None:
    """SIGINT: saves a checkpoint, exits with 130, and the message says how to resume."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "acorn", "pretrain", "small", f"data.source={text_file}", *settings]
    command += ["train.steps=100000", "train.eval_every=0", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    step = read_metrics(metrics)[-1]["step"]
    done = acorn("pretrain", "--resume", "--out", out, f"train.steps={step + 2}", "--json")
    assert json_of(done)["step"] == step + 2


def test_an_interrupt_outside_training_is_reported(acorn, monkeypatch) -> None:
    def interrupted(run: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("acorn.checkpoint.integrity.verify_run", interrupted)
    done = acorn("verify", "anything")
    assert (done.returncode, done.stdout) == (130, "")
    assert "Stopped" in done.stderr


STARTING = """
import os, signal, sys
sys.argv = ["acorn", "--help"]
from acorn.cli.main import main

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "acorn.cli.app":
            os.kill(os.getpid(), getattr(signal, "SIG" + sys.stdin.read()))
            for _ in range(1000): pass  # a signal is answered at the next instruction

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_signal_while_modules_are_imported(name: str, code: int) -> None:
    """No exception is raised there: libraries swallow exceptions during their import, or break."""
    done = subprocess.run([sys.executable, "-c", STARTING], input=name, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "acorn: Stopped.\n")


ENDING = """
import os, signal, sys
sys.argv = ["acorn", "verify", "nowhere"]

class Impatient:
    def write(self, text):
        os.kill(os.getpid(), signal.SIGINT)
        return os.write(2, text.encode())

    def flush(self):
        pass

sys.stderr = Impatient()
from acorn.cli.main import main
main()
"""


def test_a_signal_while_a_message_is_written() -> None:
    """A second Ctrl-C while the message of the first is printed changes neither message nor exit code."""
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True)
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_stderr_may_be_closed(tmp_path: Path, text_file: Path, settings) -> None:
    """Its lines do not appear on stdout instead."""
    script = "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, '-m', 'acorn', *sys.argv[1:]])"
    command = [sys.executable, "-c", script, "pretrain", "small", f"data.source={text_file}", *settings]
    done = subprocess.run([*command, "--out", str(tmp_path / "run"), "--json"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert json.loads(done.stdout)["step"] == 8
    done = subprocess.run([*command, "--out", str(tmp_path / "run"), "--json"], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (2, "")


def test_sparkline() -> None:
    assert sparkline([3, 2, 1, 0], 4) == "█▆▃▁"
    assert sparkline([1.0] * 10, 3) == "▁▁▁"
    assert len(sparkline(list(range(100)), 7)) == 7
