"""Training speed and memory of acorn, the original's loop, transformers and litgpt, on the same model and batch."""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from typing import Any

from acorn.config import Config, ModelConfig, TrainConfig
from acorn.config_files import with_values
from acorn.model.sizing import size_of
from acorn.run.resolve import choose_runtime
from benchmarks.machine import Ceiling, ceiling_of
from benchmarks.turns import Contender, take_turns


@dataclass(frozen=True)
class Task:
    """A model and a batch size, the same for every contender."""

    name: str
    architecture: str
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    vocab_size: int
    batch_size: int

    @property
    def config(self) -> Config:
        """The task as an acorn config."""
        return with_values(Config(), self.acorn())

    def acorn(self, **more: Any) -> dict[str, Any]:
        """acorn's settings: the model, AdamW, no dropout."""
        model = {
            key: value
            for key, value in asdict(self).items()
            if key in ("architecture", "n_layer", "n_head", "n_embd", "block_size", "vocab_size")
        }
        settings = {f"model.{key}": value for key, value in model.items()}
        settings |= {"model.dropout": 0.0, "optimizer.name": "adamw", "train.batch_size": self.batch_size}
        return settings | more


TASKS = {
    "tiny": Task("tiny", "modern", 1, 2, 64, 64, 512, 2),
    "original": Task("original", "original", 6, 8, 512, 512, 28_144, 8),
    "original-16x256": Task("original-16x256", "original", 6, 8, 512, 256, 28_144, 16),
    "modern-512": Task("modern-512", "modern", 6, 8, 512, 512, 28_144, 8),
    "modern-256": Task("modern-256", "modern", 4, 4, 256, 256, 8_192, 16),
    "gpt2-124m": Task("gpt2-124m", "gpt2", 12, 12, 768, 1024, 50_304, 32),
    "modern-124m": Task("modern-124m", "modern", 12, 12, 768, 1024, 50_304, 32),
}

TASKS_OF = {
    "cpu": ["original", "original-16x256", "modern-512", "modern-256"],
    "cuda": ["original", "gpt2-124m", "modern-124m"],
}
"""Device -> tasks that are measured by default."""


def contenders_of(task: Task, device: str, precision: str, litgpt_python: str | None) -> list[Contender]:
    """All contenders that can train this model on this device.

    Args:
        precision: the one that acorn chooses. The others use it too, except the original's loop (fp32). If it is fp16
            on a CPU they use fp32, because PyTorch's fp16 matmuls are no faster there.
    """
    ours = {"train.device": device, "train.precision": precision}
    theirs = "fp32" if precision == "fp16" else precision
    common = {"device": device, "warm_up": 3, "batch_size": task.batch_size, "block_size": task.block_size}
    on_cpu = device == "cpu"
    variants: list[tuple[str, dict[str, Any], bool]] = [  # name, settings, whether it is measured on this device
        ("acorn", {}, True),
        (f"acorn in {theirs}", {"train.precision": theirs}, theirs != precision),
        # the opposite of the default on this device
        ("acorn, compiled" if on_cpu else "acorn, eager", {"train.compile": on_cpu, "train.precision": theirs}, True),
        ("acorn, not deterministic", {"train.deterministic": False}, not on_cpu),  # attention is faster without it
        ("acorn, Muon", {"optimizer.name": "muon"}, True),
        ("acorn, micro-batches of 2", {"train.micro_batch_size": 2}, on_cpu),
        ("acorn, micro-batches of 1", {"train.micro_batch_size": 1}, on_cpu),  # needs the least memory
    ]
    found = [
        Contender(name, "acorn_training", common | {"acorn": task.acorn(**ours | changes)})
        for name, changes, is_measured in variants
        if is_measured
    ]
    if task.architecture == "original":  # the only model that its loop supports
        found.append(
            Contender("original's loop (fp32)", "original_training", common | {"original_model": _original_model(task)})
        )
    settings = {
        "config_class": _CLASSES[task.architecture],
        "transformers": _transformers(task),
        "precision": theirs,
    }
    for name, loop, is_compiled in (
        ("transformers, plain loop", "plain", False),
        ("transformers, compiled", "plain", True),
        ("transformers, Trainer", "trainer", False),
    ):
        extra = settings | {"loop": loop, "compile": is_compiled}
        found.append(Contender(name, "transformers_training", common | extra))
    if litgpt_python and task.architecture == "modern":
        for kind in ("bf16-mixed", "bf16-true") if theirs == "bf16" else ("32-true",):
            extra = {"litgpt": _litgpt(task), "litgpt_precision": kind, "compile": True, "tied": True}
            found.append(Contender(f"litgpt ({kind})", "litgpt_training", common | extra, python=litgpt_python))
    return found


def _original_model(task: Task) -> dict[str, Any]:
    keys = ("vocab_size", "n_layer", "n_head", "n_embd", "block_size")
    return {key: value for key, value in asdict(task).items() if key in keys}


_CLASSES = {"original": "GPT2Config", "gpt2": "GPT2Config", "modern": "Qwen3Config"}


