"""The steps of gpu.py about training: a step over a bare one, a cache over the student alone, live teachers, tokens."""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from gpu_made import DEVICE, GPU, SGD, Found, Sizes, Taken, exchanging, in_turn, of_pixels, wait
from torch.nn import functional as F

from distill_cli.base import runtime, world
from distill_cli.objectives.correlation import dist
from distill_cli.teachers import answer
from distill_cli.training.job import Job

MOST, LEAST = (
    1.02,
    0.95,
)  # what a step may cost over a bare one, and images/s from a warm cache over the student's alone
HEAT, SHARE = 3.0, 0.7  # T and alpha


def bare(job: Job, classes: int, terms: bool) -> Callable[[], float]:
    """Epochs of a plain loop of torch over the same pictures, with the same loss, precision and optimizer; seconds of one."""
    model, train = copy.deepcopy(job.student).train(), job.data.train
    pixels = train.source.held
    assert isinstance(pixels, torch.Tensor)
    answers = torch.randn(len(train), classes, device=DEVICE)
    own = job.settings.optimizer
    optimizer = torch.optim.SGD(model.parameters(), own.lr, own.momentum, fused=True)
    layout = getattr(model.front, "layout", torch.contiguous_format)

    def epoch() -> float:
        wait()
        started = time.perf_counter()
        for index in torch.randperm(len(train)).to(DEVICE).split(job.settings.batch_size):
            images = pixels[index].float().mul_(1 / (255 * 0.25)).sub_(0.5 / 0.25).contiguous(memory_format=layout)
            labels, theirs = train.targets[index], answers[index]
            with runtime.autocast(DEVICE, job.dtype):
                logits = model.net(images)
            logits = logits.float()
            logs = F.log_softmax(logits / HEAT, -1), F.log_softmax(theirs / HEAT, -1)
            signal = HEAT**2 * F.kl_div(*logs, reduction="batchmean", log_target=True)
            signal = signal + dist(logits, theirs, temperature=HEAT) if terms else signal
            ((1 - SHARE) * F.cross_entropy(logits, labels) + SHARE * signal).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        wait()
        return time.perf_counter() - started

    return epoch


def cost(sizes: Sizes) -> Iterator[Found]:
    """Of a step; the first epoch, in which libraries choose and weights are looked at, does not count."""
    number = sizes.batch * sizes.steps
    words = [*of_pixels(number, sizes.photo, sizes.classes), "teacher=resnet8x4", "teacher.fit.epochs=0", *SGD]
    words += [f"student={sizes.large}", f"batch_size={sizes.batch}", f"T={HEAT}", f"alpha={SHARE}", "output_dir=cost"]
    alone = {"ours": [], "ours with debug": ["debug=true"], "kd and dist": ["objective=[kd,dist]"]}
    grouped = {"all exchanged": ["sync_bn=false"], "synced batch norm": []}
    with exchanging():
        with world.alone():
            runs = {name: Taken(*words, *more) for name, more in alone.items()}
        ways = {name: alone_in(run) for name, run in runs.items()}
        ways |= {name: Taken(*words, *more).epoch for name, more in grouped.items()}
        job = runs["ours"].job
        ways |= {"bare": bare(job, sizes.classes, False), "bare, both": bare(job, sizes.classes, True)}
        seconds = in_turn(ways, sizes.rounds)
    step = 1000 * seconds["bare"] / sizes.steps
    yield Found(f"{sizes.large}, {sizes.batch} of {sizes.photo} px: a bare step {step:.1f} ms; times that")
    for name, other in {"ours": "bare", "all exchanged": "bare", "kd and dist": "bare, both"}.items():
        over = seconds[name] / seconds[other]
        yield Found(f"{name} {over:.3f}", f"{name} {MOST}", sizes.dry or over <= MOST)
    yield Found(f"synced batch norm {seconds['synced batch norm'] / seconds['bare']:.3f}")
    yield Found(f"debug {1000 * (seconds['ours with debug'] - seconds['ours']):+.0f} ms an epoch")


def alone_in(run: Taken) -> Callable[[], float]:
    """The run's epochs, of which others of the group know nothing."""

    def epoch() -> float:
        with world.alone():
            return run.epoch()

    return epoch


def warm(sizes: Sizes) -> Iterator[Found]:
    for student in ("resnet20", sizes.middle):
        words = [*of_pixels(sizes.small, 32, sizes.classes), "teacher=resnet8x4", "teacher.fit.epochs=0", *SGD]
        words += [f"student={student}", f"batch_size={sizes.small_batch}", "output_dir=warm"]
        runs = {name: Taken(*words, f"objective={name}") for name in ("ce", "kd")}
        assert runs["kd"].way.kind == "cached", runs["kd"].way.note
        seconds = in_turn({name: run.epoch for name, run in runs.items()}, sizes.rounds)
        share, alone = seconds["ce"] / seconds["kd"], sizes.small / seconds["ce"]
        told = f"{student}, batch {sizes.small_batch}: {share:.3f} of the student's {alone:,.0f} images/s"
        yield Found(told, f"{student} {LEAST}", sizes.dry or share >= LEAST)


