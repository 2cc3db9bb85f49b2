"""Checkpoints of the BERT family beside `transformers` itself, in both directions."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from genpipe.errors import BadInput, GenpipeError
from genpipe.files import WEIGHTS
from genpipe.models.masked_lm import MaskedLM
from genpipe.nn.bert import Bert
from genpipe.nn.masks import of_tokens
from genpipe.nn.pretrained import Pretrained, ids_of, keep_tokens, load_pretrained, save_pretrained
from genpipe.params.project import check_params
from genpipe.sources.datasets import prepare_from
from genpipe.training.checkpoint import load_fitting
from genpipe.yaml_text import read

REPOSITORY = Path(__file__).parent.parent
MINILM = REPOSITORY / "data" / "minilm"
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": 20, "type_vocab_size": 2, "attn_implementation": "eager",
}  # fmt: skip
MODELS = {
    "BertModel": (transformers.BertConfig, {}),
    "BertForMaskedLM": (transformers.BertConfig, {"hidden_act": "gelu_new"}),
    "ElectraModel": (transformers.ElectraConfig, {"embedding_size": 8}),
    "ElectraForMaskedLM": (transformers.ElectraConfig, {"embedding_size": 8}),
    "RobertaModel": (transformers.RobertaConfig, {"type_vocab_size": 1, "pad_token_id": 1}),
    "RobertaForMaskedLM": (transformers.RobertaConfig, {"type_vocab_size": 1, "pad_token_id": 1}),
}


def theirs(name: str):
    """A model of transformers with weights unlike those of a start."""
    torch.manual_seed(0)
    make, changes = MODELS[name]
    made = getattr(transformers, name)(make(**SMALL | changes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def texts(
    num_tokens: int, num_segments: int, time: int = 9
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids without padding's of RoBERTa, segments, and which are tokens: the second text has padding."""
    ids = torch.randint(2, num_tokens, (2, time))
    tokens = torch.arange(time) < torch.tensor([[time], [time - 3]])
    return ids.masked_fill(~tokens, 1), torch.arange(time).expand(2, -1) * num_segments // time, tokens


def hidden_states(model, ids, segments, tokens):
    """What transformers makes of texts, without that of padding, and its logits, where it has a head."""
    with torch.no_grad():
        out = model(ids, attention_mask=tokens.long(), token_type_ids=segments, output_hidden_states=True)
    return out.hidden_states[-1][tokens], out.logits[tokens] if "logits" in out else None


def same(model: Bert, other, num_segments: int) -> bool:
    ids, segments, tokens = texts(model.embeddings.tokens.num_embeddings, num_segments)
    expected, logits = hidden_states(other, ids, segments, tokens)
    with torch.no_grad():
        found = model(ids, segments, mask=of_tokens(tokens))
        is_same = torch.allclose(found[tokens], expected, rtol=0, atol=1e-5)
        if logits is not None:
            is_same = is_same and torch.allclose(model.logits(found[tokens]), logits, rtol=0, atol=1e-5)
    return is_same and (logits is None) == (model.head is None)


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_and_logits_are_those_of_transformers_in_both_directions(name, tmp_path):
    other = theirs(name)
    other.save_pretrained(tmp_path / "theirs")
    found = load_pretrained(tmp_path / "theirs")
    num_segments = SMALL["type_vocab_size"] if "Roberta" not in name else 1
    assert same(found.model, other, num_segments)
    save_pretrained(found, tmp_path / "ours")
    back = (
        transformers.AutoModel if found.model.head is None else transformers.AutoModelForMaskedLM
    ).from_pretrained(tmp_path / "ours")
    assert same(found.model, back.eval(), num_segments)
    if "Roberta" not in name:
        before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        found.model.blocks[1].attention.project.bias.add_(0.01)
    assert not same(found.model, back, num_segments)


@pytest.mark.skipif(not MINILM.exists(), reason="genpipe data minilm")
def test_a_real_model_has_the_hidden_states_that_transformers_gives(tmp_path):
    found, other = load_pretrained(MINILM), transformers.AutoModel.from_pretrained(MINILM).eval()
    words = ["[CLS]", "moon", "##light", "before", "my", "bed", ",", "frost", "[SEP]"]
    ids = torch.tensor([ids_of(words, found.vocabulary)])
    assert [found.vocabulary[number] for number in ids[0]] == words
    tokens = torch.ones_like(ids, dtype=torch.bool)
    expected, _ = hidden_states(other, ids, torch.zeros_like(ids), tokens)
    with torch.no_grad():
        assert torch.allclose(found.model(ids)[0], expected, rtol=0, atol=1e-5)
    save_pretrained(found, tmp_path / "ours")
    back = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in other.state_dict().items())
    assert (tmp_path / "ours/vocab.txt").read_bytes() == (MINILM / "vocab.txt").read_bytes()


