"""Proves that what a model writes depends on seeds and beginnings alone, follows its probabilities, and ends where it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from distill_cli.data.blocks import LanguageSpec
from distill_cli.data.vocabulary import Bytes
from distill_cli.models import Classifier
from distill_cli.models.huggingface import fresh
from distill_cli.models.language import Cached
from distill_cli.models.writing import Again, Drawing, write

END = Bytes().end


class Net(nn.Module):
    """A causal network of bytes that says what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell = nn.Embedding(257, 8), nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 257)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = self.cell(self.dropout(self.table(inputs["input_ids"])))[0]
        return states

    def logits_of(self, states: Tensor) -> Tensor:
        logits: Tensor = self.head(states)
        return logits


@pytest.fixture
def model() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(Net(), LanguageSpec(Bytes(), 64))
    with torch.no_grad():
        model.net.get_parameter("head.weight").mul_(8)
        model.net.get_parameter("head.bias")[END] += 2  # so that some texts end
    return model.train()


BEGINNINGS = [b"a", b"some words", b"and more words than there", b"x" * 12, b"", b"last"]


def written(model: Classifier, rows: Sequence[int], room: int = 20, how: Drawing | None = None) -> list[list[int]]:
    texts = [torch.tensor([*BEGINNINGS[row], 32]) for row in rows]
    made = write(model, texts, [room] * len(rows), [100 + row for row in rows], END, how or Drawing())
    return [tokens.tolist() for tokens in made]


def test_a_text_depends_on_its_seed_and_its_beginning_not_on_those_beside_it(model: Classifier) -> None:
    together = written(model, range(6))
    assert together == [written(model, [row])[0] for row in range(6)]
    assert together[::-1] == written(model, [5, 4, 3, 2, 1, 0])
    assert len({tuple(text) for text in together}) == 6
    assert model.training


def test_a_text_ends_with_its_end_token_or_where_its_room_ends(model: Classifier) -> None:
    texts = written(model, range(6), room=30)
    ended = [text for text in texts if END in text]
    assert ended and len(ended) < 6
    assert all(text.index(END) == len(text) - 1 for text in ended)
    assert all(len(text) == 30 for text in texts if END not in text)
    shorter = written(model, range(6), room=3)
    assert shorter == [text[:3] for text in texts]


def test_a_temperature_of_0_takes_the_likeliest_token_of_a_text_read_from_its_beginning(model: Classifier) -> None:
    model.eval()
    (tokens,) = written(model, [1], how=Drawing(temperature=0))
    text = [*BEGINNINGS[1], 32]
    for token in tokens:
        states = model(LanguageSpec(Bytes(), 64).alone([torch.tensor(text)]))
        assert model.head is not None
        assert token == int(model.head(states[0, -1:]).argmax())
        text.append(token)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_keys_that_are_kept_give_what_reading_again_gives(family: Literal["llama", "gpt2"]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fresh(257, 257, 256, family, width=32, dropout=0.5, positions=64, head="tokens")
    for parameter in net.parameters():
        parameter.data.mul_(3)
    model = Classifier(net, LanguageSpec(Bytes(), 64)).eval()
    texts, own = [torch.tensor([*text, 32]) for text in BEGINNINGS], model.net.reader()
    assert isinstance(own, Cached)
    rows, readers = torch.tensor([4, 0, 2]), (own, Again(model))
    with torch.no_grad():
        for step in range(8):
            ids = torch.arange(len(texts if step < 4 else rows)) + step
            if step == 4:
                for reader in readers:
                    reader.keep(rows)
            kept, again = ((reader.go_on(ids) if step else reader.begin(texts)) for reader in readers)
            assert torch.isfinite(kept).all() and kept.std() > 0.1
            assert torch.allclose(kept, again, atol=1e-4)


def test_a_model_that_keeps_keys_writes_alike_alone_and_beside_others() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fresh(257, 257, 256, "llama", width=32, dropout=0.0, positions=64, head="tokens")
    model = Classifier(net, LanguageSpec(Bytes(), 64))
    together = written(model, range(6))
    assert together == [written(model, [row])[0] for row in range(6)]
    model.net.reader = lambda: None  # type: ignore[assignment]
    assert together == written(model, range(6))


LOGITS = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2]).log()


@pytest.mark.parametrize(
    ("how", "shares"),
    [
        (Drawing(), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (Drawing(temperature=0), [0, 1, 0, 0, 0]),
        (Drawing(temperature=0.5), [0.0364, 0.5818, 0.0091, 0.2273, 0.1455]),
        (Drawing(top_k=1), [0, 1, 0, 0, 0]),
        (Drawing(top_k=3), [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        (Drawing(top_k=99), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (Drawing(top_p=0.65), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Drawing(top_p=0.66), [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        (Drawing(top_p=0.01), [0, 1, 0, 0, 0]),
        (Drawing(top_k=2, top_p=0.9), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Drawing(top_k=3, top_p=0.5), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
    ],
)
def test_a_token_is_drawn_as_often_as_it_is_likely(how: Drawing, shares: list[float]) -> None:
    chances = (torch.arange(10_000) + 1) / 10_000
    drawn = how.draw(LOGITS.expand(10_000, 5), chances)
    assert torch.bincount(drawn, minlength=5) / 10_000 == pytest.approx(shares, abs=2e-3)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 1.0, -torch.inf, 1.0, -torch.inf]).expand(3, 5)
    assert Drawing().draw(logits, torch.tensor([2**-24, 0.5, 1.0])).tolist() == [1, 1, 3]
