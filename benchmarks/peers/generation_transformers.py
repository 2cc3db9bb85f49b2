"""BERT as a decoder of transformers, written by its `generate` with its cache."""

from collections.abc import Mapping

from generation_common import END, PAD, START, Shape, Write, main, numbers_of
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel


def make(a: Shape) -> Mapping[str, Write]:
    """Greedy and beam search with the numbers of all."""
    config = BertConfig(
        vocab_size=a.num_tokens, hidden_size=a.dim, num_hidden_layers=a.num_blocks, num_attention_heads=a.num_heads,
        intermediate_size=4 * a.dim, max_position_embeddings=a.num_positions, is_decoder=True, pad_token_id=PAD,
        bos_token_id=START, eos_token_id=END,
    )  # fmt: skip
    model = BertLMHeadModel(config).eval()
    missing = model.load_state_dict(numbers_of(a), strict=False).missing_keys
    assert not [name for name in missing if not name.startswith("cls.predictions.decoder")], missing
    model.tie_weights()

    def write(texts: Tensor, beams: int) -> Tensor:
        made = model.generate(texts, max_new_tokens=a.new, do_sample=False, num_beams=beams, use_cache=True)
        return made[:, texts.shape[1] :]

    return {"greedy": lambda texts: write(texts, 1), "beam": lambda texts: write(texts, a.beam)}


main(make)
