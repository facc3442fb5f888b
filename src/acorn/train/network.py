"""The network of a run and its optimizers, on the machine's device."""

from __future__ import annotations

import torch

from acorn.config import Config
from acorn.model.gpt import GPT
from acorn.runtime.c_library import TYPES
from acorn.runtime.device import Runtime
from acorn.train.embedding import use_adding_embeddings
from acorn.train.native_attention import use_fp16_attention
from acorn.train.native_block import native_block_library, use_native_blocks
from acorn.train.native_loss import use_native_loss
from acorn.train.native_product import use_fp16_products
from acorn.train.optimizer import Optimizer, build_optimizers


def is_fused(runtime: Runtime) -> bool:
    """Whether what stands between the products of a block is one operation each: compiled, or in C."""
    in_c = runtime.dtype in TYPES and not isinstance(native_block_library(runtime.device), str)
    return runtime.compile or in_c


def build_network(config: Config, runtime: Runtime) -> tuple[GPT, list[Optimizer]]:
    """Model and optimizers as `config` and `runtime` ask for them. The weights have yet to be drawn or restored."""
    with torch.device(runtime.device):
        model = GPT(config.model)
    product = runtime.fp16_product()
    use_adding_embeddings(model, runtime)
    use_native_loss(model, runtime, product)
    if not runtime.compile:
        use_native_blocks(model, runtime)
    if product is not None:
        use_fp16_products(model, product)
        use_fp16_attention(model, runtime)
    # Muon iterates in bf16 unless the run is to be exact, or has products of fp32 tensors that are faster.
    muon_dtype = torch.float32 if runtime.dtype == torch.float32 else torch.bfloat16
    return model, build_optimizers(model, config.optimizer, muon_dtype=muon_dtype, product=product)
