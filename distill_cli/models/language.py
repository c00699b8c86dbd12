"""Language models of transformers as networks: states, and logits of some of them; reading is in huggingface.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from distill_cli.base.errors import ConfigError
from distill_cli.data.tokens import Tokenizer
from distill_cli.models import evaluating
from distill_cli.models.wrapped import HuggingFace
from distill_cli.models.writing import Reader

CACHES = ("cache", "past_key_values")  # arguments of the library's models, of newer and older versions
CLOSE = 1e-4  # how far our logits may be from the library's own, absolutely and relatively


class CausalLM(HuggingFace):
    """A causal language model of transformers: token ids, positions and segments (N, L) -> states (N, L, D), of which its head
    makes logits. No position sees another document of its block, nor what comes after it.

    Args:
        model: the library's, whose states and head are taken apart. words: how many tokens the data have; a table may have more.
        tokenizer: the one it was trained with; None: it takes the data's.

    Attributes:
        whole: the library's own model around the same weights, which can generate and be saved.
        apart: what keeps the documents of a block apart: the library, which sees where positions start again, a `mask`
            (N, 1, L, L) of ours, or nothing.

    Raises:
        ConfigError: it has too few tokens, is not causal, or does more to its logits than is known here.
    """

    whole: Any
    head_is_new = False

    def __init__(self, model: Any, words: int, tokenizer: Tokenizer | None = None) -> None:
        if model.get_output_embeddings() is None or model.base_model is model:
            raise ConfigError(f"{model.config.model_type}: has no head over tokens")
        super().__init__(model.base_model, tokenizer)
        self.__dict__["whole"] = model  # no module of ours: what it shares with the others would be saved twice
        head = model.get_output_embeddings()
        if len(head.weight) < words and tokenizer is None:  # with one the data's spec tells which tokens differ
            raise ConfigError(f"the model has {len(head.weight):,} tokens, the data {words:,}")
        self.words = min(words, len(head.weight))
        self.tied = head.weight is model.get_input_embeddings().weight
        if not self.tied:
            self.head = head
        self.model.__dict__["warn_if_padding_and_no_attention_mask"] = _no_warning
        self.apart: Literal["positions", "mask", "nothing"] = "positions"
        if not head.weight.is_meta:
            self._prove()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`input_ids`, `position_ids` and `segments`, (N, L) int64 -> states after the last norm, (N, L, D).

        Raises:
            ConfigError: documents share a block, and it cannot keep them apart.
        """
        segments = inputs["segments"]
        if self.apart == "mask":
            inputs = {**inputs, "attention_mask": self._mask(segments)}
        elif self.apart == "nothing" and (segments > 1).any():
            name = self.whole.config.model_type
            raise ConfigError(f"{name}: it sees across documents that share a block", "dataset.packing=none, or stream")
        states: Tensor = self.answer(inputs)[0]
        return states

    def logits_of(self, states: Tensor) -> Tensor:
        """States (M, D) -> logits (M, V): the head, and what the model does to its logits."""
        config = self.whole.config
        head = self.whole.get_output_embeddings()
        # What is shared is found where it is a parameter of ours, which another can have been put in place of.
        given = F.linear(states, self.whole.get_input_embeddings().weight, head.bias) if self.tied else head(states)
        logits: Tensor = given[..., : self.words]
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = (logits / cap).tanh() * cap
        if by := getattr(config, "logits_scaling", None):  # of Granite, which divides
            logits = logits / by
        if isinstance(by := getattr(config, "logit_scale", None), float | int):  # of Cohere, which multiplies
            logits = logits * by
        return logits

    def reader(self) -> Reader | None:
        """What reads texts for it token by token; None: they are to be read again from their beginning."""
        cache = next((name for name in CACHES if {name, "attention_mask"} <= set(self.takes)), None)
        return Cached(self, cache) if cache else None

    def _mask(self, segments: Tensor) -> Tensor:
        """Which positions each one sees, (N, 1, L, L): those of its segment, up to itself."""
        seen = (segments[:, None, :, None] == segments[:, None, None, :]).tril()
        if self.whole.config._attn_implementation == "sdpa":
            return seen
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)

    @torch.no_grad()
    def _prove(self) -> None:
        """Hold logits against the library's own: of a text alone, of its beginning, and of two texts that share a block."""
        device, name = next(self.parameters()).device, self.whole.config.model_type
        ids = torch.randint(self.words, (1, 8), generator=torch.Generator().manual_seed(0)).to(device)
        places, segments = torch.arange(8, device=device)[None], torch.ones_like(ids)

        def ours(places: Tensor, segments: Tensor) -> Tensor:
            states = self({"input_ids": ids, "position_ids": places, "segments": segments})
            return self.logits_of(states[0])

        def close(ours: Tensor, *texts: Tensor) -> bool:
            theirs = torch.cat([self.whole(input_ids=text).logits[0, :, : self.words] for text in texts])
            return torch.allclose(ours, theirs, rtol=CLOSE, atol=CLOSE)

        with evaluating(self.whole):
            alone = ours(places, segments)
            if not close(alone, ids):
                raise ConfigError(f"{name}: distill cannot tell what this model does between its states and its logits")
            if not close(alone[:4], ids[:, :4]):
                raise ConfigError(f"{name}: is no causal language model: a token sees those after it")
            for self.apart in ("positions", "mask"):
                try:
                    if close(ours(places % 5, segments + places // 5), ids[:, :5], ids[:, 5:]):
                        return
                except Exception:  # it takes no such mask, which it tells in many ways
                    continue
            self.apart = "nothing"


def _no_warning(*_: object) -> None:
    """In place of the library's own, of padding without a mask: padding is behind all else here, where no token sees it."""


class Cached:
    """Reads each token once: of those before it a language model keeps keys and values. Shorter texts are filled up before them.

    Args:
        cache: what the model calls that which it keeps.
    """

    def __init__(self, net: CausalLM, cache: str) -> None:
        self.net, self.cache = net, cache

    def begin(self, texts: Sequence[Tensor]) -> Tensor:
        ids = pad_sequence(list(texts), batch_first=True, padding_side="left")
        sizes = torch.tensor([len(text) for text in texts], device=ids.device)
        self.own = torch.arange(ids.shape[1], 0, -1, device=ids.device) <= sizes[:, None]
        self.kept: Any = None
        return self._read(ids, (self.own.cumsum(1) - 1).clamp(min=0))

    def go_on(self, ids: Tensor) -> Tensor:
        self.own = torch.cat([self.own, torch.ones_like(self.own[:, :1])], 1)
        return self._read(ids[:, None], self.own.sum(1, keepdim=True) - 1)

    def keep(self, rows: Tensor) -> None:
        self.own = self.own[rows]
        self.kept.batch_select_indices(rows)

    def _read(self, ids: Tensor, places: Tensor) -> Tensor:
        """The logits (N, V) behind tokens (N, K) at their positions."""
        given: dict[str, Any] = {self.cache: self.kept, "use_cache": True}
        said = self.net.answer({**given, "input_ids": ids, "position_ids": places, "attention_mask": self.own.long()})
        self.kept = said[self.cache]
        return self.net.logits_of(said.last_hidden_state[:, -1])
