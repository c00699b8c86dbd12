"""Values that no key may take, generated from the schema: each is refused while composing, and says which key it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bad_values import HUGE, LARGE, bad_values, bad_values_by_key, misspelt
from helpers import QUICK, distill, read_json
from omegaconf import OmegaConf

from distill_cli.base.errors import ConfigError
from distill_cli.config import brought, compose, load, overrides
from distill_cli.config.overrides import PATH_KEYS
from distill_cli.config.records import every


def refusal(engine: object, command: str, text: str) -> str:
    """What is said to an override, or "accepted"; anything but a ConfigError escapes."""
    try:
        words = [overrides.quoted(text)]
        overrides.parse(words, multirun=False)
        load.settings(engine, command, command, words)
    except ConfigError as error:
        assert error.exit_code == 2
        return str(error)
    return "accepted"


OWN = {"eval": ("ckpt", "split", "per_class", "predictions", "trust", "batch_size"),
       "export": ("ckpt", "format", "precision", "output", "calibration", "tolerance", "trust"),
       "predict": ("ckpt", "output", "top", "threshold", "sort_into", "batch_size", "trust"),
       "generate": ("output", "samples", "max_tokens", "prompt_tokens", "temperature", "top_k", "top_p", "seed",
                    "batch_size")}  # fmt: skip
BAD = {name: bad_values_by_key(name) for name in ("train", *OWN)}
KEYS = [f"{name} {key}" for name in BAD for key in OWN.get(name, BAD[name])]


@pytest.mark.parametrize("line", KEYS)
def test_a_key_refuses_what_it_cannot_take(line: str) -> None:
    command, key = line.split()
    if command in OWN:
        brought.use_dataset_of(None)
    with compose.session(command) as engine:
        for text in BAD[command][key]:
            said = refusal(engine, command, text)
            assert said.startswith(key) or f"\n{key}" in said, f"{text[:80]}: {said}"
            assert len(said) < 1000, "a long value is cut short"
            if text.startswith(misspelt(key)):
                assert f"did you mean {key}?" in said


def test_there_are_hundreds_of_them_each_once_and_always_the_same() -> None:
    assert len(bad_values()) >= 200
    assert len(set(bad_values())) == len(bad_values())
    assert bad_values() == bad_values()


def test_they_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from distill_cli.cli import main; "
        f"codes = [main(['train', text]) for text in {bad_values()[::25]!r}]; print(set(codes), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "{2} False", done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([f"T={HUGE}"], "T: must be at most 2147483647, got 1000"),
        (["T=" + "9" * 5000], "T: must be at most 2147483647"),
        (["batch_size=-" + HUGE], "batch_size: must be at least -2147483647"),
        (["threads=5000"], "threads: must be at most 4096, got 5000"),
        (["workers=5000"], "workers: must be at most 4096, got 5000"),
        (["optimizer.betas=[0.9,nan]"], "optimizer.betas: should be a finite number, got nan"),
        ([f"student.widths=[8,{LARGE}]"], "student.widths: must be at most 2147483647, got 1000000000000"),
        (["+student.deep={inside:{width:[inf]}}"], "student.deep.inside.width: should be a finite number, got inf"),
        (["-m", f"seed=0,{HUGE}"], "seed: must be at most 2147483647"),
        (["-m", "seed=range(0,2000000000)"], "seed: a sweep takes at most 10000 values"),
        (["-m", "seed=shuffle(range(0,2000000000))"], "seed: a sweep takes at most 10000 values"),
        (["T=${T}"], "T: Recursive interpolation"),
        (["output_dir=${nope}"], "output_dir: Interpolation key 'nope' not found"),
        (["T=${oc.decode:'" + HUGE + "'}"], "int too large"),
        (["T=" + "[" * 3000], "this value cannot be read"),
        (["=3"], "=3: a setting is written key=value"),
        ([""], "a setting is written key=value"),
        (["output_dir=caf\udce9"], "holds bytes that are not UTF-8"),
        (["save_every=abc"], "save_every: should be a number of steps, or a time as in 60s, 5m or 1h, got 'abc'"),
    ],
)
def test_what_would_crash_or_fill_the_memory_is_refused_at_once(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert len(shown) < 1000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("T: .nan", "T: should be a finite number, got nan"),
        ("optimizer: {betas: [.inf, 0.9]}", "optimizer.betas: should be a finite number, got inf"),
        ("student: {widths: 1e999}", "student.widths: should be a finite number, got inf"),
        (f"T: {HUGE}", "conf/experiment/mine.yaml:2: must be at most 2147483647"),
        (
            f"optimizer: {{betas: [{LARGE}]}}",
            "conf/experiment/mine.yaml:2: must be at most 2147483647, got 1000000000000",
        ),
        ("student: {widths: 0x" + "f" * 9000 + "}", "conf/experiment/mine.yaml:2: must be at most 2147483647"),
    ],
)
def test_a_file_of_the_users_holds_no_such_number_either(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{line}\n")
    assert distill("train", "experiment=mine") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["save_every=null", "save_every=1", "save_every=0.5m", "seed=2147483647", "workers=4096"]
)
def test_what_stands_at_a_bound_is_taken(text: str) -> None:
    with compose.session("train") as engine:
        assert refusal(engine, "train", text) == "accepted"


def test_save_every_is_steps_or_seconds_or_neither() -> None:
    values: list[int | str | None] = [100, "60s", "5m", "0.5h", None]
    assert [every(value) for value in values] == [(100, None), (None, 60), (None, 300), (None, 1800), (None, None)]


NAMES = {
    "spaces": " a  b ",
    "umlauts": "Größe-é-漢",
    "equals": "a=b=c",
    "newline": "a\nb\\\n",
    "tab": "a\tb",
    "quotes": 'it\'s "so"',
    "a quote first": "'tis",
    "a quote last": 'so"',
    "quotes around": '"quoted" and "so"',
    "backslashes": "a\\b\\\\c\\'d\\",
    "grammar": "a,b:[c]{d}(e)#$%&*!",
    "a number": "1e999",
    "a word of YAML": "no",
}


@pytest.mark.parametrize("key", sorted(PATH_KEYS))
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_path_is_taken_as_typed(key: str, name: str) -> None:
    command = next((name for name, own in OWN.items() if key in own), "train")
    words = [overrides.quoted(word) for word in [f"{key}=/data/{name}", f"{key}={name}"]]
    chosen = {
        "dataset.root": "dataset=mnist",
        "logger.tensorboard.dir": "logger=tensorboard",
        "logger.mlflow.store": "logger=mlflow",
    }
    words = [*([chosen[key]] if key in chosen else []), *words]
    with compose.session(command) as engine:
        brought.use_dataset_of(None)
        for count, path in ((-1, f"/data/{name}"), (None, name)):
            try:
                overrides.parse(words[:count], multirun=False)
            except ConfigError as error:
                assert error.hint.startswith("quote it: ")
                assert name.startswith('"'), "only what looks quoted may be misread"
                continue
            settings = load.settings(engine, command, command, words[:count])
            whole = OmegaConf.create({**settings.source.job, "hydra": settings.source.hydra})
            assert OmegaConf.select(whole, key) == path


def test_a_run_lives_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "so" = ü\n\\end'
    assert distill("train", *QUICK, f"run_dir={folder}") == 0
    assert read_json(folder / "summary.json")["test"]["student"]["accuracy"] > 0
    assert distill("eval", f"ckpt={folder}", f"predictions={folder / 'a=b.csv'}") == 0
    assert (folder / "a=b.csv").is_file()
