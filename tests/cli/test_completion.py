"""Tab: what is offered on many lines, that it is what can be typed and no more, and what a real bash makes of it."""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

import pytest
from helpers import ROOT, distill
from omegaconf import DictConfig

from distill_cli.cli import completion
from distill_cli.cli.commands import cache
from distill_cli.cli.commands import list as listing
from distill_cli.cli.completion import Paths, candidates
from distill_cli.cli.pages import command_names
from distill_cli.cli.words import arguments
from distill_cli.config import compose, fields, places, schema
from distill_cli.config.load import load

# keys that every student has
OF_STUDENT = ("student.checkpoint=", "student.from_teacher.", "student.freeze=", "student.lora.")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of the user's own in ./conf, in a folder to be named and in $DISTILL_CONF; folders and files with odd names."""
    folder = tmp_path_factory.mktemp("home")
    write(
        folder,
        {
            "conf/model/mynet.yaml": "_target_: mynet.MyNet\nwidth: 3\nbias: true\n",
            "conf/student/wide.yaml": "defaults: [smallcnn, _self_]\nextra: 1\n",
            "conf/student/odd name's.yaml": "_target_: a.B\nodd: 1\n",
            "conf/schedule/three.yaml": "one: {epochs: 1}\ntwo: {epochs: 2}\nthree: {epochs: 3}\n",
            "conf/optimizer/elsewhere.yaml": "# @package student\nmoved: 1\n",
            "conf/experiment/mine.yaml": MINE,
            "conf/dataset/broken.yaml": "a: [1,\n",
            "conf/own.yaml": "defaults: [train, override student: mynet, _self_]\n",
            "named/student/namednet.yaml": "_target_: a.B\nnamed: 1\n",
            "common/student/commonnet.yaml": "_target_: a.B\n",
            "my runs/Prüfung/model.json": '{"dataset": {"_target_": "x", "root": "here", "shuffle": false}}',
            "my runs/weights.pt": "",
            ".hidden/x": "",
            "student.safetensors": "",
        },
    )
    return folder


MINE = "# @package _global_\ndefaults:\n- override /schedule: three\nteacher: {own: 1}\n"


def write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("DISTILL_CONF", str(home / "common"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))


