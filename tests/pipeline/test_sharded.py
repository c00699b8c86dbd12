"""A run whose processes each keep a shard of the weights: what comes out, how its checkpoints are kept, and what it refuses."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
from itertools import count
from pathlib import Path

import pytest
import torch
from helpers import QUICK, distill, make_documents, rows
from ranks import BYTES, codes, distill_ranks, stopped, weights
from torchvision.models import resnet18, vgg11

from distill_cli.base import shard_files, world
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config.load import load
from distill_cli.data.inputs import Inputs
from distill_cli.models.features import Output
from distill_cli.models.sharded import blocks
from distill_cli.training import job as jobs
from distill_cli.training import spreading
from distill_cli.training.student import Student

LINE = ["train", *QUICK, "optimizer=sgd", "optimizer.lr=0.01", "dataset.limit=200", "batch_size=25", "parallel=fsdp"]
SMALL = [f"{who}.{size}" for who in ("teacher", "student") for size in ("layers=2", "width=16", "heads=2", "inner=16")]
LANGUAGE = [*BYTES, "batch_size=4", *SMALL, "teacher.keep=hidden", "rows_at_once=16"]


def close(one: str, other: Path) -> bool:
    """Whether two runs have the same weights and losses, but for their last digits."""
    ours, theirs = weights(Path(one)), weights(other)
    losses = [[row["loss"]["total"] for row in rows(run)] for run in (Path(one), other)]
    return bool(ours.sub(theirs).norm() < 1e-5 * theirs.norm()) and losses[0] == pytest.approx(losses[1], rel=1e-6)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a teacher and its cached answers lie, and a run of one process, which shards nothing."""
    place = tmp_path_factory.mktemp("prepared")
    assert distill(*LINE, f"output_dir={place}/outputs", f"run_dir={place}/whole") == 0
    return place


def shards(run: str) -> list[Path]:
    return sorted(Path(run, "checkpoints").glob("shards-*"))


def test_shards_learn_what_a_whole_network_does_and_go_on_inside_an_epoch_with_other_numbers_of_processes(
    prepared: Path,
) -> None:
    line = [*LINE, f"output_dir={prepared}/outputs", "run_dir=run"]
    ended = stopped(2, line, 2, stop, 0)
    assert codes(ended) == [143, 143], ended
    assert "each with a shard of the models' weights (fsdp)" in ended[0].said
    assert [path.name[:13] for path in shards("run")] == ["shards-000003"]
    assert codes(stopped(1, line, 4, stop, 0)) == [143]
    assert codes(distill_ranks(2, *line)) == [0, 0]
    assert close("run", prepared / "whole")
    assert [path.name[:13] for path in shards("run")] == ["shards-000008", "shards-000016"]
    student = Path("run/student.safetensors").read_bytes()
    assert distill("eval", "ckpt=run/checkpoints/best.pt") == 0  # what one process reads of them is whole
    assert Path("run/student.safetensors").read_bytes() == student


