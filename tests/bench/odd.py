"""Odd input for faults.py: paths, names, pictures, YAML values and checkpoint files that nobody means, and some that are.

A kind is a function from a folder, which holds a finished run in run/, and a source of random numbers to the words that are
typed there. It writes what the words need. Whether it is wrong is not known here; but no answer may be a traceback.
"""  # fmt: skip

from __future__ import annotations

import io
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

CODES = (0, 2, 3, 4)
WRITTEN = (*CODES, 6)  # of a path to write to: there may be no writing there
SHORT = ["teacher=tinycnn", "student=tinycnn", "teacher.fit.epochs=1", "schedule=constant", "schedule.train.epochs=1",
         "report=false", "threads=1", "batch_size=8", "teacher.fit.batch_size=8"]  # fmt: skip
DIGITS = [*SHORT, "dataset.size=12", "dataset.limit=32"]
PICTURES = [*SHORT, "dataset=image_folder", "dataset.root=pictures"]
TEXTS = ("~nobody", "~no-such-user", "~no-such-user/x", "~", "~/x", "~\x01", "", " ", ".", "..", "...", "a" * 300,
    "x/" * 2500, "a\nb", "a\tb", "\x7f", "'", '"', "''", "\\", "a\\", "*", "**", "?", "[", "]", "[a]", "{", "}",
    "{b}", ",", "a,b", "=", "a=b", "$", "${", "${x}", "${oc.env:NO}", "#", "@", "%s", "%00", ":", "a:b", ";", "&",
    "|", "<", ">", "!", "-", "--", "-x", "+", "null", "true", "1", "nan", "1e999", "0" * 5000, "\u202ename", "é",
    "e\u0301", "猫", "🐈", "\ufeff", "\udcff", "\ud800", "a\u0000", "run/run.json", "run/run.json/x", "loop", "loop/x",
    "dangling", "pipe", "socket", "empty", "closed", "file", "run", "part", "conf", "/dev/null", "/dev/null/x",
    "/dev/full", "/dev/full/x", "/proc/self/mem", "/proc/nothing", "/sys/x", "file:///tmp", "http://x", "s3://x/y",
    "C:\\x", "con", "x.safetensors", "x.pt", "x.json", "empty.pt")  # fmt: skip
LETTERS = "ab01 ._-~'\"\\,=:;()[]{}$#@%&|<>!?*+^`\t\n\x01é猫🐈\u200b\u202e\udc80"


def text(draw: random.Random) -> str:
    """A text that a user could mean as a path or a name; half of them made up."""
    made_up = "".join(draw.choice(LETTERS) for _ in range(draw.choice((1, 2, 5, 40, 260))))
    return draw.choice((draw.choice(TEXTS), made_up))


def desk(place: Path) -> None:
    """What TEXTS name, in a folder."""
    for link, target in (("loop", "loop"), ("dangling", "nowhere")):
        (place / link).symlink_to(target)
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(place)  # the name of a socket must be short
        listener.bind("socket")
        os.chdir(here)
    for name in ("empty", "closed"):
        (place / name).mkdir()
    (place / "closed").chmod(0)
    (place / "file").write_text("text")
    (place / "empty.pt").touch()


def pictures(place: Path, draw: random.Random) -> Path:
    """An image folder of two classes."""
    for part in ("train", "test"):
        for level, name in enumerate("ab"):
            (place / "pictures" / part / name).mkdir(parents=True)
            for number in range(4):
                shade = np.full((8, 8, 3), 40 + 80 * level + draw.randrange(40), np.uint8)
                Image.fromarray(shade).save(place / "pictures" / part / name / f"{number}.png")
    return place / "pictures"


def argument(words: list[str]) -> list[str]:
    """Words as a process gets them: no NUL, and bytes that are not UTF-8 as Python shows them."""
    return [os.fsdecode(word.replace("\0", "").encode("utf-8", "surrogatepass")) for word in words]


