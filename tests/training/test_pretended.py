"""Runs on a GPU that is only pretended: nothing on the CPU meets what is on the GPU, and a step of pictures waits nowhere."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

RUN = "device=cuda precision=fp32 schedule=constant report=false dataset.limit=300 batch_size=16"
PICTURES = "dataset=digits dataset.size=8 teacher=smallcnn student=tinycnn teacher.fit.epochs=1 schedule.train.epochs=2"
# More tokens than all logits are kept of: the teacher's hidden states are, and its head makes logits of them.
LANGUAGE = "dataset=language dataset.root=texts dataset.tokenizer=texts dataset.length=16 dataset.packing=stream T=1"
MODELS = [f"{who}{key}" for who in ("teacher", "student")
          for key in ("=gpt2", ".layers=1", ".width=16", ".heads=2", ".inner=32")]  # fmt: skip


def pretended(place: Path, *words: str) -> Any:
    env = os.environ | {"PYTHONPATH": str(ROOT), "DISTILL_DEBUG": "1"}
    line = " ".join(["train", RUN, *words]).split()
    command = [sys.executable, str(ROOT / "tests/pretended.py"), *line]
    ended = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["objective=[kd,similarity] dataset.augmentation.crop=1 dataset.views=2", "teacher.joint=true"]
)
def test_pictures_train_and_no_step_waits_for_the_gpu(tmp_path: Path, words: str) -> None:
    assert pretended(tmp_path, PICTURES, words) == {"code": 0, "waits": {}}


@pytest.mark.slow
def test_a_teacher_of_many_tokens_is_judged_where_its_head_is(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    texts = tmp_path / "texts"
    texts.mkdir()
    made = Tokenizer(models.WordLevel({"<end>": 0, **{f"w{number}": number for number in range(1, 1500)}}, "<end>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<end>"])
    made.save(str(texts / "tokenizer.json"))
    (texts / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    dice = random.Random(0)
    (texts / "train.txt").write_text(" ".join(f"w{dice.randrange(1, 1500)}" for _ in range(640)))
    assert pretended(tmp_path, LANGUAGE, *MODELS, "teacher.fit.epochs=0 teacher.keep=hidden")["code"] == 0
