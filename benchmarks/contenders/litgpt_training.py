"""Training of litgpt's model as in its `pretrain` command: Fabric, compiled, chunked loss, fused AdamW.

It runs in its own environment, because litgpt needs an older huggingface-hub than transformers 5.
"""

from __future__ import annotations

import lightning
import torch
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.utils import chunked_cross_entropy

from benchmarks.contenders.answering import answer, specification


def main() -> None:
    spec = specification()
    fabric = lightning.Fabric(accelerator=spec["device"], devices=1, precision=spec["litgpt_precision"])
    fabric.launch()
    with fabric.init_module(empty_init=False):
        model = GPT(Config(**spec["litgpt"]))
    if spec["tied"]:
        model.transformer.wte.weight = model.lm_head.weight
    model = fabric.setup(torch.compile(model) if spec["compile"] else model)
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True))
    text = torch.randint(spec["litgpt"]["vocab_size"], (spec["batch_size"], spec["block_size"] + 1)).to(fabric.device)

    def work() -> dict[str, float]:
        logits = model(text[:, :-1].contiguous())
        loss = chunked_cross_entropy(logits, text[:, 1:].contiguous())
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"tokens": spec["batch_size"] * spec["block_size"], "loss": loss.item()}

    answer(work, warm_up=spec["warm_up"], device=spec["device"])


if __name__ == "__main__":
    main()