def path(place: Path, draw: random.Random) -> list[str]:
    """A path anywhere that a command takes one."""
    desk(place)
    odd = text(draw)
    lines = (
        ["train", *DIGITS, f"output_dir={odd}"],
        ["train", *DIGITS, f"run_dir={odd}"],
        ["train", *DIGITS, f"teacher.checkpoint={odd}"],
        ["train", *DIGITS, "-m", "seed=0", f"hydra.sweep.dir={odd}"],
        ["train", *DIGITS, f"logger.tensorboard.dir={odd}", "logger=tensorboard"],
        ["train", *SHORT, "dataset=image_folder", f"dataset.root={odd}"],
        ["train", *SHORT, "dataset=cifar10", "dataset.download=false", f"dataset.root={odd}"],
        ["train", "--from", odd],
        ["train", *DIGITS, "-cd", odd],
        ["train", "-cn", odd],
        ["inspect", f"teacher.checkpoint={odd}", "student=tinycnn"],
        ["eval", f"ckpt={odd}"],
        ["eval", "ckpt=run", f"predictions={odd}"],
        ["resume", odd],
        ["report", odd],
        ["report", "run", f"output={odd}"],
        ["cache", odd],
        ["cache", f"output_dir={odd}"],
        ["help", odd],
        ["list", odd],
        [odd],
    )  # fmt: skip
    return argument(draw.choice(lines))


def name(place: Path, draw: random.Random) -> list[str]:
    """A name of a file, a class, a stage, a teacher, a group's choice or a key."""
    odd = text(draw).replace("/", "") or "x"
    where = draw.randrange(8)
    try:
        if where == 0:
            home = pictures(place, draw) / "train"
            (home / "a").rename(home / odd)
            (place / "pictures" / "test" / "a").rename(place / "pictures" / "test" / odd)
            return ["train", *PICTURES]
        if where == 1:
            home = pictures(place, draw) / "train" / "a"
            (home / "0.png").rename(home / f"{odd}.png")
            return ["train", *PICTURES]
        if where == 2:
            (place / "conf" / "student" / f"{odd}.yaml").write_text("_target_: mynet.Net\n")
            return argument(["train", *DIGITS, f"student={odd}"])
        if where == 3:
            (place / f"{odd}.pt").write_bytes((place / "run" / "student.safetensors").read_bytes())
            return argument(["train", *DIGITS, f"teacher.checkpoint={odd}.pt"])
    except (OSError, UnicodeError, ValueError):  # no file can be called so
        return argument(["train", *DIGITS, f"student={odd}"])
    keys = (f"+model@teachers.{odd}=tinycnn", f"+model@chain.{odd}=tinycnn", f"{odd}=1", f"+student.{odd}=1",
        f"schedule.{odd}.epochs=1", f"schedule.train.objective={odd}", f"objective={odd}", f"objective=[kd,{odd}]",
        f"dataset={odd}", f"optimizer={odd}", f"optimize={odd}", f"teacher.fit.optimizer={odd}",
        f"student._target_={odd}", f"~{odd}", f"+{odd}", f"experiment={odd}", f"device={odd}")  # fmt: skip
    return argument(["train", *DIGITS, draw.choice(keys)])