def _transformers(task: Task) -> dict[str, Any]:
    """The same model as a transformers config."""
    model = task.config.model
    if task.architecture != "modern":
        return {
            "vocab_size": task.vocab_size,
            "n_positions": task.block_size,
            "n_embd": task.n_embd,
            "n_layer": task.n_layer,
            "n_head": task.n_head,
            "activation_function": "relu" if task.architecture == "original" else "gelu_new",
            "tie_word_embeddings": model.is_tied,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    return {
        "vocab_size": task.vocab_size,
        "hidden_size": task.n_embd,
        "intermediate_size": model.mlp_hidden,
        "num_hidden_layers": task.n_layer,
        "num_attention_heads": task.n_head,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": task.block_size,
        "tie_word_embeddings": model.is_tied,
    }


def _litgpt(task: Task) -> dict[str, Any]:
    """The same model as a litgpt config."""
    model = task.config.model
    return {
        "name": "benchmark",
        "vocab_size": task.vocab_size,
        "padded_vocab_size": task.vocab_size,
        "block_size": task.block_size,
        "n_layer": task.n_layer,
        "n_head": task.n_head,
        "n_query_groups": model.kv_heads,
        "n_embd": task.n_embd,
        "head_size": model.head_dim,
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
        "norm_class_name": "RMSNorm",
        "norm_eps": 1e-6,
        "norm_qk": True,
        "norm_qk_type": "default",
        "mlp_class_name": "LLaMAMLP",
        "intermediate_size": model.mlp_hidden,
    }


def measure_training(
    names: list[str], device: str, litgpt_python: str | None, rounds: int, seconds: float, only: str, say: Any
) -> dict[str, Any]:
    """A table for each task.

    Args:
        only: measures contenders whose name contains this; empty: all.
    """
    tables = {}
    chosen = choose_runtime(TrainConfig(device=device))  # type: ignore[arg-type]
    precision = chosen.precision if device == "cpu" else "bf16"
    for name in names:
        task = TASKS[name]
        contenders = [c for c in contenders_of(task, device, precision, litgpt_python) if only in c.name]
        say(f"training {name}")
        tokens = task.batch_size * task.block_size
        limits: dict[str, list[Ceiling]] = {name: [] for name in ("fp32", "bf16", precision)}

        def measure_limits(model: ModelConfig = task.config.model, tokens: int = tokens, limits: Any = limits) -> None:
            for precision, found in limits.items():
                found.append(ceiling_of(model, tokens, precision, device))

        if device == "cpu":  # other load may slow it down at times, so limits and contenders take turns
            take_turns(contenders, rounds=rounds, seconds=seconds, say=say, before_round=measure_limits)
        else:  # its memory is large enough for one contender only
            measure_limits()
            for contender in contenders:
                take_turns([contender], rounds=rounds, seconds=seconds, say=say)
        ceilings = {precision: _median(found) for precision, found in limits.items()}
        size = size_of(task.config.model)
        first = contenders[0]
        rows = []
        for contender in contenders:
            facts = contender.facts()
            if not contender.failure:
                achieved = contender.rate * size.flops_per_token
                if not first.failure:
                    facts["acorn_times_as_fast"] = first.rate / contender.rate
                    facts["memory_to_acorn"] = contender.peak_bytes / first.peak_bytes
                facts |= {
                    "share_of_peak": achieved / ceilings[precision]["peak"],
                    "share_of_peak_at_shapes": achieved / ceilings[precision]["at_shapes"],
                }
                facts |= _update(contender.turns[-1])
            rows.append(facts)
        tables[name] = {
            "task": asdict(task),
            "size": asdict(size),
            "ceilings": ceilings,
            "precision": precision,
            "contenders": rows,
        }
        _print(tables[name])
    return tables


def _median(ceilings: list[Ceiling]) -> dict[str, float]:
    return {key: statistics.median(getattr(c, key) for c in ceilings) for key in ("peak", "at_shapes")}


def _update(turn: dict[str, Any]) -> dict[str, float]:
    """Muon's share of a turn, and the FLOP/s of its iterations' matmuls over the time of the whole update."""
    if not turn.get("update_flops"):
        return {}
    seconds = turn["update_seconds"]
    return {"share_of_update": seconds / turn["seconds"], "update_flops_per_second": turn["update_flops"] / seconds}


def _print(table: dict[str, Any]) -> None:
    peak = table["ceilings"][table["precision"]]["peak"]
    matmuls = ", ".join(
        f"{name} {found['peak'] / 1e9:,.0f} GFLOP/s (at the model's shapes {found['at_shapes'] / 1e9:,.0f})"
        for name, found in table["ceilings"].items()
    )
    print(
        f"\ntraining {table['task']['name']}: {table['size']['parameters']:,} parameters, "
        f"{table['task']['batch_size']} x {table['task']['block_size']} tokens per step; matmuls: {matmuls}. "
        f"Trained in {table['precision']}; shares are of matmuls in this precision."
    )
    print(f"{'':28}{'tokens/s':>10}{'acorn is':>15}{'of peak':>9}{'of shapes':>11}{'memory':>10}{'first step':>12}")
    for row in table["contenders"]:
        if "failure" in row:
            print(f"{row['name']:28}not measured: {row['failure']}")
            continue
        ratio = f"{row['acorn_times_as_fast']:.2f}x as fast" if "acorn_times_as_fast" in row else "-"
        print(
            f"{row['name']:28}{row['tokens_per_second']:>10,.0f}{ratio:>15}"
            f"{row['share_of_peak']:>9.1%}{row['share_of_peak_at_shapes']:>11.1%}"
            f"{row['peak_bytes'] / 2**20:>6,.0f} MiB{row['first_seconds']:>10.1f} s"
        )
        if "share_of_update" in row:
            rate = row["update_flops_per_second"]
            print(
                f"  Muon's update takes {row['share_of_update']:.1%} of a step; its matmuls run at "
                f"{rate / 1e9:,.0f} GFLOP/s, {rate / peak:.0%} of the peak"
            )
    sys.stdout.flush()
