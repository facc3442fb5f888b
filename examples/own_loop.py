"""A training loop of your own, made of acorn's parts: token shards, data order, network, optimizers, schedule.

    acorn tokenizer train --kind bpe --vocab-size 4096 --input my.txt --out tokenizer.json
    acorn data prepare --tokenizer tokenizer.json --input my.txt --out shards
    python examples/own_loop.py shards my-model model.n_layer=2 train.steps=300
    acorn generate my-model --prompt "The"

Settings of acorn may follow, applied to the preset `small`. docs/own-loop.md explains the parts.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from acorn.checkpoint.model_folder import write_model_folder
from acorn.config_files import load_config
from acorn.data.batches import read_batch
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import TokenShards
from acorn.evaluate.validation import score
from acorn.kernels.choose import training_ops
from acorn.model.gpt import GPT
from acorn.runtime.choose import runtime_for_inference
from acorn.train.optimizer import build_optimizers, set_rates
from acorn.train.schedule import rate_factor

Z_LOSS_WEIGHT = 1e-4  # of the term that keeps logits from drifting (Chowdhery et al. 2022, PaLM, section 5)


def loss_function(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss that is minimized: cross-entropy in nats per token, plus the square of the log normalizer.

    Args:
        logits: (B, T, V)
        targets: (B, T), the id that follows each token.
    """
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return cross_entropy + Z_LOSS_WEIGHT * logits.logsumexp(-1).square().mean()


def main(shards_folder: str, out: str, *overrides: str) -> list[float]:
    """Trains, writes the model folder `out`, and returns the loss of every step."""
    if Path(out).exists():
        sys.exit(f"{out} exists already; name another folder")
    runtime = runtime_for_inference("auto", "fp32")  # `runtime.device` is the name of the device

    # the text, as token ids
    shards = TokenShards.open(Path(shards_folder))
    train, valid, tokenizer = shards.tokens("train"), shards.tokens("valid"), shards.tokenizer()

    # settings: any of acorn's are accepted; this loop uses those of network, optimizer, schedule, batch and seed
    vocabulary = f"model.vocab_size={tokenizer.vocab_size}"
    config = load_config("small", ["train.steps=300", "train.eval_every=50", *overrides, vocabulary])
    steps, batch_size, context = config.train.steps, config.train.batch_size, config.model.block_size

    # the network, with acorn's C kernels on a CPU with a C compiler; GPT(config.model) uses PyTorch's operations
    torch.manual_seed(config.train.seed)  # for dropout
    model = GPT(config.model, training_ops(runtime, in_place_gradients=False)).to(runtime.device)
    model.init_weights(config.train.seed)
    optimizers = build_optimizers(model, config.optimizer, muon_dtype=torch.float32)  # Muon for the blocks' matrices
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train):,} tokens, {steps:,} steps")
    # maps sample numbers to windows of the text: each window once per epoch, in an order that depends on the seed only
    order = SampleOrder(len(train), context, config.train.seed)
    losses = []
    for step in range(steps):
        ids, targets = read_batch(train, order, first=step * batch_size, count=batch_size)  # (B, T) each
        loss = loss_function(model(ids.to(runtime.device)), targets.to(runtime.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip or math.inf)
        set_rates(optimizers, rate_factor(config.schedule, done=step / steps, step_share=1 / steps))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        losses.append(loss.item())
        if step == 0 or (step + 1) % 10 == 0:
            print(f"step {step + 1:5}   loss {losses[-1]:.4f}", flush=True)
        if (step + 1) % config.train.eval_every == 0:
            nats, count = score(model, valid, context=context, limit=65_536)  # cross-entropy of the first tokens
            print(f"step {step + 1:5}   validation {nats / count:.4f}", flush=True)

    # figures to compare with those of `acorn evaluate`, and a folder that acorn and transformers load
    nats, count = score(model, valid, context=context)
    bits_per_byte = nats / math.log(2) / shards.count("valid").bytes
    print(f"validation: {nats / count:.4f} nats per token, {bits_per_byte:.4f} bits per byte")
    card = f"# {Path(out).name}\n\nTrained by own_loop.py for {steps:,} steps, with a z-loss of {Z_LOSS_WEIGHT:g}.\n"
    write_model_folder(Path(out), model.cpu(), tokenizer, card)
    return losses


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/own_loop.py SHARDS OUT [KEY=VALUE]...")
    main(*sys.argv[1:])
