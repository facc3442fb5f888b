"""Training as in the original: AdamW with a constant learning rate of 5e-4, random windows."""

from __future__ import annotations

import torch

from benchmarks.contenders.answering import answer, specification
from benchmarks.contenders.original_model import OriginalModel


def main() -> None:
    spec = specification()
    torch.manual_seed(0)
    model = OriginalModel(**spec["original_model"]).to(spec["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    text = torch.randint(spec["original_model"]["vocab_size"], (1 << 16,))
    length = model.block_size

    def work() -> dict[str, float]:
        starts = torch.randint(len(text) - length, (spec["batch_size"],)).tolist()
        ids = torch.stack([text[start : start + length] for start in starts]).to(spec["device"])
        targets = torch.stack([text[start + 1 : start + length + 1] for start in starts]).to(spec["device"])
        loss = model.loss(ids, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"tokens": ids.numel(), "loss": loss.item()}

    answer(work, warm_up=spec["warm_up"], device=spec["device"])


if __name__ == "__main__":
    main()
