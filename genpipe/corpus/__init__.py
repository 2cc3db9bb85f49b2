"""The corpus engine: inputs, shards, tokenizers, and the workers that count and encode."""
