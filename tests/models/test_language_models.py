"""Proves that language models see their own document alone, give the library's logits in two steps, and are cut and rebuilt."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config.load import load
from distill_cli.data.blocks import LanguageSpec
from distill_cli.data.texts import TextSpec
from distill_cli.data.tokens import FILE, Tokenizer
from distill_cli.data.vocabulary import Bytes
from distill_cli.deploy import cost
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import REBUILD, Classifier, num_parameters, origin, weights
from distill_cli.models.huggingface import fresh, huggingface
from distill_cli.models.language import CausalLM

TOKENIZER = Tokenizer.made_from(["a fine day", "a fine night"])
V = TOKENIZER.size


def small(family: str = "llama", words: int = V, layers: int = 2, **keys: Any) -> CausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fresh(words, V, 0, family, layers, width=16, heads=2, head="tokens", **keys)  # type: ignore[arg-type]
    assert isinstance(net, CausalLM)
    return stirred(net)


def stirred(net: CausalLM) -> CausalLM:
    """With weights so large that what must not be seen would show."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=draw))
    return net.eval()


def theirs(family: str, **sizes: Any) -> Any:
    """A model of the library's, by its own names for sizes."""
    transformers = pytest.importorskip("transformers")
    common = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(family, **common, intermediate_size=32, **sizes)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


def block(*texts: Sequence[int], width: int = 0) -> dict[str, Tensor]:
    """Texts that share a block, which is padded to `width`."""
    columns = [(id, place, number) for number, text in enumerate(texts, 1) for place, id in enumerate(text)]
    columns += [(0, 0, 0)] * (width - len(columns))
    names = ("input_ids", "position_ids", "segments")
    return {name: torch.tensor([row]) for name, row in zip(names, zip(*columns, strict=True), strict=True)}


FIRST, SECOND, OTHER = [5, 6, 7, 8, 9], [7, 5, 9, 6, 8, 5], [9, 9, 5, 8]


@pytest.mark.parametrize(("family", "sizes", "vocabulary", "millions"), [
    ("gpt2", {"layers": 12, "width": 768, "heads": 12, "positions": 1024}, 50257, 124.4),
    ("llama", {"layers": 30, "width": 576, "heads": 9, "kv_heads": 3, "inner": 1536, "positions": 8192}, 49152, 134.5),
])  # fmt: skip
def test_fresh_models_have_as_many_parameters_as_their_papers_say(
    family: str, sizes: dict[str, int], vocabulary: int, millions: float
) -> None:
    with torch.device("meta"):
        net = fresh(vocabulary, vocabulary, 0, family, head="tokens", **sizes)  # type: ignore[arg-type]
    assert num_parameters(net) == pytest.approx(millions * 1e6, rel=1e-3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_neither_neighbours_nor_padding_nor_what_comes_later_changes_a_documents_states(
    family: str, attention: str
) -> None:
    net = small(family, attention=attention)
    alone = net(block(SECOND))[0]
    assert alone.shape == (len(SECOND), 16)
    start = len(FIRST)
    for shared in (
        block(FIRST, SECOND),
        block(FIRST, SECOND, OTHER),
        block(FIRST, SECOND, width=20),
        block(FIRST, [*SECOND, 5, 5]),
    ):
        assert torch.allclose(net(shared)[0, start : start + len(SECOND)], alone, atol=1e-6)
    other = block([8, 8, 5, 6, 7], SECOND)
    assert torch.allclose(net(other)[0, start:], alone, atol=1e-6)
    both = {name: torch.cat([values, other[name]]) for name, values in block(FIRST, SECOND).items()}
    assert torch.allclose(net(both)[1, start:], alone, atol=1e-6)


@pytest.mark.parametrize(("family", "sizes"), [
    ("mistral", {"sliding_window": 3, "num_key_value_heads": 1}),
    ("gemma2", {"head_dim": 8, "num_key_value_heads": 1, "final_logit_softcapping": 0.5}),
    ("granite", {"logits_scaling": 8.0, "num_key_value_heads": 1}),
    ("cohere", {"logit_scale": 0.5, "num_key_value_heads": 1}),
    ("opt", {"ffn_dim": 32, "word_embed_proj_dim": 16}),
])  # fmt: skip
def test_head_and_states_are_the_librarys_logits_whatever_it_does_to_them(family: str, sizes: dict[str, Any]) -> None:
    net = stirred(CausalLM(theirs(family, **sizes), V))
    for document, start in ((FIRST, 0), (SECOND, len(FIRST))):
        wanted = net.whole(input_ids=torch.tensor([document])).logits[0]
        states = net(block(FIRST, SECOND, width=15))[0]
        assert torch.allclose(net.logits_of(states[start : start + len(document)]), wanted, atol=1e-5)


def test_a_model_that_cannot_keep_documents_apart_is_given_none_that_share_a_block() -> None:
    net = CausalLM(theirs("bloom"), V)
    assert torch.allclose(net(block(FIRST, width=9))[0, : len(FIRST)], net(block(FIRST))[0], atol=1e-6)
    with pytest.raises(ConfigError, match=r"bloom: it sees across documents that share a block\ndataset\.packing=none"):
        net(block(FIRST, SECOND))


def test_what_is_no_causal_language_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"family=bert: its tokens see those after them\nfamily=gpt2 or family=llama"):
        small("bert")
    with pytest.raises(ConfigError, match="bert: distill cannot tell what this model does"):
        CausalLM(theirs("bert"), V)
    with pytest.raises(ConfigError, match=f"the model has {V} tokens, the data {V + 1}"):
        small(words=V + 1)
    with pytest.raises(ConfigError, match="kv_heads=3: only llama has them, and heads=2 is to be a multiple"):
        small(kv_heads=3)
    seeing = theirs("llama")
    for layer in seeing.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(ConfigError, match="a token sees those after it"):
        CausalLM(seeing, V)