FOLDERS = {"conf/", "named/", "common/", "my runs/"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("tr", {"train "}),
        ("--v", {"--version "}),
        ("nonsense ", set()),
        ("train tea", {"teacher=", "teachers="}),
        ("train teacher=resnet1", {"teacher=resnet110 ", "teacher=resnet18 "}),
        ("train teacher=my", {"teacher=mynet "}),
        ("train student=c", {"student=commonnet "}),
        ("train student=named", set()),
        ("train --config-dir named student=named", {"student=namednet "}),
        ("train -cd named student=namednet student.n", {"student.named="}),
        ("train --config-dir=named student=named", {"student=namednet "}),
        ("data ", {"pack "}),
        ("data pack o", {"out="}),
        ("data pack dataset=image_s", {"dataset=image_shards "}),
        ("train objective=[kd,hin", {"objective=[kd,hint"}),
        ("train objective=[kd,k", set()),
        ("train -m T=1,3 student=small", {"student=smallcnn "}),
        ("train student=smallcnn,ti", {f"student=smallcnn,{name} " for name in ("timm", "tinybert", "tinycnn")}),
        ("train schedule.ref", {"schedule.refine."}),
        ("train schedule.refine.e", {"schedule.refine.epochs="}),
        ("train schedule=constant schedule.", {"schedule.train."}),
        ("train schedule=three schedule.t", {"schedule.two.", "schedule.three."}),
        ("train schedule=constant,anneal schedule.", {"schedule.train.", "schedule.anneal."}),
        ("train experiment=fitnets schedule.h", {"schedule.hint."}),
        ("train experiment=mine schedule.o", {"schedule.one."}),
        ("train experiment=mine schedule=constant schedule.", {"schedule.train."}),
        ("train experiment=mine teacher.o", {"teacher.own="}),
        ("train experiment=", {f"experiment={name} " for name in places.group_files("experiment")} | {"experiment=mine "}),
        ("train student.w", {"student.widths="}),
        (
            "train student=wide student.",
            {*OF_STUDENT, "student.extra=", "student.widths=", "student.in_channels="},
        ),
        ("train student=mynet student.", {*OF_STUDENT, "student.width=", "student.bias="}),
        ("train student=mynet student.bias=", {"student.bias=true ", "student.bias=false "}),
        ("train student=\"odd name's\" student.o", {"student.odd="}),
        ("train optimizer=elsewhere student.m", {"student.moved="}),
        ("train student._", {"student._target_="}),
        ("train -cn own student.b", {"student.bias="}),
        ("train -cn o", {"own "}),
        ("train teacher=resnt18 teacher.f", {"teacher.fit."}),
        ("train dataset=broken teacher.f", {"teacher.fit."}),
        ("teacher teacher.fit.ep", {"teacher.fit.epochs="}),
        ("train optimizer=sgd optimizer.ne", {"optimizer.nesterov="}),
        ("train optimizer.ne", set()),
        ("train precision=", {f"precision={name} " for name in ("auto", "fp32", "bf16", "fp16")}),
        ("train -m precision=fp32,b", {"precision=fp32,bf16 "}),
        ("train baseline=t", {"baseline=true "}),
        ("train teacher.cache=o", {"teacher.cache=on ", "teacher.cache=off "}),
        ("train schedule.refine.shape=c", {"schedule.refine.shape=cosine "}),
        ("train objective=[kd,hint] schedule.refine.objective=", {f"schedule.refine.objective={o} " for o in ("kd", "hint")}),
        ("train teacher.fit.optimizer=s", {"teacher.fit.optimizer=sgd "}),
        ("train T=", set()),
        ("train hydra/s", {"hydra/sweeper="}),
        ("train hydra/launcher=p", {"hydra/launcher=processes "}),
        ("train hydra/launcher=processes hydra.launcher.n", {"hydra.launcher.n_jobs="}),
        ("train hydra/sweeper=optuna hydra.sweeper.n", {"hydra.sweeper.n_trials="}),
        ("train hydra.sweep.d", {"hydra.sweep.dir="}),
        ("train --c", {"--config-name ", "--config-dir ", "--cfg "}),
        ("train --cfg ", {"job ", "hydra ", "all "}),
        ("train --cfg=j", {"--cfg=job "}),
        ("train -i s", {"searchpath "}),
        ("train --resolve tea", {"teacher=", "teachers="}),
        ("train --fr", {"--from "}),
        ("eval --fr", set()),
        ("eval split=", {"split=train ", "split=val ", "split=test "}),
        ("eval ckpt='my runs/Prüfung' dataset.", {"dataset.root=", "dataset.shuffle="}),
        ("eval ckpt='my runs/Prüfung' dataset.shuffle=t", {"dataset.shuffle=true "}),
        ("eval tea", set()),
        ("list ", {f"{kind} " for kind in listing.KINDS}),
        ("cache ", {f"{action} " for action in cache.ACTIONS}),
        ("cache prune ", {"all ", "days=", "output_dir="}),
        ("completion ", {"bash "}),
        ("help sw", {"sweeps "}),
        ("help resu", {"resume "}),
        ("help sweeps ", set()),
        ("resume named work", {"workers="}),
        ("resume named tea", {"teacher.cache_limit=", "teacher.checkpoint="}),
        ("resume --c", {"--config-dir "}),
        ("report named log", {"logger="}),
        ("report named logger=w", {"logger=wandb "}),
    ],
)  # fmt: skip
def test_a_line_is_completed_to(line: str, found: set[str]) -> None:
    assert set(candidates(f"distill {line}")) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("train dataset.root=", {f"dataset.root={name}" for name in FOLDERS}),
        ("train dataset.root=.h", {"dataset.root=.hidden/"}),
        ("train run_dir=my", {"run_dir=my runs/"}),
        ("train output_dir='my runs/P", {"output_dir=my runs/Prüfung/"}),
        (r"train hydra.sweep.dir=my\ runs/Pr", {"hydra.sweep.dir=my runs/Prüfung/"}),
        ('eval ckpt="my runs/', {"ckpt=my runs/Prüfung/", "ckpt=my runs/weights.pt"}),
        ("eval ckpt=stu", {"ckpt=student.safetensors"}),
        ("eval ckpt=~/stu", {"ckpt=~/student.safetensors"}),
        ("train teacher.checkpoint=my\\ runs/w", {"teacher.checkpoint=my runs/weights.pt"}),
        ("eval predictions=s", {"predictions=student.safetensors"}),
        ("train --config-dir n", {"named/"}),
        ("train --from m", {"my runs/"}),
        ("resume ", FOLDERS),
        ("report ", FOLDERS),
        ("report named my", {"my runs/"}),
        ("report named output=c", {"output=conf/", "output=common/"}),
        ("cache output_dir=n", {"output_dir=named/"}),
        ("resume named output_dir=n", {"output_dir=named/"}),
    ],
)
def test_a_path_is_completed_to(line: str, found: set[str]) -> None:
    offered = candidates(f"distill {line}")
    assert isinstance(offered, Paths)
    assert set(offered) == found