def live(sizes: Sizes) -> Iterator[Found]:
    number = sizes.batch * sizes.steps
    words = [*of_pixels(number, sizes.photo, sizes.classes), f"teacher={sizes.large}", "teacher.fit.epochs=0", *SGD]
    words += [f"student={sizes.middle}", f"batch_size={sizes.batch}", "output_dir=live"]
    more = {"live": ["teacher.cache=off"], "fp32": ["teacher.cache_dtype=fp32"], "fp16": ["teacher.cache_dtype=fp16"]}
    runs = {name: Taken(*words, *extra) for name, extra in more.items()}
    made = {name: run.prepared_in for name, run in runs.items()}
    kept, answer.ON_DEVICE = answer.ON_DEVICE, 0  # as where they are too many for the device
    runs["fp16 on the disk"] = Taken(*words, *more["fp16"])
    answer.ON_DEVICE = kept
    seconds = in_turn({name: run.epoch for name, run in runs.items()}, sizes.rounds)
    yield Found(f"{sizes.large} teaches {sizes.middle}, {number:,} of {sizes.photo} px; seconds an epoch: "
                + "; ".join(f"{name} {each:.3f}" for name, each in seconds.items()))  # fmt: skip
    notes = "; ".join(f"{name}: {runs[name].way.note}" for name in ("fp32", "fp16"))
    ratio = seconds["fp16"] / seconds["fp32"]
    yield Found(
        f"{notes}; made in {made['fp16']:.1f} s; fp16 over fp32 {ratio:.3f}", f"{MOST}", sizes.dry or ratio <= MOST
    )


def of_language(sizes: Sizes) -> list[str]:
    """The words of a run of a language student; its teacher has two layers: a kept answer does not tell how long it took."""
    words = [*of_words(sizes), "teacher=gpt2", *(f"teacher.{one}" for one in sizes.student), "teacher.layers=2"]
    words += ["student=gpt2", *(f"student.{one}" for one in sizes.student), "T=1", "teacher.fit.epochs=0"]
    return [*words, f"batch_size={sizes.language_batch}", "output_dir=language", "optimizer=adamw", "optimizer.lr=1e-4"]


def language(sizes: Sizes) -> Iterator[Found]:
    words = of_language(sizes)
    ways = {"labels": ["objective=ce"], "topk": ["objective=kd", "teacher.keep=topk"]}
    ways["hidden"] = ["objective=kd", "teacher.keep=hidden"]
    ways["hidden, 2048 rows at once"] = [*ways["hidden"], "rows_at_once=2048"]
    for name, more in ways.items():
        run = Taken(*words, *more)
        if name == "labels":
            yield Found(f"{run.job.sizes['student'] / 1e6:,.0f} M parameters, blocks of {sizes.length}; tokens/s")
        run.epoch()
        resting = torch.cuda.memory_allocated() if GPU else 0
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(max(2, sizes.rounds - 2)):
            run.epoch()
        rate = statistics.median(row["tokens_per_second"] for row in run.rows[1:])
        most = f", {(torch.cuda.max_memory_allocated() - resting) / 2**30:.1f} GiB over what rests" if GPU else ""
        yield Found(f"{name} {rate:,.0f}{most}")
        del run  # models and hooks hold each other
        gc.collect()
        torch.cuda.empty_cache()


def of_words(sizes: Sizes) -> list[str]:
    """The words of a run on random tokens, of which each stands for one word of a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = Path("tokens")
    folder.mkdir(exist_ok=True)
    numbers = {"<end>": 0, **{f"w{number}": number for number in range(1, sizes.words)}}
    made = Tokenizer(models.WordLevel(numbers, unk_token="<end>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<end>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<end>", "pad_token": "<end>"}')
    draw = torch.Generator().manual_seed(0)
    for name, blocks in {"train": sizes.blocks, "val": 2, "test": 2}.items():
        ids = torch.randint(1, sizes.words, (blocks * sizes.length,), generator=draw).tolist()
        (folder / f"{name}.txt").write_text(" ".join(f"w{number}" for number in ids))
    given = [f"dataset.root={folder}", f"dataset.tokenizer={folder}", f"dataset.length={sizes.length}"]
    return ["dataset=language", *given, "dataset.packing=stream"]
