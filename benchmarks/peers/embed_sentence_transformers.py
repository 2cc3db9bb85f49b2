"""Sentences as vectors by sentence-transformers, from texts on: SHAPE VOCABULARY SENTENCES NUM; the last line is JSON with CPU seconds.

BERT with random weights, the mean over tokens, vectors of length 1; texts are cut into words, in lower case, by a WordLevel tokenizer.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

torch.set_num_threads(1)
shape, vocabulary, file, num = sys.argv[1:]
dim, blocks, heads = map(int, shape.split("x"))
words = json.loads(Path(vocabulary).read_text(encoding="utf-8"))
lines = Path(file).read_text(encoding="utf-8").splitlines()[: int(num)]

numbers = {word: number for number, word in enumerate([*words, "<pad>"])}
tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+(?:['’]\w+)*"), "removed", invert=True)
longest = 512
config = BertConfig(
    vocab_size=len(numbers), hidden_size=dim, num_hidden_layers=blocks, num_attention_heads=heads,
    intermediate_size=4 * dim, max_position_embeddings=longest, pad_token_id=numbers["<pad>"],
)  # fmt: skip
with tempfile.TemporaryDirectory() as folder:
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=longest
    ).save_pretrained(folder)
    transformer = Transformer(folder, max_seq_length=longest)
model = SentenceTransformer(modules=[transformer, Pooling(dim, "mean"), Normalize()], device="cpu")
model.encode(lines[:64])
begun = time.process_time()
vectors = np.asarray(model.encode(lines, batch_size=32, show_progress_bar=False))
seconds = time.process_time() - begun
assert vectors.shape == (len(lines), dim)
assert np.isfinite(vectors).all()
print(json.dumps({"seconds": seconds}))
