"""What `genpipe embed` writes into its folder: names of files alone, so that the command line knows them at once."""

from genpipe.files import MODEL

CARD, SENTENCES, VECTORS = "embedding.json", "sentences.jsonl", "vectors.safetensors"
GRAPH, GRAPH_CARD = "index.faiss", "index.json"
EMBEDDED = (*MODEL, CARD, SENTENCES, VECTORS, GRAPH, GRAPH_CARD)
