"""Proves that pictures in tars, parquet and Arrow are read by number, as a folder gives them; what is wrong is refused by name."""

from __future__ import annotations

import builtins
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from helpers import distill, make_pictures

from distill_cli.base.errors import ConfigError, DataError
from distill_cli.data import Data
from distill_cli.data.folder import image_folder
from distill_cli.data.image_shards import image_shards
from distill_cli.data.image_table import image_table

SPLITS = ("train", "val", "test")


def listed(root: Path, part: str) -> list[tuple[Path, int]]:
    """The pictures of a part with their class, in the order of its folder."""
    return [(path, "ab".index(path.parent.name)) for path in sorted((root / part).glob("*/*"))]


def tar_of(path: Path, pictures: list[tuple[Path, int]], label: Callable[[int], dict[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, (picture, target) in enumerate(pictures):
            for ending, content in {**label(target), picture.suffix[1:]: picture.read_bytes()}.items():
                member = tarfile.TarInfo(f"./deep/{number:04d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def numbered(target: int) -> dict[str, bytes]:
    return {"cls": str(target).encode(), "txt": b"about it"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", ("train", "val", "test"))


@pytest.fixture
def tars(photos: Path) -> Path:
    root = photos.parent / "tars"
    for part in SPLITS:
        pictures = listed(photos, part)
        for number, some in enumerate((pictures[:7], pictures[7:])):
            tar_of(root / f"{part}-{number:04d}.tar", some, numbered)
    return root


def raw(data: Data) -> list[torch.Tensor]:
    splits = [getattr(data, name) for name in SPLITS]
    return [t for split in splits for t in (split.source.read(range(len(split))), split.targets)]


def same(one: Data, other: Data) -> bool:
    return all(torch.equal(a, b) for a, b in zip(raw(one), raw(other), strict=True))


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_tars_give_what_their_folder_gives_through_an_index_made_once(tars: Path, photos: Path, memory: float) -> None:
    kept, folder = tars.parent / "cache", image_folder(str(photos), memory=memory)
    first = image_shards(str(tars), memory=memory, store=kept, classes=["a", "b"])
    again = image_shards(str(tars), memory=memory, store=kept, classes=["a", "b"])
    assert same(folder, first) and same(folder, again) and first.digest == again.digest
    assert first.classes == folder.classes and first.note.startswith("test: 2 .tar files; validation: 2 .tar files")
    assert len(list(kept.glob("[!.]*"))) == 1


def test_labels_are_numbers_names_or_what_a_json_holds(photos: Path) -> None:
    pictures, data = listed(photos, "test"), {}
    for name, label, said in (
        ("names", "cls", lambda target: {"cls": [b"zebra\n", b"ant"][target]}),
        ("json", "json.class", lambda target: {"json": json.dumps({"class": target + 1}).encode()}),
    ):
        for part in ("train", "test"):
            tar_of(photos.parent / name / part / "0.tar", pictures, said)
        data[name] = image_shards(str(photos.parent / name), label)
    assert data["names"].classes == ("ant", "zebra") and data["names"].test.targets.tolist() == [1] * 8 + [0] * 8
    assert data["json"].classes == ("1", "2") and data["json"].test.targets.tolist() == [0] * 8 + [1] * 8


def test_an_epoch_of_tars_goes_on_where_it_was_and_is_cached_by_sample(tars: Path, photos: Path) -> None:
    words = ["teacher=smallcnn", "teacher.widths=[4]", "teacher.fit.epochs=0", "student=tinycnn", "dataset.memory=0",
             "schedule=constant", "schedule.train.epochs=1", "report=false", "batch_size=8"]  # fmt: skip
    names = {"shards": tars, "folder": photos}
    for kind, root in names.items():
        assert distill("train", *words, f"dataset=image_{kind}", f"dataset.root={root}", f"run_dir={kind}") == 0
    student = [Path(f"{kind}/student.safetensors").read_bytes() for kind in names]
    assert student[0] == student[1]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda root: os.truncate(root / "val-0001.tar", 9000),
            r"val-0001\.tar is no whole tar file: unexpected end of data",
        ),
        (lambda root: os.truncate(root / "val-0001.tar", 6 * 512), r"val-0001\.tar is (cut off|no whole tar)"),
        (lambda root: (root / "val-0001.tar").write_bytes(b"zip" * 1000), r"val-0001\.tar is no whole tar file"),
        (
            lambda root: [tar.unlink() for tar in root.glob("t*.tar")],
            "it holds 2 file.s. of val.*\nit needs those of train",
        ),
        (lambda root: [tar.unlink() for tar in root.iterdir()], "it holds nothing"),
    ],
)
def test_tars_that_are_cut_off_or_missing_are_refused_by_name(
    tars: Path, harm: Callable[[Path], object], said: str
) -> None:
    harm(tars)
    with pytest.raises(DataError, match=said):
        image_shards(str(tars))


def test_a_tar_cut_between_two_members_is_not_taken_for_a_short_one(tars: Path) -> None:
    tar = tars / "train-0000.tar"
    with tarfile.open(tar) as archive:
        last = archive.getmembers()[-3].offset
    os.truncate(tar, last)
    with pytest.raises(DataError, match=rf"train-0000\.tar is cut off, or damaged, behind its byte {last:,}"):
        image_shards(str(tars))


def test_a_member_without_a_label_is_named_with_what_is_beside_it(photos: Path, tars: Path) -> None:
    tar_of(tars / "train-0002.tar", listed(photos, "test"), lambda target: {"txt": b"no class"})
    with pytest.raises(
        DataError, match=r"train-0002\.tar: \./deep/0000\.\w+ has no label: there is no .*0000\.cls beside it, but txt"
    ):
        image_shards(str(tars))
    with pytest.raises(DataError, match=r"has the label 1, which is none of the 1 classes: a"):
        (tars / "train-0002.tar").unlink()
        image_shards(str(tars), classes=["a"])


def test_a_damaged_picture_in_a_tar_is_named(tars: Path) -> None:
    data = image_shards(str(tars), memory=0, mean=[0.5], std=[0.5])
    tar = tars / "test-0001.tar"
    content = tar.read_bytes()
    tar.write_bytes(bytes(len(content)))
    with pytest.raises(DataError, match=r"cannot read .*test-0001\.tar: \./deep/0003\.\w+"):
        data.test.source.read([10])


# --- tables


def table_of(pictures: list[tuple[Path, int]]) -> dict[str, list[Any]]:
    images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in pictures]
    return {"image": images, "label": [target for _, target in pictures]}


FEATURES = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})


