"""Language modelling: which token follows; a row a position that has a target, judged by likelihood and fidelity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import Predict
from distill_cli.data import IGNORED, Data
from distill_cli.models.features import Output
from distill_cli.tasks.answers import OfSamples
from distill_cli.tasks.continuing import Continuing, Written
from distill_cli.tasks.language_details import LanguageDetails
from distill_cli.tasks.rows import AT_ONCE, Rows, Signal, wide
from distill_cli.tasks.task import Task
from distill_cli.tasks.watchers import Meter


class Language(Task):
    """Which of the tokens follows, at each position that has a target."""

    unit, metric, best, by_class = "tokens", "nll", ("-nll",), False

    def mask(self, targets: Tensor) -> Tensor:
        return targets != IGNORED

    def words(self) -> str:
        return self.data.input.words()

    def check(self, output: Output, role: str) -> None:
        shape, tokens = tuple(output.logits.shape), len(self.data.classes)
        if len(shape) != 3 or shape[0] != 2 or shape[2] != tokens:
            raise ConfigError(f"{role}: should give logits of shape (N, L, {tokens:,}), gave {('N', *shape[1:])}")

    def continuing(self, key: str) -> Continuing:
        return Continuing(self.data.input)  # type: ignore[arg-type]

    def replies(self, how: Predict) -> Written:
        return Written(self.data.input, self.rows, how)  # type: ignore[arg-type]

    def meter(self) -> LanguageMeter:
        return LanguageMeter(self.data)

    def difference(self, ours: Meter, theirs: Meter) -> dict[str, float]:
        assert isinstance(ours, LanguageMeter) and isinstance(theirs, LanguageMeter)
        difference, half = ours.difference(theirs)
        return {"nll": difference, "half_interval": half}

    def details(self) -> LanguageDetails:
        return LanguageDetails(self.data)

    def answers(self, both: bool) -> OfSamples:
        return OfSamples(self.unit, len(self.data.classes), both)


class LanguageMeter:
    """Metrics at T = 1, from a few numbers a row.

    nll: mean negative log-likelihood of the targets, in nats; perplexity: e to that; bits_per_byte: all of it in bits, over the
    bytes that the targets stand for; accuracy: share of rows whose target is the likeliest token; kl: mean KL(teacher || student)
    in nats, called kl64 where the teacher's is known of 64 tokens and the rest together; agreement: share of rows on which
    both find the same token likeliest.
    """

    names = ("nll", "perplexity", "bits_per_byte", "accuracy", "kl", "agreement")

    def __init__(self, data: Data) -> None:
        self.bytes_of = torch.as_tensor(data.input.tokenizer.bytes_of)  # type: ignore[attr-defined]
        self._columns: dict[str, list[Tensor]] = {}
        self.divergence = "kl"

    def update(self, rows: Rows, signal: Signal | None = None) -> None:
        for chunk in rows.chunks(max(1, AT_ONCE // len(self.bytes_of))):
            self._add(rows.part(chunk), None if signal is None else signal.part(chunk))

    def _add(self, rows: Rows, signal: Signal | None) -> None:
        logits = wide(rows.logits()).detach()
        log_p, decided = logits.log_softmax(-1), logits.argmax(-1)
        columns = {
            "sample": rows.index,
            "nll": -log_p.gather(-1, rows.targets[:, None])[:, 0],
            "bytes": self.bytes_of.to(rows.targets.device)[rows.targets],
            "right": decided == rows.targets,
        }
        if signal is not None:
            ours, theirs = signal.events(rows, 1.0)
            self.divergence = "kl" if ours.shape == logits.shape else f"kl{ours.shape[1] - 1}"
            log_s, log_t = wide(ours).log_softmax(-1), wide(theirs).log_softmax(-1)
            columns["kl"] = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1)
            columns["agreed"] = decided == signal.decided()
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column.double().cpu())

    def merge(self, other: LanguageMeter) -> None:
        self.divergence = other.divergence
        for name, parts in other._columns.items():
            self._columns.setdefault(name, []).extend(parts)

    def column(self, name: str) -> Tensor:
        """One number of every row seen, (M,): sample, nll, bytes, right; kl and agreed where there was a signal."""
        return torch.cat(self._columns[name])

    def compute(self) -> dict[str, float]:
        nll = self.column("nll")
        mean, size = float(nll.mean()), float(self.column("bytes").sum())
        metrics = {
            "nll": mean,
            "perplexity": math.exp(min(mean, 700.0)),
            "bits_per_byte": float(nll.sum()) / math.log(2) / max(size, 1.0),
            "accuracy": float(self.column("right").mean()),
        }
        if "kl" in self._columns:
            metrics |= {
                self.divergence: float(self.column("kl").mean()),
                "agreement": float(self.column("agreed").mean()),
            }
        return metrics

    def difference(self, other: LanguageMeter) -> tuple[float, float]:
        """The mean nll minus another model's on the same rows, and half its 95 % interval.

        Tokens of one sample are not independent: the interval is that of a ratio of sums over samples (Miller, 2024, arXiv
        2411.00640, section 2.2), with the number of its rows as a sample's weight.
        """
        sample, apart = self.column("sample").long(), self.column("nll") - other.column("nll")
        mean = float(apart.mean())
        sums = torch.zeros(int(sample.max()) + 1, dtype=torch.float64).index_add_(0, sample, apart - mean)
        return mean, float(1.96 * sums.square().sum().sqrt() / len(apart))
