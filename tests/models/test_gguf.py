"""Proves that a GGUF file is read as the model it holds, converted once, and refused where it is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.models import gguf as ours
from distill_cli.models.huggingface import fresh, huggingface
from distill_cli.models.language import CausalLM

LAYERS, WIDTH, HEADS, INNER = 2, 32, 2, 64
LETTERS = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]  # of bytes
TOKENS = ["<end>", *LETTERS, "th"]
NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def model() -> CausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fresh(
            len(TOKENS), len(TOKENS), 0, "llama", LAYERS, WIDTH, HEADS, INNER, kv_heads=1, positions=64, head="tokens"
        )
    assert isinstance(net, CausalLM)
    return net.eval()


def turned(weight: Tensor, heads: int) -> Tensor:
    """Queries or keys in the order of this format, which puts the halves of a rotation side by side."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    path = tmp_path / "there" / "small.gguf"
    path.parent.mkdir()
    writer, state = gguf.GGUFWriter(path, "llama"), model().state_dict()
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, *[1] * (len(TOKENS) - 1)])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(0)
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    for layer in range(LAYERS):
        for name, theirs in NAMES.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": HEADS, "attn_k": 1}.get(name)
            tensors[f"blk.{layer}.{name}.weight"] = turned(weight, heads) if heads else weight
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path: Path) -> Any:
    return huggingface(len(TOKENS), 0, str(path), head="tokens").eval()


def test_a_file_is_read_as_the_model_it_holds_and_converted_once(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = torch.arange(1, 9)[None]
    inputs = {"input_ids": ids, "position_ids": torch.arange(8)[None], "segments": torch.ones_like(ids)}
    net = read(file)
    wanted, told = model(), capfd.readouterr()
    assert torch.allclose(net.logits_of(net(inputs)), wanted.logits_of(wanted(inputs)), atol=1e-5)
    assert net.tokenizer.tokens == tuple(TOKENS) and net.tokenizer.plain(["the"]) == [[257, 69]]
    assert told.err.count("\n") == 1 and "small.gguf: converting it to safetensors" in told.err
    assert "quantization_config" not in str(net.whole.config)
    again = read(file.parent)
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in net.state_dict().items())
    assert not capfd.readouterr().err
    assert len(list((tmp_path / "home" / "distill").glob("small-*"))) == 1


def test_what_cannot_be_converted_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = file.with_name("other.gguf")
    other.write_bytes(file.read_bytes()[:4000])
    with pytest.raises(CheckpointError, match=r"other\.gguf: cannot be read"):
        read(other)
    with pytest.raises(CheckpointError, match=r"holds 2 GGUF files\nname one, as in name=.*other\.gguf"):
        read(file.parent)
    monkeypatch.setattr(ours, "NEEDED", ("gguf", "no_such_package_x"))
    with pytest.raises(ConfigError, match=r"needs the package no_such_package_x\npip install"):
        read(file)
