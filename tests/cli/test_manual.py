"""README, the manual and CONTRIBUTING: every link leads somewhere, every `distill` line is one that `distill` takes.

What is tried: the lines of ```sh blocks and the inline code that begin with `distill`. A line that trains (`train`, `teacher`,
`inspect`) is composed with `--cfg job`, of an axis its first value. Where it names a model or a data set that the page itself
makes, `distill inspect` builds it; with an objective of the page's it trains on little data. All other verbs run as typed, on a
small run that stands for RUN and lies where a sweep's would. Two things are left to other tests: `resume SWEEP`, and the sending
of a run to a tracker, of which the settings are composed. A verb alone is asked for its help. Lines of other programs are not
run: only the files they name must exist.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUICK, ROOT, distill
from PIL import Image

from distill_cli.cli.commands import help as manual
from distill_cli.cli.pages import command_names, topics

PAGES = [
    ROOT / "README.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted((ROOT / "distill_cli" / "manual").glob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)]+)\)")
SETTING = re.compile(r"^[+~]{0,2}([a-z_][\w./@]*)=(\S+)$", re.IGNORECASE)
ABOUT_A_RUN = ("eval", "export", "predict", "report", "resume")
COMPOSED = ("train", "teacher", "inspect", "data")
RUN_FOLDER = re.compile(r"\bRUN(/chain/\S+)?(?=$|\s)|outputs/train/<date>/<run>")
SWEEP_FOLDER = re.compile(r"\bSWEEP\b|outputs/sweeps/<date>/<time>")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a page in this language."""
    return [body for kind, body in FENCE.findall(text_of(name)) if kind == language]


def inline(name: str) -> list[str]:
    """Inline code of a page, fenced blocks left out."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(name)))


def lines(name: str) -> Iterator[list[str]]:
    """The words behind `distill` of every line that a page tells to type."""
    shell = [line for block in blocks(name, "sh") for line in block.splitlines()]
    for line in dict.fromkeys([*shell, *inline(name)]):
        words = shlex.split(line, comments=True) if line.startswith("distill ") else []
        if words[1:]:
            yield words[1:]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    content = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", content, re.MULTILINE)}


def needs_a_run(words: list[str]) -> bool:
    return bool(words[1:]) and (words[0] in ABOUT_A_RUN or "--from" in words)


def single(word: str) -> str:
    """Of an axis its first value."""
    key, equals, value = word.partition("=")
    if found := re.search(r"interval\(([^,]+),", value):
        return f"{key}={found[1]}"
    return word if "[" in value else f"{key}{equals}{value.split(',')[0]}"


def tried(words: list[str], built: tuple[str, ...] = ()) -> list[str]:
    """The words to try in place of those on the page; `built` are the names that the page makes itself."""
    verb, *rest = words
    if not rest:
        return ["--help"] if verb.startswith("-") else [verb, "--help"]
    if "-m" in rest:
        rest = [single(word) for word in rest if word != "-m"]
    chosen = {word.partition("=")[2] for word in rest}
    if chosen & {path.stem for path in Path("conf").glob("objective/*.yaml")}:
        return [verb, *QUICK, "dataset.limit=200", *rest]
    if chosen & set(built):
        return ["inspect", *rest]
    if trackers := [word for word in rest if verb == "report" and word.startswith("logger")]:
        return ["train", *trackers, "--cfg", "job"]
    if verb in COMPOSED:
        return [verb, *rest, "--cfg", "job"]
    return [verb, *(word.replace("TOPIC", "sweeps") for word in rest)]


def made(name: str) -> tuple[str, ...]:
    """Write the Python files that a page shows and run its lines that make folders; returns the names of the YAML they made."""
    for block in blocks(name, "python"):
        if title := re.match(r"# (\w+\.py): ", block):
            Path(title[1]).write_text(block)
    for line in [line for block in blocks(name, "sh") for line in block.splitlines() if line.startswith("mkdir ")]:
        if "conf/" in line:
            subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True)
    return tuple(path.stem for path in Path("conf").rglob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(FENCE.sub("", text_of(name))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name}: nothing at {target}"
        assert not anchor or anchor in anchors(there), f"{name}: no heading for {target}"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_ours_that_a_page_names_exists(name: str) -> None:
    shell = [line for block in blocks(name, "sh") for line in block.splitlines() if not line.startswith("mkdir ")]
    for word in " ".join([*inline(name), *shell]).split():
        if re.match(r"(tests|conf|distill_cli|\.ci)/[\w./-]*$", word):
            assert (ROOT / word).exists(), f"{name}: there is no {word}"


@pytest.mark.parametrize("name", NAMES)
def test_every_line_that_trains_composes_and_every_other_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    built = made(name)
    for words in lines(name):
        if not needs_a_run(words):
            assert distill(*tried(words, built)) == 0, f"{name}: distill {shlex.join(words)}\n{capsys.readouterr().err}"


def test_every_line_about_a_run_or_a_sweep_works_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, run = "outputs/sweeps/one", "outputs/sweeps/one/T-1"
    assert distill("train", *QUICK, "dataset.limit=200", f"run_dir={run}") == 0, capsys.readouterr().err
    for file in ("student.safetensors", "model.json"):
        shutil.copy(f"{run}/{file}", file)
    about = [
        (name, words)
        for name in NAMES
        for words in lines(name)
        if needs_a_run(words) and words[:2] != ["resume", "SWEEP"]
    ]
    assert {words[0] for _, words in about} == {*ABOUT_A_RUN, "train"}
    Path("photos").mkdir()
    Image.new("L", (30, 20), 128).save("photos/1.png")
    places = [
        (name, [SWEEP_FOLDER.sub(sweep, RUN_FOLDER.sub(run, word)) for word in tried(words)]) for name, words in about
    ]
    for line, name in {tuple(line): name for name, line in places}.items():
        assert distill(*line) == 0, f"{name}: distill {shlex.join(line)}\n{capsys.readouterr().err}"


def keys_of(node: object, prefix: str = "") -> set[str]:
    """The dotted paths of all keys of a configuration."""
    found = set[str]()
    for key, value in node.items() if isinstance(node, dict) else ():
        found |= {f"{prefix}{key}"} | keys_of(value, f"{prefix}{key}.")
    return found


def known_keys(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Every key of `distill train`, all objectives, loggers, launchers and sweepers included, and of `distill eval`."""

    def composed(*words: str) -> set[str]:
        capsys.readouterr()
        assert distill(*words) == 0, capsys.readouterr().err
        return keys_of(yaml.safe_load(capsys.readouterr().out))

    commands = (["eval"], ["predict"], ["export"], ["generate"], ["data", "pack", "dataset=image_table"])
    found = {key for words in commands for key in composed(*words, "--cfg", "job")}
    every = [
        f"{group}=[{','.join(f.stem for f in (ROOT / 'conf' / group).glob('*.yaml'))}]"
        for group in ("objective", "logger")
    ]
    stage = ["schedule.refine.lr=1", "schedule.refine.objective=kd", "optimizer=sgd"]
    folder = ["dataset=image_folder", "dataset.root=x", "teacher=torchvision", "teacher.name=resnet18"]
    texts = [
        "dataset=text",
        "dataset.root=x",
        *(f"{role}{word}" for role in ("teacher", "student") for word in ("=huggingface", ".name=x")),
    ]
    fresh = ["dataset=stdlib_docs", "teacher=words_large", "student=words_tiny"]
    language = ["dataset=language", "dataset.root=x"]
    for words in (every, stage, folder, texts, fresh, language, ["teacher=resnet18"]):
        found |= composed("train", *words, "--cfg", "job")
    for launcher, sweeper in (("processes", "grid"), ("slurm", "optuna"), ("ray_cluster", "optuna")):
        found |= composed("train", f"hydra/launcher={launcher}", f"hydra/sweeper={sweeper}", "--cfg", "hydra")
    return found | {"output", "days"}  # words of `distill report` and `distill cache`


