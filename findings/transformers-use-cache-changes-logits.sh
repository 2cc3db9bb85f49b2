#!/usr/bin/env bash
# use_cache=False changes what a transformers model attends to when position ids have a gap.
#
# Guess:    use_cache is a matter of speed. Position ids with gaps are taken as the starts of new documents, or they are
#           not; a model does the same in training and after it.
# Seen:     without an attention mask and without a cache each step of the position ids other than +1 cuts the attention:
#           the last token no longer sees the first. With use_cache=True, which is the default, or with a mask of ones
#           nothing is cut. Restarted positions (packed documents), gaps and positions that are all 0
#           are treated alike. Gradient checkpointing in training mode switches the cache off, and so cuts; eval() of the
#           same model does not. eager and sdpa agree.
# Versions: transformers 5.24.0, torch 2.13.0.
# Matters:  Trainer sets use_cache=False in the config of the model (read in its code). Positions with gaps, drawn at
#           random to learn longer texts, then train a model that sees only pieces, without a warning. In a loop of one's
#           own with gradient checkpointing packed documents are apart in training and mixed in the validation loss.
# Remedy:   for gaps pass attention_mask of ones. For packed documents pass use_cache=False wherever the model is called.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  transformers==5.24.0 torch==2.13.0 numpy==2.4.6
export PYTHONPATH="$folder/site-packages" HF_HOME="$folder/home" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
cd "$folder"
python3 -W ignore - <<'PY'
import torch, transformers
from transformers import LlamaConfig, LlamaForCausalLM
print("transformers", transformers.__version__, "torch", torch.__version__)
transformers.logging.set_verbosity_error()
words = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8]])
other = torch.tensor([[4, 14, 15, 9, 26, 5, 35, 8]])
positions = {"plain": list(range(8)), "restart": [0, 1, 2, 3] * 2, "gap": [0, 1, 2, 3, 10, 11, 12, 13], "all 0": [0] * 8}
def sees_first(model, places, **options):
    """Whether another first word changes the logits of the last."""
    last = [model(ids, position_ids=torch.tensor([places]), **options).logits[0, -1] for ids in (words, other)]
    return not torch.equal(*last)
ways = {"default": {}, "use_cache=False": {"use_cache": False},
        "use_cache=False and a mask of ones": {"use_cache": False, "attention_mask": torch.ones_like(words)}}
for attention in ("eager", "sdpa"):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, attn_implementation=attention)).eval()
    for way, options in ways.items():
        seen = {name: sees_first(model, places, **options) for name, places in positions.items()}
        print(f"{attention}, {way}: the last token sees the first:", seen)
        whole = way != "use_cache=False"
        assert seen == {"plain": True, "restart": whole, "gap": whole, "all 0": whole}, "the cuts have changed"
    places = torch.tensor([positions["restart"]])
    losses = [float(model(words, position_ids=places, labels=words, use_cache=cache).loss) for cache in (True, False)]
    print(f"{attention}, loss of packed documents: {losses[0]:.5f} with a cache, {losses[1]:.5f} without")
    assert abs(losses[0] - losses[1]) > 1e-4
    model.gradient_checkpointing_enable()
    for name in ("restart", "gap"):
        kinds = sees_first(model.train(), positions[name]), sees_first(model.eval(), positions[name])
        print(f"{attention}, gradient checkpointing, {name}: seen in train() {kinds[0]}, in eval() {kinds[1]}")
        assert kinds == (False, True), "gradient checkpointing has changed"
PY
