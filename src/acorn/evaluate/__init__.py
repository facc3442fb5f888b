"""How well a model predicts text, in figures that survive a change of tokenizer."""
