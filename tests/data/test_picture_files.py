"""Proves that pictures of any depth keep their contrast, by one range, and that whatever a decoder raises names the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import distill, make_pictures, pictures_in, read_json
from PIL import Image

from distill_cli.base.errors import ConfigError, DataError
from distill_cli.data import listing
from distill_cli.data.encoded import Loose
from distill_cli.data.folder import image_folder
from distill_cli.data.picture_files import Pictures

RAMP = np.linspace(0, 1, 1024).reshape(32, 32)
DEEP = {
    "8 bits in 16.png": (255 * RAMP).astype(np.uint16),
    "12 bits in 16.png": (4095 * RAMP).astype(np.uint16),
    "16 bits.png": (65535 * RAMP).astype(np.uint16),
    "12 bits in 16.tif": (4095 * RAMP).astype(np.uint16),
    "32 bits.tif": (100_000 * RAMP).astype(np.int32),
    "0 to 1.tif": RAMP.astype(np.float32),
    "0 to 4095.tif": (4095 * RAMP).astype(np.float32),
    "-1 to 1.tif": (2 * RAMP - 1).astype(np.float32),
}


def deep_folder(
    root: Path, pixels: np.ndarray, suffix: str = ".png", parts: tuple[str, ...] = ("train", "test")
) -> Path:
    """Two classes of four deep pictures a part: one is the pixels, the other half of them."""
    for part in parts:
        for name, share in (("a", 1.0), ("b", 0.5)):
            (root / part / name).mkdir(parents=True)
            for number in range(4):
                picture = Image.fromarray((pixels * share).astype(pixels.dtype))
                picture.save(root / part / name / f"{number}{suffix}", description=f"{part} {number}")
    return root


@pytest.mark.parametrize("name", DEEP)
def test_the_range_of_train_becomes_black_to_white_whatever_the_depth(tmp_path: Path, name: str) -> None:
    data = image_folder(str(deep_folder(tmp_path, DEEP[name], Path(name).suffix)))
    white = pictures_in(data.test)[0]
    assert data.input.channels == 1 and len(white.unique()) == 256
    assert white.min() == 0 and white.max() == 255
    low, high = data.input.range
    assert (low, high) == pytest.approx((DEEP[name].min(), DEEP[name].max()))
    assert f"grey values from {low:.6g} to {high:.6g} become 0 to 255" in data.note


def test_a_range_holds_for_every_picture_and_what_is_beyond_it_is_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(str(deep_folder(tmp_path, DEEP["12 bits in 16.png"])), range=[0, 2047.5])
    full, half = pictures_in(data.test)[0], pictures_in(data.test)[4]
    assert full[0, 31, 31] == 255 and half.max() == 255 and (full == 255).sum() > 500
    assert half[0, 16, 0].item() == pytest.approx(128, abs=2)
    assert data.input.range == (0, 2047.5)
    assert "8 picture(s), such as" in capsys.readouterr().err.split("go far beyond")[0]
    with pytest.raises(ConfigError, match=r"range: should be \[black, white\]"):
        image_folder(str(tmp_path), range=[5, 5])


def test_one_bright_picture_that_darkens_all_others_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep_folder(tmp_path, DEEP["8 bits in 16.png"])
    Image.fromarray(DEEP["16 bits.png"]).save(tmp_path / "train" / "a" / "bright.png")
    image_folder(str(tmp_path))
    said = capsys.readouterr().err
    assert "16 picture(s), such as" in said and "keep few grey levels" in said and "dataset.range=[0," in said


def test_eight_bits_beside_deep_ones_stay_as_they_are(tmp_path: Path) -> None:
    deep_folder(tmp_path, DEEP["12 bits in 16.png"])
    Image.fromarray((200 * RAMP).astype(np.uint8)).save(tmp_path / "test" / "a" / "8.png")
    data = image_folder(str(tmp_path))
    assert pictures_in(data.test)[4].max() == 200
    assert "become 0 to 255, in 16 of 17 pictures" in data.note


def test_a_deep_picture_is_refused_where_no_range_is_known(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(DEEP["16 bits.png"]).save(path)
    with pytest.raises(DataError, match=rf"{path} has more than 8 bits.*\ndataset\.range="):
        Pictures(Loose((path,)), 1, (32, 32))[0]
    assert Pictures(Loose((path,)), 1, (32, 32), (0.0, 65535.0))[0].max() == 255


def test_both_byte_orders_are_scaled_alike(tmp_path: Path) -> None:
    values = DEEP["12 bits in 16.png"]
    Image.fromarray(values).save(tmp_path / "little.tif")
    Image.frombytes("I;16B", (32, 32), values.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    little, big = (
        Pictures(Loose((tmp_path / f"{name}.tif",)), 1, (32, 32), (0.0, 4095.0))[0] for name in ("little", "big")
    )
    assert torch.equal(little, big) and little.max() == 255


def test_colours_of_sixteen_bits_are_told_to_lose_their_lower_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_pictures(tmp_path) / "train" / "a" / "0.png"
    rows = b"".join(b"\0" + bytes(6 * 16) for _ in range(16))
    path.write_bytes(png(rows, depth=16, kind=2))
    image_folder(str(tmp_path))
    assert f"1 picture(s), such as {path}, have 16 bits a channel" in capsys.readouterr().err


def png(rows: bytes, depth: int, kind: int, side: int = 16) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_the_range_goes_with_the_student_to_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep_folder(tmp_path / "photos", DEEP["12 bits in 16.png"])
    words = ["teacher=smallcnn", "teacher.widths=[4]", "teacher.fit.epochs=0", "student=tinycnn", "schedule=constant",
             "schedule.train.epochs=1", "report=false", "dataset=image_folder", "dataset.root=photos"]  # fmt: skip
    assert distill("train", *words, "run_dir=run") == 0
    assert "grey values from 0 to 4095 become 0 to 255" in " ".join(capsys.readouterr().out.split())
    assert read_json(Path("run/model.json"))["input"]["range"] == [0, 4095]
    deep_folder(tmp_path / "darker", (DEEP["12 bits in 16.png"] / 2).astype(np.uint16), parts=("test",))
    rows = {}
    for name, more in (("carried", []), ("typed", ["dataset.range=[0,4095]"]), ("other", ["dataset.range=[0,2000]"])):
        assert distill("eval", "ckpt=run", "dataset.root=darker", f"predictions={name}.csv", *more) == 0
        rows[name] = Path(f"{name}.csv").read_text()
    assert rows["carried"] == rows["typed"] != rows["other"]


# --- what decoders do


@pytest.mark.parametrize("error", [struct.error("odd"), KeyError(0x0112), TypeError(), MemoryError(), IndexError("x")])
def test_whatever_a_decoder_raises_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = make_pictures(tmp_path / "photos") / "test" / "b" / "3.png"
    really = Image.open

    def opened(path: Path) -> Image.Image:
        if path == wrong:
            raise error
        return really(path)

    monkeypatch.setattr(Image, "open", opened)
    assert distill("train", "dataset=image_folder", "dataset.root=photos", "student=tinycnn", "teacher=smallcnn") == 3
    assert f"cannot read {wrong}: " in capsys.readouterr().err


def exif(orientation: Any, more: bytes = b"") -> bytes:
    """EXIF whose one entry is an orientation, as a short or, where it is text, as ASCII."""
    if isinstance(orientation, int):
        entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    else:
        entry = struct.pack("<HHI4s", 0x0112, 2, 2, orientation)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0\0\0\0" + more


@pytest.mark.parametrize(
    ("content", "upright", "told"),
    [
        (exif(6), False, False),
        (exif(9), True, False),
        (exif(0), True, False),
        (exif(b"6\0\0\0"), True, False),
        (exif(6)[:18], True, True),
        (b"Exif\0\0MM", True, False),
    ],
)
def test_orientation_is_all_that_metadata_tell_and_odd_ones_are_left_alone(
    tmp_path: Path, content: bytes, upright: bool, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Image.new("RGB", (16, 16), "white")
    picture.paste((0, 0, 0), (0, 0, 8, 16))
    path = make_pictures(tmp_path) / "test" / "a" / "0.jpg"
    picture.save(path, exif=content, quality=95)
    data = image_folder(str(tmp_path))
    dark = pictures_in(data.test)[0].float().mean(0) < 128
    assert dark[:, :8].all() if upright else dark[:8].all()
    said = capsys.readouterr().err
    assert (f"1 picture(s), such as {path}, have metadata that cannot be read" in said) is told


def test_choices_among_odd_pictures_are_told(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path) / "train" / "a"
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].convert("L").save(folder / "pages.tif", save_all=True, append_images=[frames[1].convert("L")])
    Image.new("RGBA", (16, 16), (200, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGB", (1, 5000)).save(folder / "long.png")
    note = image_folder(str(tmp_path)).note
    for told in ("2 of several frames, of which the first is read", "1 with transparency, laid on white",
                 "1 lose more than half to the square cut", "1 grey among colour",
                 "size: median of shorter sides from 1 to 16"):  # fmt: skip
        assert told in note
    shown = Pictures(Loose((folder / "moving.gif", folder / "long.png")), 3, (16, 16))
    assert shown[0].float().mean((1, 2)).tolist() == pytest.approx([254, 0, 0], abs=2)
    assert shown[1].shape == (3, 16, 16)


def test_a_few_thumbnails_of_one_size_do_not_decide_the_size_of_all(tmp_path: Path) -> None:
    make_pictures(tmp_path, number=6)
    for place, path in enumerate(sorted((tmp_path / "train").rglob("*.png"))):
        side = 4 if place % 4 == 0 else 20 + 2 * place
        Image.open(path).resize((side, side + 3)).save(path)
    data = image_folder(str(tmp_path))
    assert data.input.size == (28, 28)
    assert "size: median of shorter sides from 4 to 42" in data.note


def test_a_picture_of_impossible_size_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=rf"cannot read {tmp_path}/t\w+/a/0.png: Image size \(256 pixels\) exceeds"):
        image_folder(str(tmp_path))


# --- the fast reader


def odd_pictures(root: Path) -> tuple[Path, ...]:
    """Pictures of 32 pixels a side of kinds that a quick decoder may get wrong."""
    draw = np.random.default_rng(0)
    rgb = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    grey, clear = rgb.convert("L"), rgb.copy()
    clear.putalpha(grey)
    turned = Image.Exif()
    turned[0x0112] = 6
    saved = {
        "rgb.jpg": (rgb, {}), "fine.jpg": (rgb, {"subsampling": 0, "quality": 95}), "steps.jpg": (rgb, {"progressive": True}),
        "grey.jpg": (grey, {}), "print.jpg": (rgb.convert("CMYK"), {}), "turned.jpg": (rgb, {"exif": turned.tobytes()}),
        "rgb.png": (rgb, {}), "grey.png": (grey, {}), "clear.png": (clear, {}), "few.png": (rgb.quantize(16), {}),
        "one.png": (grey.convert("1"), {}), "hole.png": (rgb, {"transparency": rgb.getpixel((3, 3))}),
        "turned.png": (rgb, {"exif": turned.tobytes()}), "rgb.bmp": (rgb, {}), "rgb.webp": (rgb, {"lossless": True}),
    }  # fmt: skip
    for name, (picture, how) in saved.items():
        picture.save(root / name, **how)
    return tuple(root / name for name in saved)


def test_the_fast_reader_gives_the_same_bits_where_nothing_is_resized(tmp_path: Path) -> None:
    paths = odd_pictures(tmp_path)
    slow, fast = (Pictures(Loose(paths), 3, (32, 32), reader=reader) for reader in ("pil", "fast"))
    for row, path in enumerate(paths):
        assert torch.equal(slow[row], fast[row]), path.name
    grey = tuple(path for path in paths if path.name.startswith(("grey", "one")))
    slow, fast = (Pictures(Loose(grey), 1, (32, 32), reader=reader) for reader in ("pil", "fast"))
    assert all(torch.equal(slow[row], fast[row]) for row in range(len(grey)))


def test_the_fast_reader_resizes_to_nearly_the_same(tmp_path: Path) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    for name, sides in (("wide.jpg", (301, 200)), ("high.png", (121, 333)), ("small.jpg", (20, 25))):
        Image.fromarray(smooth).resize(sides, Image.Resampling.BICUBIC).save(tmp_path / name)
    paths = tuple(sorted(tmp_path.iterdir()))
    slow, fast = (Pictures(Loose(paths), 3, (64, 64), reader=reader) for reader in ("pil", "fast"))
    for row, path in enumerate(paths):
        apart = (slow[row].float() - fast[row].float()).abs()
        assert apart.mean() < 2 and slow[row].shape == fast[row].shape, path.name


def test_what_the_fast_reader_cannot_read_is_refused_as_ever(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(odd_pictures(tmp_path)[0].read_bytes()[:200])
    (tmp_path / "cut.png").write_bytes(odd_pictures(tmp_path)[6].read_bytes()[:200])
    for name in ("cut.jpg", "cut.png"):
        for reader in ("pil", "fast"):
            with pytest.raises(DataError, match=f"cannot read .*{name}"):
                Pictures(Loose((tmp_path / name,)), 3, (32, 32), reader=reader)[0]


def test_a_reader_is_part_of_what_data_are(tmp_path: Path) -> None:
    root = str(make_pictures(tmp_path / "photos"))
    plain, fast = (image_folder(root, memory=0, reader=reader) for reader in ("pil", "fast"))  # type: ignore[arg-type]
    assert plain.digest != fast.digest


def test_of_very_many_pictures_some_are_looked_at_and_the_others_may_not_surprise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 5)
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("L", (16, 16), number * 20).save(tmp_path / part / name / f"{number}.png")
    opened, really = list[object](), Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or really(file))
    data = image_folder(str(tmp_path), memory=0, mean=[0.5], std=[0.5])
    assert len(opened) == 5 + 1 and data.input.channels == 1
    assert "size, colours and depth are those of 5 of 16 pictures, and none was compared with another" in data.note
    Image.new("RGB", (16, 16), "red").save(tmp_path / "test" / "a" / "1.png")
    data = image_folder(str(tmp_path), memory=0, mean=[0.5], std=[0.5])
    with pytest.raises(DataError, match=r"test/a/1\.png is in colour, and all pictures that were looked at are grey"):
        data.test.source.read(range(8))