def test_a_table_that_is_longer_than_the_vocabulary_is_cut() -> None:
    net, cut = small(), small(words=V - 2)
    states = net(block(FIRST))[0]
    assert torch.equal(cut.logits_of(states), net.logits_of(states)[:, : V - 2])


def test_weights_are_saved_once_and_a_copy_is_on_its_own(tmp_path: Path) -> None:
    net = small()
    assert {name for name in net.state_dict() if "embed" in name or "head" in name} == {"model.embed_tokens.weight"}
    weights.save_weights(tmp_path / "net.safetensors", net)
    again = small()
    weights.load_into(again, weights.read_weights(tmp_path / "net.safetensors"), "net.safetensors")
    wanted = net.logits_of(net(block(FIRST)))
    assert torch.equal(again.logits_of(again(block(FIRST))), wanted)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.whole.get_input_embeddings().weight.zero_()
    assert torch.equal(net.logits_of(net(block(FIRST))), wanted)
    assert not other.logits_of(other(block(FIRST))).any()
    untied = CausalLM(theirs("phi"), V)
    assert "head.weight" in untied.state_dict() and "head.bias" in untied.state_dict()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net = small(layers=4)
    net.whole.save_pretrained(tmp_path / "llama")
    (tmp_path / "llama" / FILE).write_text(TOKENIZER.json)
    return tmp_path / "llama"


def test_a_language_model_that_is_brought_whole_teaches_as_it_is(folder: Path) -> None:
    settings = load(
        "train", ["dataset=pydoc", "teacher=huggingface", f"teacher.name={folder}", "student=bytes_tiny"]
    ).teacher
    fitted = load(
        "train", ["dataset=pydoc", "teacher=huggingface", "teacher.name=x", "teacher.fit.lora.rank=2"]
    ).teacher
    whole, cut, fresh = (
        Classifier(huggingface(V, 0, str(folder), layers, init, head="tokens"), TextSpec(TOKENIZER, 16))
        for layers, init in ((None, "name"), (2, "name"), (None, "fresh"))
    )
    assert [origin.fit_epochs(settings, model) for model in (whole, cut, fresh)] == [0, 6, 6]
    assert origin.fit_epochs(fitted, whole) == 6


@pytest.mark.parametrize(("layers", "kept"), [(None, [0, 1, 2, 3]), (2, [1, 3]), ([0, 3], [0, 3])])
def test_a_folder_is_loaded_cut_and_rebuilt_without_it(folder: Path, layers: Any, kept: list[int]) -> None:
    net = huggingface(V, 0, str(folder), layers, head="tokens").eval()
    assert isinstance(net, CausalLM) and net.tokenizer == TOKENIZER
    ours, all_of_them = net.state_dict(), small(layers=4).state_dict()
    for place, number in enumerate(kept):
        key = "self_attn.q_proj.weight"
        assert torch.equal(ours[f"model.layers.{place}.{key}"], all_of_them[f"model.layers.{number}.{key}"])
    assert [layer.self_attn.layer_idx for layer in net.whole.model.layers] == list(range(len(kept)))
    again = huggingface(V, 0, **json.loads(json.dumps(net.__dict__[REBUILD])), head="tokens")
    again.load_state_dict(ours)
    assert torch.equal(again.eval()(block(FIRST)), net(block(FIRST)))
    ids = torch.tensor([FIRST])
    with_cache = net.whole.generate(ids, max_new_tokens=4, do_sample=False)
    without = net.whole.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False)
    assert torch.equal(with_cache, without)


def test_a_folder_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    whole: Any = huggingface(3, 0, str(folder))
    whole.model.save_pretrained(tmp_path / "classifier")
    (tmp_path / "classifier" / FILE).write_text(TOKENIZER.json)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "classifier" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"is no language model: it holds no lm_head\.weight"):
        huggingface(V, 0, str(tmp_path / "classifier"), head="tokens")
    with pytest.raises(ConfigError, match="pooling=mean: a language model answers at every token"):
        huggingface(V, 0, str(folder), pooling="mean", head="tokens")


def test_a_teachers_folder_is_the_one_it_is_brought_from(tmp_path: Path) -> None:
    teacher = load("train", ["teacher=huggingface", f"teacher.name={tmp_path}"]).teacher
    assert origin.folder_of(teacher) == tmp_path
    assert origin.folder_of(load("train", ["teacher=smallcnn"]).teacher) is None
    with pytest.raises(ConfigError, match="there is no folder"):
        origin.folder_of(load("train", ["teacher=huggingface", "teacher.name=no/such/folder"]).teacher)


def test_the_cost_of_a_language_model_has_its_logits_in_it() -> None:
    words = Bytes()
    net = fresh(words.size, words.size, words.pad, "llama", 1, 16, 2, head="tokens")
    model = Classifier(net, LanguageSpec(words, 8))
    (measured,) = cost.measure({"one": Predictor({}, model)}, torch.device("cpu"), budget=0.1)["rows"]
    at_once = min(measured["batch"] * 8, cost.AT_ONCE)
    assert measured["peak_bytes"] - measured["bytes"] > 4 * at_once * words.size
    assert measured["tokens_per_second"] == pytest.approx(8 * measured["samples_per_second"])
