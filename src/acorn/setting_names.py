"""The names of settings, and suggestions for a wrong name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from acorn.config import Config, Section

OTHER_NAMES: Mapping[str, str] = {
    # the text and its tokenizer
    "dataset": "data.source",
    "data_path": "data.source",
    "text": "data.source",
    "train_file": "data.source",
    "validation_file": "data.valid_source",
    "val_fraction": "data.valid_fraction",
    "val_split": "data.valid_fraction",
    "text_column": "data.text_field",
    "vocab": "tokenizer.vocab_size",
    "n_vocab": "tokenizer.vocab_size",
    "tokenizer_path": "tokenizer.path",
    # the network
    "layers": "model.n_layer",
    "n_layers": "model.n_layer",
    "num_layers": "model.n_layer",
    "num_hidden_layers": "model.n_layer",
    "depth": "model.n_layer",
    "heads": "model.n_head",
    "n_heads": "model.n_head",
    "num_heads": "model.n_head",
    "num_attention_heads": "model.n_head",
    "kv_heads": "model.n_kv_head",
    "n_kv_heads": "model.n_kv_head",
    "num_key_value_heads": "model.n_kv_head",
    "head_dim": "model.head_width",
    "dim": "model.n_embd",
    "d_model": "model.n_embd",
    "width": "model.n_embd",
    "n_embed": "model.n_embd",
    "embed_dim": "model.n_embd",
    "embedding_dim": "model.n_embd",
    "embedding_size": "model.n_embd",
    "hidden_size": "model.n_embd",
    "hidden_dim": "model.n_embd",
    "d_ff": "model.n_inner",
    "ffn_dim": "model.n_inner",
    "intermediate_size": "model.n_inner",
    "context": "model.block_size",
    "context_length": "model.block_size",
    "context_size": "model.block_size",
    "context_window": "model.block_size",
    "n_ctx": "model.block_size",
    "n_positions": "model.block_size",
    "max_position_embeddings": "model.block_size",
    "seq_len": "model.block_size",
    "seq_length": "model.block_size",
    "sequence_length": "model.block_size",
    "max_seq_len": "model.block_size",
    "max_seq_length": "model.block_size",
    "max_length": "model.block_size",
    "tie_weights": "model.tied",
    "tie_embeddings": "model.tied",
    "tie_word_embeddings": "model.tied",
    "weight_tying": "model.tied",
    "rope_base": "model.rope_theta",
    # the optimizer and its schedule
    "learning_rate": "optimizer.lr",
    "max_lr": "optimizer.lr",
    "peak_lr": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "adam_beta1": "optimizer.beta1",
    "adam_beta2": "optimizer.beta2",
    "adam_epsilon": "optimizer.eps",
    "epsilon": "optimizer.eps",
    "grad_clip": "optimizer.clip",
    "gradient_clip": "optimizer.clip",
    "gradient_clipping": "optimizer.clip",
    "max_grad_norm": "optimizer.clip",
    "scheduler": "schedule.name",
    "lr_scheduler": "schedule.name",
    "lr_scheduler_type": "schedule.name",
    "warmup_steps": "schedule.warmup",
    "warmup_iters": "schedule.warmup",
    "warmup_ratio": "schedule.warmup",
    "decay_steps": "schedule.decay",
    "lr_decay_iters": "schedule.decay",
    "min_lr": "schedule.floor",
    # length, batch, intervals
    "n_epochs": "finetune.epochs",
    "num_epochs": "finetune.epochs",
    "num_train_epochs": "finetune.epochs",
    "iterations": "train.steps",
    "iters": "train.steps",
    "max_iters": "train.steps",
    "max_steps": "train.steps",
    "num_steps": "train.steps",
    "total_steps": "train.steps",
    "max_minutes": "train.minutes",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "global_batch_size": "train.batch_size",
    "train_batch_size": "train.batch_size",
    "micro_batch": "train.micro_batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.micro_batch_size",
    "random_seed": "train.seed",
    "dtype": "train.precision",
    "num_threads": "train.threads",
    "from_checkpoint": "train.init_from",
    "pretrained": "train.init_from",
    "eval_interval": "train.eval_every",
    "eval_steps": "train.eval_every",
    "val_every": "train.eval_every",
    "save_interval": "train.save_every",
    "save_steps": "train.save_every",
    "checkpoint_every": "train.save_every",
    "log_interval": "train.log_every",
    "logging_steps": "train.log_every",
    "save_total_limit": "checkpoint.keep",
    "report_to": "report.trackers",
}
"""Name of a setting in other programs -> its name in acorn. Units may differ: here a warm-up is a share of the run, and
pretraining takes its length in steps or minutes, not in epochs. `acorn config KEY` gives the unit."""


def sections() -> dict[str, type[Section]]:
    """Name -> class of every section, in the order of the config file."""
    return {
        name: field.annotation
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


def section_keys(section: str) -> Iterator[str]:
    """The dotted keys of a section."""
    return (f"{section}.{key}" for key in sections()[section].model_fields)


def all_keys() -> list[str]:
    """Every section and every dotted key."""
    names = list(sections())
    return [*names, *(key for section in names for key in section_keys(section))]


def nearest_keys(key: str, keys: Sequence[str] | None = None) -> list[str]:
    """The setting or section that `key` most likely means: a list of at most one.

    Names from other programs come first, then settings with the same last part, then similar spelling.

    Args:
        keys: candidates; None: all.
    """
    keys = all_keys() if keys is None else keys
    last = key.rpartition(".")[2].lower().replace("-", "_")
    by_last_name = {name.rpartition(".")[2]: name for name in keys if "." in name}
    known = [name for name in (OTHER_NAMES.get(last, ""), by_last_name.get(last, "")) if name in keys]
    same_depth = [name for name in keys if name.count(".") == key.count(".")]
    spelled = difflib.get_close_matches(key, same_depth, n=1)
    similar = [by_last_name[name] for name in difflib.get_close_matches(last, list(by_last_name), n=1, cutoff=0.8)]
    return (known or spelled or similar)[:1]
