"""adapter_config.json of PEFT, as far as LoRA can be merged into the weights of its base model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acorn.errors import DamageError, InputError
from acorn.model.label_head import HeadSpec
from acorn.run_folder import ADAPTER_CONFIG

TASK_TYPES = {"class": "SEQ_CLS", "labels": "SEQ_CLS", "value": "SEQ_CLS", "tag": "TOKEN_CLS"}
"""Kind of a label head -> PEFT's name of the task."""

UNCHANGED_BASES = (True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights with which the base model keeps its weights. With the others, such as `pissa`, PEFT
changes them when it makes or loads the adapter."""

ONLY_IN_TRAINING = (
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
)
"""Keys that do not change what a stored adapter computes, beside those in `AdapterConfig`. Any other key with a value
belongs to a method that is not LoRA alone."""

USE_PEFT = "use it with the PEFT library instead"


class AdapterConfig(BaseModel):
    """The keys of adapter_config.json that are used; all others are in `model_extra`.

    Attributes:
        base_model_name_or_path: the base model; None or empty: not stated.
        r, lora_alpha: rank and alpha of all modules that match no pattern.
        rank_pattern, alpha_pattern: regular expression for the ending of a module's name -> its rank or alpha.
        use_rslora: the product of the factors is multiplied by alpha / sqrt(rank) instead of alpha / rank.
        target_modules: names, or endings of names, of the modules with factors; or one regular expression.
        modules_to_save: modules that are stored whole.
        trainable_token_indices: tokens whose rows are stored: of the embedding, or by the name of a module.
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    peft_type: str
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    r: int = Field(8, ge=1)
    lora_alpha: float = Field(8, gt=0, allow_inf_nan=False)
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = {}
    alpha_pattern: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    use_rslora: bool = False
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    init_lora_weights: bool | str = True
    bias: Literal["none", "all", "lora_only"] = "none"

    def rank_of(self, module: str) -> int:
        """The rank of the factors of a module."""
        return self.rank_pattern.get(_pattern_for(module, self.rank_pattern), self.r)

    def scale_of(self, module: str) -> float:
        """The factor of the product of a module's factors."""
        rank = self.rank_of(module)
        alpha = self.alpha_pattern.get(_pattern_for(module, self.alpha_pattern), self.lora_alpha)
        return float(alpha) / (rank**0.5 if self.use_rslora else rank)

    def tokens_of(self, module: str, embedding: str) -> list[int]:
        """The tokens whose rows of a module are stored.

        Args:
            embedding: name of the embedding, to which a list without names refers.
        """
        indices = self.trainable_token_indices or []
        if isinstance(indices, list):
            return indices if module == embedding else []
        return next((tokens for name, tokens in indices.items() if module.endswith(name)), [])

    def is_target(self, module: str) -> bool:
        """Whether a list of targets contains a module. False for other forms of targets, which need the model to be
        resolved."""
        if not isinstance(self.target_modules, list) or self.layers_to_transform is not None or self.exclude_modules:
            return False
        return any(module == target or module.endswith(f".{target}") for target in self.target_modules)


def parse_adapter_config(values: Mapping[str, Any], path: Path) -> AdapterConfig:
    """The content of adapter_config.json, checked.

    Raises:
        InputError: the adapter is not LoRA, or a kind that cannot be merged into the weights; names the keys.
        DamageError: a value is missing, of a wrong type, or out of range.
    """
    kind = values.get("peft_type")
    if isinstance(kind, str) and kind != "LORA":
        raise InputError(f"The adapter has the type {kind}; acorn reads LORA.", where=str(path), fix=USE_PEFT)
    try:
        config = AdapterConfig.model_validate(values)
        for pattern in (*config.rank_pattern, *config.alpha_pattern):
            re.compile(pattern)
    except (ValidationError, re.error) as error:
        faults = (
            [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()[:8]]
            if isinstance(error, ValidationError)
            else [f"{error.pattern!r} is not a regular expression: {error}"]
        )
        raise DamageError(
            f"{ADAPTER_CONFIG} is not a description of an adapter:\n" + "\n".join(f"  - {fault}" for fault in faults),
            where=str(path),
            fix="download the adapter again, or restore it from a copy",
        ) from None
    faults = [
        f"{key} is {value!r}"
        for key, value in (config.model_extra or {}).items()
        if value and key not in ONLY_IN_TRAINING
    ]
    if config.init_lora_weights not in UNCHANGED_BASES:
        faults.append(f"init_lora_weights is {config.init_lora_weights!r}, which changes the base model too")
    if faults:
        raise InputError(
            "acorn cannot merge this kind of adapter into the weights of a model:\n"
            + "\n".join(f"  - {fault[:200]}" for fault in faults[:8]),
            where=str(path),
            fix=USE_PEFT,
        )
    return config


def task_type(head: HeadSpec | None) -> str:
    """PEFT's name of the task of a model with this label head; None: of a language model."""
    return "CAUSAL_LM" if head is None else TASK_TYPES[head.kind]


def _pattern_for(module: str, patterns: Mapping[str, Any]) -> str:
    """The first pattern that matches the end of a module's name; the name itself if none does."""
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)), module)