def encoded(draw: random.Random) -> bytes:
    """A picture of a mode, a size and a format that are rarely met, or what only looks like one."""
    mode = draw.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "HSV", "LAB"))
    size = draw.choice(((1, 1), (1, 400), (400, 1), (8, 8), (33, 7)))
    kind = draw.choice(("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "ICO", "PPM", "TGA", "JPEG2000"))
    content = io.BytesIO()
    options: dict[str, Any] = draw.choice(
        ({}, {}, {"exif": draw.randbytes(40)}, {"exif": b"Exif\0\0" + draw.randbytes(30)})
    )
    try:
        Image.new(mode, size).save(content, kind, **options)
    except (OSError, ValueError, KeyError, SyntaxError):  # an EXIF that is none is a SyntaxError
        Image.new("RGB", size).save(content, "PNG")
    data = bytearray(content.getvalue())
    damage = draw.randrange(7)
    if damage == 0:
        return bytes(data[: draw.randrange(len(data) + 1)])
    if damage == 1:
        for _ in range(draw.choice((1, 3, 30))):
            data[draw.randrange(len(data))] = draw.randrange(256)
    elif damage == 2:
        return draw.randbytes(draw.choice((0, 1, 9, 500)))
    elif damage == 3:  # a PNG that says it is huge
        header = b"IHDR" + struct.pack(
            ">IIBBBBB", draw.choice((0, 1, 60000, 2**31 - 1)), 60000, draw.choice((8, 16)), 2, 0, 0, 0
        )
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + draw.randbytes(4) + bytes(data[33:])
    return bytes(data)


def picture(place: Path, draw: random.Random) -> list[str]:
    """A few odd pictures among good ones."""
    root = pictures(place, draw)
    for number in range(draw.choice((1, 1, 4))):
        ending = draw.choice(("png", "jpg", "gif", "tif", "webp", "bmp", "PNG"))
        (root / draw.choice(("train", "test")) / "a" / f"odd{number}.{ending}").write_bytes(encoded(draw))
    odd = draw.choice(("", "", "link", "pipe", "folder"))
    target = root / "train" / "b" / "strange.png"
    if odd == "link":
        target.symlink_to(draw.choice(("nowhere", "strange.png", "0.png", "..")))
    elif odd == "pipe":
        os.mkfifo(target)
    elif odd == "folder":
        target.mkdir()
    return ["train", *PICTURES, *draw.choice(([], ["dataset.memory=0"], ["dataset.size=16"]))]


VALUES = (".inf", "-.inf", ".nan", "1e400", "-0.0", "0x1F", "0o17", "1_000", "12:30:45", "2020-01-01", "yes", "~",
    "null", "''", "' '", "[]", "{}", "[[[]]]", "{a: {b: {c: 1}}}", "[1, a, null]",
    "!!python/object/apply:os.system [ls]", "!!binary aGk=", "!!set {a, b}", "!!float x", "!x y", "*a", "&a [*a]",
    "&a 1", "<<: 1", "=", "\"\\0\"", "\"a\\0b\"", "\"\\ud800\"", "\"\\xff\"", "'${x}'", "'${'", "'${oc.env:NO}'",
    "'${student}'", "???", "\"~nobody\"", "\"~nobody/x\"", "|\n  a\n  b", ">-\n  a", "1.5.2", "9" * 5000, "-1", "0",
    "1.5", "1e-320", "true", "9223372036854775808", "\"" + "a" * 300 + "\"", "/dev/null", "os.system", "a..b", ".",
    "torch.nn.Linear", "torch.nn", "builtins.print", "distill_cli.__main__.x", "mynet.Net", "mynet.nothing", "this",
    "antigravity.x")  # fmt: skip


def value(place: Path, draw: random.Random) -> list[str]:
    """A YAML value anywhere in a file of the user's."""
    keys = {"student": ("_target_", "width", "widths", "name", "pretrained"), "dataset": ("_target_", "root", "size",
        "mean", "std", "limit"), "objective": ("_target_", "weight", "warmup", "balance"), "schedule": ("epochs", "T",
        "alpha", "shape", "lr", "objective"), "optimizer": ("_target_", "lr", "betas", "curve", "clip"),
        "experiment": ("T", "run_dir", "output_dir", "teacher", "schedule")}  # fmt: skip
    base = {"student": "_target_: mynet.Net", "dataset": "_target_: distill_cli.data.folder.image_folder",
        "objective": "x:\n  _target_: distill_cli.objectives.logits.KD",
        "schedule": "train:\n  epochs: 1\n  T: 3\n  alpha: 0.5", "optimizer": "_target_: torch.optim.SGD",
        "experiment": "# @package _global_"}  # fmt: skip
    group = draw.choice(list(keys))
    key, odd = draw.choice(keys[group]), draw.choice(VALUES)
    lines = [line for line in base[group].splitlines() if not line.strip().startswith(f"{key}:")]
    indent = "  " if group in ("objective", "schedule") else ""
    lines.append(f"{indent}{draw.choice((key, key, odd))}: {odd}")
    folder = place / "conf" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "odd.yaml").write_bytes(
        "\n".join(lines).encode("utf-8", "surrogatepass") + draw.choice((b"\n", b"", b"\n\xff", b"\n\t"))
    )
    plain = [word for word in DIGITS if not word.startswith(f"{group}")]
    return ["train", *plain, f"{group}=odd"]


def stored(place: Path, draw: random.Random) -> Any:
    """What a file of weights may hold."""
    good = dict(torch.load(place / "run" / "checkpoints" / "last.pt", weights_only=True)["student"])
    first = next(iter(good))
    one = good[first]
    odd: tuple[Any, ...] = (one.half(), one.double(), one.to(torch.complex64), one.int(), one.bool(), one.to_sparse(),
        one.flatten(), one[:0], one.expand(2, *one.shape), torch.full_like(one, float("nan")), one.to("meta"), None,
        1, "text", b"x", [one], {"x": one}, float("inf"), torch.nn.Parameter(one), )  # fmt: skip
    changed = {**good, first: draw.choice(odd)}
    return draw.choice((changed, changed, changed, changed, {"state_dict": changed}, {"model": changed, "epoch": 3},
        {}, [], None, 1, "text", one, [one], (), {1: one}, {None: one}, {"": one}, {"a": {"b": {"c": one}}},
        {"state_dict": {}}, {"state_dict": None}, {"model": 3}, {**good, "extra": one}, {first: one},
        {f"module.{key}": each for key, each in good.items()}, {f"a\0{key}": each for key, each in good.items()},
        {"student": good, "step": "x", "epoch": None}, {"student": [], "step": 1, "epoch": 1}, {"student": good,
        "step": 1, "epoch": 1, "card": {}}, {"student": good, "step": 1, "epoch": 1, "card": 5}, ))  # fmt: skip


def checkpoint(place: Path, draw: random.Random) -> list[str]:
    """A file of weights, sound or damaged, under an ending of its own."""
    file = place / f"odd.{draw.choice(('pt', 'pth', 'th', 'bin', 'safetensors', 'ckpt', 'x'))}"
    kind = draw.randrange(8)
    if kind == 0:
        file.write_bytes(draw.randbytes(draw.choice((1, 8, 9, 100, 3000))))
    elif kind == 1:
        header = draw.choice(
            (
                b"{}",
                b"[]",
                b'{"a": 1}',
                b'{"a": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}}',
                b"\xff\xff",
                b'{"__metadata__": 1}',
            )
        )
        file.write_bytes(struct.pack("<Q", draw.choice((len(header), 0, 2**63))) + header)
    else:
        content = io.BytesIO()
        torch.save(stored(place, draw), content, _use_new_zipfile_serialization=bool(draw.randrange(4)))
        data = bytearray(content.getvalue())
        for _ in range(draw.choice((0, 0, 0, 1, 20))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(bytes(data[: draw.choice((len(data), len(data), len(data), draw.randrange(len(data)))) or 1]))
    words = ["train", *DIGITS, f"teacher.checkpoint={file.name}"]
    return draw.choice(
        (words, words, ["inspect", "student=tinycnn", words[-1]], ["eval", f"ckpt={file.name}", "dataset=digits"])
    )


KINDS: dict[str, Callable[[Path, random.Random], list[str]]]
KINDS = {"path": path, "name": name, "picture": picture, "YAML value": value, "checkpoint file": checkpoint}