def test_every_setting_that_a_page_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known, conf = known_keys(capsys), ROOT / "conf"
    for name in NAMES:
        for setting in filter(None, map(SETTING.match, " ".join(inline(name)).split())):
            key, value = setting.groups()
            folder = conf / ("model" if key in ("teacher", "student") else key)
            if not folder.is_dir():
                assert key in known or "@" in key or key.startswith(("chain.", "teachers.")), (
                    f"{name}: no setting {key}"
                )
                continue
            for choice in value.strip("[]").split(","):
                ours = choice.islower() and choice not in ("mynet", "mydata", "mine", "submitit_local")
                assert not ours or (folder / f"{choice}.yaml").exists(), f"{name}: no {key} {choice}"


def test_python_of_the_pages_runs() -> None:
    generator = torch.Generator().manual_seed(0)
    z_s, z_t = torch.randn(2, 4, 3, generator=generator)
    for name in NAMES:
        for block in blocks(name, "python"):
            if "sys.argv" in block:  # a program; tests/deploy/ runs it
                continue
            scope = {"z_s": z_s, "z_t": z_t, "y": torch.tensor([0, 1, 2, 0])}
            exec(compile(block, name, "exec"), scope)


def test_yaml_on_a_page_is_the_file_it_names() -> None:
    for name in NAMES:
        for block in blocks(name, "yaml"):
            file = ROOT / block.splitlines()[0].removeprefix("# ")
            assert yaml.safe_load(block) == yaml.safe_load(file.read_text(encoding="utf-8")), f"{name}: {file}"


def test_readme_is_short_and_links_every_page() -> None:
    readme = text_of("README.md")
    assert len(readme.splitlines()) < 200
    for topic in topics():
        assert f"(distill_cli/manual/{topic}.md)" in readme, topic


def test_contributing_tells_every_room() -> None:
    rooms = {path.name for path in (ROOT / "distill_cli").iterdir() if (path / "__init__.py").exists()}
    told = set(re.findall(r"^\| `(\w+)/` \|", text_of(".github/CONTRIBUTING.md"), re.MULTILINE))
    assert told == rooms


def test_help_lists_the_topics(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("help") == 0
    shown = capsys.readouterr().out
    assert len(topics()) > 8
    for topic in topics():
        assert re.search(rf"^  {topic} +\S", shown, re.MULTILINE)


@pytest.mark.parametrize("topic", topics())
def test_help_shows_a_page_with_commands_in_place_of_links(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("help", topic) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(text_of(f"distill_cli/manual/{topic}.md").splitlines()[0])
    assert ".md)" not in re.sub(r"\(tests/\S+\)", "", shown)


def test_help_shows_a_commands_own_page_and_suggests_the_nearest_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("help", "resume") == 0
    assert "usage: distill resume" in capsys.readouterr().out
    assert distill("help", "sweep") == 2
    said = capsys.readouterr().err
    assert "there is no page 'sweep'" in said and "did you mean distill help sweeps?" in said
    assert distill("help", "sweeps", "reports") == 2
    assert not set(topics()) & (set(command_names()) - {"cache", "data"})


def test_on_a_terminal_a_page_goes_through_the_pager(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paged = list[str]()
    monkeypatch.setattr("pydoc.pager", paged.append)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert manual.run(["sweeps"]) == 0
    (shown,) = paged
    assert "Sweeps: many runs from one line" in shown and "# Sweeps" not in shown and "**" not in shown