def test_a_damaged_shard_is_found_and_the_checkpoint_before_it_taken(prepared: Path) -> None:
    line = [*LINE, f"output_dir={prepared}/outputs", "run_dir=run", "save_every=2"]
    assert codes(stopped(2, line, 4, stop, 1)) == [143, 143]
    second = shards("run")[-1]
    damaged = bytearray((second / "__1_0.distcp").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (second / "__1_0.distcp").write_bytes(damaged)
    ended = distill_ranks(2, *line)
    assert codes(ended) == [0, 0], ended
    assert f"{second.name}/__1_0.distcp is missing or damaged" in ended[0].said
    assert "going on from previous.pt, step 4" in ended[0].said
    assert close("run", prepared / "whole")


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_process_ends_all_and_leaves_the_checkpoint_before(prepared: Path) -> None:
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    ended = stopped(2, [*LINE, f"output_dir={prepared}/outputs", "run_dir=run", "save_every=1"], 2, fill, on=1)
    assert codes(ended) == [6, 6], ended
    assert "".join(one.said for one in ended).count("no space") == 1
    assert [path.name[:13] for path in shards("run")] == ["shards-000001", "shards-000002"]


def test_what_lies_beside_shards_runs_no_code(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("run",)

    Path("shards").mkdir()
    Path("shards/.metadata").write_bytes(pickle.dumps(Code()))
    tensor = {shard_files.KEY: "/a", "in": "shards", "shape": [1], "dtype": "torch.float32"}
    with pytest.raises(CheckpointError, match=r"shards/\.metadata holds code \(posix\.mkdir\)"):
        shard_files.read(tmp_path, {"a": tensor})
    assert not Path("run").exists()


REFUSED = [
    "compile=true",
    "debug=true",
    "precision=fp16",
    "teacher.joint=true",
    "objective=crd",
    "objective.kd.weight=auto",
]


@pytest.mark.parametrize("word", [*REFUSED, "schedule.refine.quantize=int8"])
def test_what_shards_cannot_do_is_refused_with_its_key(word: str) -> None:
    job = jobs.read(load("train", [*LINE[1:], word]))
    job.student.spread = torch.device("cpu")  # as among several processes
    with pytest.raises(ConfigError, match=rf"parallel=fsdp: {word.partition('=')[0]}.* does not go with shards"):
        spreading.check(job)


def test_one_process_shards_nothing_and_says_so(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(*LINE, f"output_dir={prepared}/outputs", "run_dir=run") == 0
    assert "one process: parallel=fsdp shards nothing" in capsys.readouterr().out
    assert not shards("run")
    assert weights(Path("run")).equal(weights(prepared / "whole"))


def test_blocks_that_repeat_are_gathered_one_by_one() -> None:
    with torch.device("meta"):
        assert [type(one).__name__ for one in blocks(resnet18())] == ["BasicBlock"] * 8
        assert blocks(vgg11()) == []  # of single layers, which are gathered together


@pytest.mark.slow
def test_teacher_baseline_and_features_of_shards_are_those_of_whole_networks(prepared: Path) -> None:
    line = [*LINE, "schedule.refine.epochs=0", "teacher.cache=off", "objective=[kd,similarity]", "baseline=true"]
    line += ["optimizer.clip=0.5"]
    assert codes(distill_ranks(2, *line, "run_dir=run")) == [0, 0]
    shutil.move("outputs", "sharded")
    assert distill(*line, "run_dir=alone") == 0
    assert close("run", Path("alone"))
    for name in ("teachers", "baselines"):  # found by each other
        assert [path.name for path in Path("sharded", name).iterdir()] == [
            path.name for path in Path("outputs", name).iterdir()
        ]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["teacher.cache=off", "objective=[kd,relation]"]])
def test_language_models_whose_head_shares_its_weights_learn_in_shards(words: list[str]) -> None:
    make_documents(Path("texts"))
    assert codes(distill_ranks(2, *LANGUAGE, *words, "parallel=fsdp", "run_dir=run")) == [0, 0]
    shutil.rmtree("outputs")
    assert distill(*LANGUAGE, *words, "run_dir=alone") == 0
    assert close("run", Path("alone"))


@pytest.mark.slow
def test_one_that_dies_while_another_gathers_weights_ends_all(prepared: Path) -> None:
    forward, steps = Student.forward, count()

    def dying(self: Student, inputs: Inputs) -> Output:
        if next(steps) == 4 and world.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, inputs)

    line = [*LINE, f"output_dir={prepared}/outputs", "run_dir=run", "save_every=1"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Student, "forward", dying)
        assert codes(distill_ranks(2, *line)) == [9, -9]
    assert codes(distill_ranks(2, *line)) == [0, 0]
    assert close("run", prepared / "whole")


@pytest.mark.slow
def test_whole_checkpoints_and_shards_go_on_from_each_other(prepared: Path) -> None:
    line = [*LINE, f"output_dir={prepared}/outputs", "run_dir=run", "optimizer.accumulate=2"]
    assert distill(*line, "run_dir=alone") == 0
    for place, parallel in enumerate(("ddp", "fsdp", "ddp", "fsdp")):
        words = [*line, f"parallel={parallel}"]
        assert codes(stopped(2, words, 3 * place + 1, stop, 0)) == [143, 143]
    assert codes(distill_ranks(3, *line)) == [0, 0, 0]
    assert close("run", Path("alone"))
