"""The network and nothing else: no data, no tokenizer, no files."""