def test_every_command_is_offered_and_every_group_with_every_choice() -> None:
    assert candidates("distill ") == [f"{name} " for name in command_names()]
    for group in [*places.group_names(), "experiment"]:
        assert f"{group}=" in candidates("distill train ")
        names = {f"{group}={name} " for name in places.group_files(group)}
        assert set(candidates(f"distill train {group}=")) == names


def leaves(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and node:
            yield from leaves(node, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def reachable(line: str, word: str) -> Iterator[str]:
    """The keys that Tab leads to from a word."""
    for found in {*candidates(f"{line} {word}"), *candidates(f"{line} {word}_")}:
        if found.endswith("."):
            yield from reachable(line, found)
        elif "." not in found and found.removesuffix("=") in places.group_names():
            yield from reachable(line, found.replace("=", "."))
        elif "/" not in found and found != "experiment=":
            yield found.removesuffix("=")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["schedule=constant", "optimizer=sgd", "dataset=cifar10"],
        ["objective=[kd,hint]", "teacher=wrn_40_2", "student=wide"],
        ["schedule=three", "student=mynet"],
        *([f"experiment={name}"] for name in [*places.group_files("experiment"), "mine"]),
    ],
    ids=" ".join,
)
def test_the_keys_offered_are_those_of_the_composed_configuration(words: list[str]) -> None:
    cfg = load("train", words).source.job
    offered = set(reachable(" ".join(["distill train", *words]), ""))
    assert {key for key in offered if not key.startswith("hydra.")} == set(leaves(cfg))


def bounded_fields(shape: type, where: str = "") -> Iterator[tuple[str, Mapping[str, typing.Any]]]:
    for key in fields.keys(shape):
        yield f"{where}{key.name}", key.rules
        if "node" in key.rules:
            yield from bounded_fields(key.rules["node"], f"{where}{key.name}.")
        if "nodes" in key.rules:
            yield from bounded_fields(key.rules["nodes"], f"{where}{key.name}.any.")


@pytest.mark.parametrize("name", schema.COMMANDS)
def test_every_choice_the_schema_leaves_is_offered(name: str) -> None:
    bounded = {key.replace(".any.", ".refine."): rules for key, rules in bounded_fields(schema.COMMANDS[name].shape)}
    few = {key: rules["choices"] for key, rules in bounded.items() if "choices" in rules}
    if schema.COMMANDS[name].checkpoint:  # whose data are those of the checkpoint
        few = {key: choices for key, choices in few.items() if not key.startswith("dataset.")}
    assert few or name == "predict"
    for key, choices in few.items():
        before = {"dataset.reader": "dataset=image_folder "}.get(key, "")  # not of every data set
        assert set(candidates(f"distill {name} {'pack ' * (name == 'data')}{before}{key}=")) == {
            f"{key}={choice} " for choice in choices
        }