def test_tokens_that_are_kept_have_the_same_features_under_new_ids(tmp_path):
    theirs("BertForMaskedLM").save_pretrained(tmp_path)
    keep = [7, 3, 39, 0]
    whole, cut = load_pretrained(tmp_path), load_pretrained(tmp_path, keep)
    assert cut.model.embeddings.tokens.num_embeddings == 4
    ids = torch.tensor([[0, 2, 1, 3, 2]])
    with torch.no_grad():
        hidden, expected = cut.model(ids), whole.model(torch.tensor(keep)[ids])
        assert torch.equal(hidden, expected)
        assert torch.allclose(cut.model.logits(hidden), whole.model.logits(expected)[..., keep], atol=1e-6)
    named = Pretrained(whole.model, tuple(map(str, range(40))))
    assert keep_tokens(named, ids_of(["7", "x", "2"], named.vocabulary, unknown="0")).vocabulary == (
        "7",
        "0",
        "2",
    )
    with pytest.raises(BadInput, match="keep: one or more of the 3 tokens, not 3"):
        keep_tokens(named, [0, 3])


def test_old_names_of_norms_and_shards_are_read(tmp_path):
    other = theirs("BertModel")
    other.save_pretrained(tmp_path, max_shard_size="4KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert same(load_pretrained(tmp_path).model, other, 2)
    whole = tmp_path / "old"
    whole.mkdir()
    other.config.save_pretrained(whole)
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value.clone()
        for name, value in other.state_dict().items()
    }
    save_file(renamed, whole / "model.safetensors")
    assert same(load_pretrained(whole).model, other, 2)


def test_what_is_no_checkpoint_is_one_clear_line(tmp_path):
    with pytest.raises(GenpipeError, match=r"config.json.*name the folder"):
        load_pretrained(tmp_path)
    other = theirs("BertModel")
    other.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())

    def refused(words: str, **changes):
        path.write_text(json.dumps(config | changes))
        with pytest.raises(BadInput, match=words):
            load_pretrained(tmp_path)

    refused("model_type 'gpt2'; of the family there is: bert, electra, roberta", model_type="gpt2")
    refused("positions are relative_key", position_embedding_type="relative_key")
    refused("hidden_act 'silu'", hidden_act="silu")
    refused(
        r"blocks.0.wide.weight has the shape \[24, 16\], and config.json describes \[30, 16\]",
        intermediate_size=30,
    )
    refused("no tensor of blocks.2", num_hidden_layers=3)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("not a whole safetensors file")
    weights.rename(tmp_path / "pytorch_model.bin")
    refused("there is pytorch_model.bin, which may hold code and is not read; convert it")


def test_a_network_that_transformers_cannot_have_is_not_saved(tmp_path):
    for words, options in (
        ("norms before the layers", {"pre_norm": True}),
        ("heads that talk", {"talking_heads": "after"}),
        ("a key_size of its own", {"key_size": 3}),
        ("conditions", {"condition_dim": 3}),
        ("a Synthesizer", {"attention": ("random",)}),
    ):
        with pytest.raises(BadInput, match=f"the network has {words}"):
            save_pretrained(Pretrained(Bert(9, 8, 1, 2, max_length=5, **options)), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="not empty"):
        save_pretrained(Pretrained(Bert(9, 8, 1, 2, max_length=5)), tmp_path)


def test_a_training_begins_with_a_prepared_checkpoint(tmp_path):
    """All but the segments, which a masked language model does not have."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL | {"intermediate_size": 64})
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "theirs")
    prepared = prepare_from(tmp_path / "theirs", tmp_path / "out", {"kind": "checkpoint"})
    assert prepared.facts["dim"] == 16
    recipe = MaskedLM(num_tokens=40, time=20, pad=35, mask=39, dim=16, num_blocks=2, num_heads=4)
    assert load_fitting(recipe, tmp_path / "out" / WEIGHTS) == []
    found = load_pretrained(tmp_path / "theirs").model.state_dict()
    own = recipe.bert.state_dict()
    assert found.keys() - own.keys() == {"embeddings.segments.weight"}
    assert all(torch.equal(value, found[name]) for name, value in own.items())
    assert (tmp_path / "out" / WEIGHTS).stat().st_mode & 0o044


@pytest.mark.parametrize(("key", "is_right"), [("start", True), ("judge", False), ("validator", False)])
def test_a_checkpoint_starts_a_training_and_judges_nothing(key, is_right):
    params = read(REPOSITORY / "params.yaml")
    recipe = {**params["recipes"]["masked_lm"], key: "datasets/minilm"}
    changed = {**params, "recipes": {**params["recipes"], "masked_lm": recipe}}
    if is_right:
        assert check_params(changed).recipes["masked_lm"].start == "datasets/minilm"
    else:
        with pytest.raises(GenpipeError, match=rf"recipes.masked_lm.{key}"):
            check_params(changed)