@pytest.mark.parametrize("kind", ["saved to disk", "parquet of Hugging Face", "bytes", "feather"])
def test_tables_give_what_a_folder_gives(photos: Path, kind: str) -> None:
    root, kept = photos.parent / "table", photos.parent / "cache"
    root.mkdir()
    sets = {part: table_of(listed(photos, part)) for part in SPLITS}
    if kind == "saved to disk":
        made = {part: Dataset.from_dict(values, FEATURES) for part, values in sets.items()}
        DatasetDict(made).save_to_disk(str(root), num_shards=dict.fromkeys(SPLITS, 2))
    for part, values in sets.items():
        if kind == "parquet of Hugging Face":
            Dataset.from_dict(values, FEATURES).to_parquet(str(root / f"{part}-00000-of-00001.parquet"), batch_size=5)
        plain = {"image": [image["bytes"] for image in values["image"]], "label": ["ab"[n] for n in values["label"]]}
        if kind == "bytes":
            pq.write_table(pa.table(plain), root / f"{part}.parquet")
        if kind == "feather":
            with pa.ipc.new_file(root / f"{part}.arrow", pa.table(plain).schema) as file:
                file.write_table(pa.table(plain), max_chunksize=5)
    folder = image_folder(str(photos), memory=0)
    for _ in range(2):
        data = image_table(str(root), memory=0, store=kept)
        assert data.classes == ("a", "b") and same(folder, data)
    copied = len(list(kept.glob("[!.]*"))) if kept.exists() else 0
    assert copied == (3 if kind in ("bytes", "parquet of Hugging Face") else 0)  # others are read where they lie


def test_compressed_arrow_is_copied_too(photos: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        values = table_of(listed(photos, part))
        table = pa.table({"image": [image["bytes"] for image in values["image"]], "label": values["label"]})
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(tmp_path / f"{part}.arrow", table.schema, options=options) as file:
            file.write_table(table)
    data = image_table(str(tmp_path), memory=0)
    folder = image_folder(str(photos), memory=0)
    assert torch.equal(data.test.source.read(range(16)), folder.test.source.read(range(16)))  # type: ignore[arg-type]


def test_columns_that_are_missing_or_hold_no_pictures_name_those_there_are(photos: Path, tmp_path: Path) -> None:
    values = table_of(listed(photos, "test"))
    for part in ("train", "test"):
        table = pa.table(
            {"picture": [image["bytes"] for image in values["image"]], "label": values["label"], "empty": [None] * 16}
        )
        pq.write_table(table, tmp_path / f"{part}.parquet")
    root = str(tmp_path)
    with pytest.raises(
        DataError, match=r"has no column 'image'; .*columns: picture, label, empty\ndataset\.image=COLUMN"
    ):
        image_table(root)
    with pytest.raises(
        DataError, match=r"has no column 'cls'; .*columns: picture, label, empty\ndataset\.label=COLUMN"
    ):
        image_table(root, "picture", "cls")
    with pytest.raises(DataError, match="column 'label' is int64: it holds no encoded pictures; columns: label int64"):
        image_table(root, "label")
    (tmp_path / "test.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"test\.parquet is no \.parquet file that can be read"):
        image_table(root, "picture")


def test_paths_without_pictures_are_refused(photos: Path, tmp_path: Path) -> None:
    features = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("int64")})
    for part in ("train", "test"):
        values = {"image": [{"bytes": None, "path": "1.jpg"}] * 3, "label": [0, 1, 0]}
        Dataset.from_dict(values, features).save_to_disk(str(tmp_path / "set" / part))
    with pytest.raises(DataError, match="rows without a picture in column 'image': 3 of 3"):
        image_table(str(tmp_path / "set"))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"")
    (tmp_path / "test.parquet").write_bytes(b"")
    really = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return really(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"needs the package pyarrow\npip install \"distill-cli\[arrow\]\""):
        image_table(str(tmp_path))


def test_tars_and_tables_can_be_packed(tars: Path, photos: Path) -> None:
    assert (
        distill("data", "pack", "dataset=image_shards", "dataset.root=tars", "dataset.classes=[a,b]", "out=p.pack") == 0
    )
    assert same(image_folder("p.pack", memory=0), image_folder(str(photos), memory=0))