@pytest.mark.parametrize("name", ["train", "eval", "teacher"])
def test_the_flags_offered_are_those_that_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"-h", "--help"}
    add = argparse.ArgumentParser.add_argument

    def adding(self: argparse.ArgumentParser, *names: str, **rules: typing.Any) -> argparse.Action:
        taken.update(word for word in names if word.startswith("-"))
        return add(self, *names, **rules)

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", adding)
    arguments(name, [])
    assert {word.strip() for word in candidates(f"distill {name} -")} == taken


def test_what_changes_in_a_folder_is_seen_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line, always = (
        "distill train student=net student.",
        [*OF_STUDENT],
    )
    assert candidates(line) == always
    for text, found in (("width: 1\n", ["student.width="]), ("depths: 1\n", ["student.depths="]), ("[", [])):
        write(tmp_path, {"conf/model/net.yaml": text})
        assert candidates(line) == [*always, *found]
    (tmp_path / "conf/model/net.yaml").unlink()
    assert "student=net " not in candidates("distill train student=")


def test_a_half_written_file_of_what_is_chosen_anyway_leaves_all_other_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"conf/model/smallcnn.yaml": "widths: [1,\n", "conf/experiment/half.yaml": "[\n"})
    assert candidates("distill train teacher.fit.ep") == ["teacher.fit.epochs="]
    assert candidates("distill train student=resnet20 student.d") == ["student.depth="]
    assert candidates("distill train experiment=half alp") == ["alpha="]


ASKED = {
    "distill train teacher=resnet20 teacher.d": ["teacher.depth="],
    "distill train experiment=mine teacher.o": ["teacher.own="],
    "distill resume x dev": ["device=", "devices="],
}


def asked() -> dict[str, list[str]]:
    return {line: candidates(line) for line in ASKED}


def test_what_was_composed_is_read_until_it_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert asked() == ASKED
    (index,) = (tmp_path / "distill").iterdir()
    whole = index.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(compose, "session", lambda *words: pytest.fail("composed again"))
        assert asked() == ASKED
    for damaged in (whole[:1000], b"[]"):
        index.write_bytes(damaged)
        assert asked() == ASKED
        assert index.read_bytes() == whole


@pytest.mark.parametrize("usable", [True, False])
def test_a_cache_that_cannot_be_written_is_done_without(
    usable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"distill-{os.getuid()}"
    if not usable:
        own.symlink_to(tmp_path.parent)
    assert candidates("distill train teacher=resnet20 teacher.d") == ["teacher.depth="]
    assert [path.name for path in own.glob("keys-*")] == ([] if not usable else [path.name for path in own.iterdir()])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bash"],
        ["zsh", "distill tr"],
        ["bash", "distill resume nowhere/x", "nowhere/x"],
        ["bash", "distill train ckpt=~nobody-of-this-name/", "~nobody-of-this-name/"],
    ],
)
def test_what_cannot_be_completed_prints_nothing(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert distill("--complete", *words) == 0
    assert capfd.readouterr() == ("", "")


def test_a_bug_of_ours_prints_nothing_either(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(completion, "candidates", lambda line: 1 / 0)
    assert distill("--complete", "bash", "distill tr", "tr") == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "replaced", "printed"),
    [
        ("distill tr", "tr", "words\ntrain \n"),
        ("distill train teacher=resnet11", "resnet11", "words\nresnet110 \n"),
        ("distill train teacher=resnet11", "teacher=resnet11", "words\nteacher=resnet110 \n"),
        ("distill train 'teacher=resnet11", "teacher=resnet11", "words\nteacher=resnet110 \n"),
        (r"distill resume my\ ru", r"my\ ru", "paths\nmy runs/\n"),
        ("distill eval ckpt='my runs'/Pr", "'my runs'/Pr", "paths\nmy runs/Prüfung/\n"),
    ],
)
def test_what_the_shell_holds_already_is_not_repeated(
    line: str, replaced: str, printed: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert distill("--complete", "bash", line, replaced) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out.decode() == printed


def test_nothing_slow_is_imported() -> None:
    candidates("distill train schedule.")
    code = (
        "import sys; from distill_cli.cli import main; "
        "main(['--complete', 'bash', 'distill train schedule.ref', 'schedule.ref']); sys.stdout.flush(); "
        "print({'torch', 'hydra', 'omegaconf', 'numpy', 'rich', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "words\nschedule.refine.\nset()\n", done.stderr


def test_an_unknown_shell_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("completion", "bahs") == 2
    assert "did you mean bash? choices: bash" in capsys.readouterr().err
    assert distill("completion") == 2
    assert "choices: bash" in capsys.readouterr().err


RC = r"""
PATH=BIN:$PATH PS1='ready> '
bind 'set completion-query-items 0' 'set page-completions off' 'set bell-style none'
bind -x '"\C-x\C-l": printf "\n<%s>\n" "$READLINE_LINE"'
source <(distill completion bash)
"""
SHOW = "\x18\x0c"  # the key bound above


def bash_with(typed: str, folder: Path) -> str:
    """What an interactive bash shows once keys are pressed in it; its line comes last, in < >.

    Args:
        folder: an empty one, for what bash reads when it starts.
    """
    script = folder / "distill"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={quote(str(ROOT))} exec {quote(sys.executable)} -m distill_cli "$@"\n')
    script.chmod(0o755)
    (folder / "rc").write_text(RC.replace("BIN", str(folder)))
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "XDG_CACHE_HOME")}
    env = {**kept, "LC_ALL": "C.UTF-8", "TERM": "dumb", "INPUTRC": "/dev/null"}
    shell = subprocess.Popen(["bash", "--noprofile", "--rcfile", str(folder / "rc"), "-i"], env=env,
                             stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)  # fmt: skip
    try:
        read_until(keyboard, "ready> ")
        os.write(keyboard, f"{typed}{SHOW}".encode())
        return read_until(keyboard, ">\r\n")
    finally:
        shell.kill()
        shell.wait()
        os.close(keyboard)
        os.close(terminal)


def read_until(descriptor: int, end: str) -> str:
    seen, patience = b"", time.monotonic() + 60
    while end not in seen.decode(errors="replace"):
        assert select.select([descriptor], [], [], max(0.0, patience - time.monotonic()))[0], seen
        seen += os.read(descriptor, 65536)
    return seen.decode()


in_bash = pytest.mark.skipif(
    not shutil.which("bash") or subprocess.run(["bash", "-c", "((BASH_VERSINFO[0] >= 4))"]).returncode != 0,
    reason="needs bash 4",
)


@in_bash
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("tr\t", "train "),
        ("train tea\t=resnet11\t", "train teacher=resnet110 "),
        ("train schedule.ref\tep\t", "train schedule.refine.epochs="),
        ("train objective=[kd,hin\t", "train objective=[kd,hint"),
        ("train student=smallcnn,tinyc\t", "train student=smallcnn,tinycnn "),
        ("train device=cuda:\tprecision=b\t", "train device=cuda:precision=b"),
        ("eval ckpt=my\tPr\t", r"eval ckpt=my\ runs/Prüfung/"),
        ('eval ckpt="my\t', 'eval ckpt="my runs"/'),
        ('eval ckpt="my runs/w\t', 'eval ckpt="my runs/weights.pt" '),
        ("resume ~/my\tP\t", r"resume ~/my\ runs/Prüfung/"),
        ("eval ckpt=stu\tsp\tv\t", "eval ckpt=student.safetensors split=val "),
    ],
)
def test_a_real_bash_makes_of_a_line(typed: str, line: str, tmp_path: Path) -> None:
    assert re.findall(r"<(.*)>\r\n", bash_with(f"distill {typed}", tmp_path)) == [f"distill {line}"]


@in_bash
def test_a_second_tab_lists_what_there_is(tmp_path: Path) -> None:
    shown = bash_with("distill train teacher=resnet1\t\t", tmp_path)
    assert re.search(r"^resnet110 +resnet18 ", shown, re.MULTILINE)
    assert "<distill train teacher=resnet1>" in shown
