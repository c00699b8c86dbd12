"""The HTML reports: they hold the numbers, say every picture in words, let nothing a user names act, load nothing, and fit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.report import records
from distill_cli.report.leaderboard import leaderboard
from distill_cli.report.records import Record
from distill_cli.report.run_page import run_page
from distill_cli.report.sweep_page import sweep_page
from distill_cli.report.words import times

LIMIT = 3_000_000
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{1}$", "日本 & Co"]
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def scores(accuracy: float, kl: float | None = 0.05) -> dict[str, float]:
    fidelity = {} if kl is None else {"kl": kl, "agreement": 0.91}
    return {"accuracy": accuracy, "f1": accuracy - 0.01, "nll": 0.4, "ece": 0.0321, **fidelity}


def summary(seed: int, student: float, overrides: Sequence[str] = (), baseline: float | None = 0.9) -> dict[str, Any]:
    split = {"teacher": scores(0.9512, None), "student": scores(student), "student_last": scores(student - 0.002)}
    if baseline is not None:
        split["baseline"] = scores(baseline)
    made = {
        "run": "run", "seed": seed, "overrides": list(overrides), "test": split, "val": split,
        "params": {"teacher": 1_234_567, "student": 98_765}, "compression": 12.5,
        "best": {"epoch": 2, "stage": "imitate"}, "images_per_second": 900.0,
        "seconds": {"teacher": 12.0, "cache": 1.0, "train": 34.0, "eval": 0.5},
    }  # fmt: skip
    if baseline is not None:
        made["difference"] = {"accuracy": student - baseline, "half_interval": 0.0123, "samples": 2500}
    return made


def config(**settings: Any) -> dict[str, Any]:
    stages = {
        "imitate": {"epochs": 2, "T": 4.0, "alpha": 0.7},
        "refine": {"epochs": 2, "T": [4.0, 1.0], "alpha": [0.7, 0.0]},
    }
    return {
        "T": 4.0,
        "alpha": 0.7,
        "seed": 0,
        "schedule": stages,
        "optimizer": {"lr": 0.001, "betas": [0.9, 0.999]},
        **settings,
    }


def rows(epochs: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "stage": "imitate" if epoch <= epochs // 2 else "refine", "epoch": epoch, "step": 10 * epoch,
            "T": 4.0 - 3 * max(0, 2 * epoch / epochs - 1), "alpha": 0.7 - 0.7 * max(0, 2 * epoch / epochs - 1),
            "lr": 0.001 / epoch, "loss": {"total": 5 / epoch**2, "ce": 2 / epoch, "kd": 6 / epoch},
            "val": scores(0.93 - 0.1 / epoch, 0.2 / epoch), "images_per_second": 812.0, "seconds": 1.0,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip


def evaluation(classes: Sequence[str]) -> dict[str, Any]:
    number = len(classes)
    bins = {
        "confidence": [None] * 13 + [0.9, 0.97],
        "accuracy": [None] * 13 + [0.8, 0.99],
        "count": [0] * 13 + [40, 60],
    }
    votes = [[0, 0.8123], [1, 0.15], [number - 1, 0.002]]
    model = {
        "name": "student", "runtime": "torch 2.14.1", "parameters": 98_765, "bytes": 400_000, "batch": 64,
        "latency_ms": {"p50": 2.5, "p95": 3.75}, "samples_per_second": 1234.0, "peak_bytes": 5_000_000, "accuracy": 0.9,
    }  # fmt: skip
    return {
        "split": "test",
        "classes": list(classes),
        "confusion": [[n, n, 48] for n in range(number)] + [[0, 1, 7], [1, 0, 2]],
        "per_class": {
            "precision": [0.9] * number,
            "recall": [0.8] * number,
            "support": [50] * number,
            "f1": [0.8471 - 0.0001 * n for n in range(number)],
        },
        "reliability": {"teacher": bins, "student": bins},
        "samples": [
            {"index": 17 + n, "label": 1, "kl": 3.21 - 0.1 * n, "teacher": votes, "student": votes, "picture": PIXEL}
            for n in range(12)
        ],
        "cost": {
            "device": "cpu",
            "cpu": "a CPU",
            "vnni": None,
            "threads": 2,
            "rows": [
                {**model, "name": "teacher", "latency_ms": {"p50": 10.0, "p95": 12.0}, "samples_per_second": 617.0},
                model,
            ],
        },
    }


def make_run(
    folder: Path,
    classes: Sequence[str] = ("cat", "dog", "eel"),
    overrides: Sequence[str] = ("T=4", "baseline=true"),
    epochs: int = 4,
    answers: bool = True,
    baseline: float | None = 0.9,
) -> Record:
    """A finished run's folder, as far as a report reads it."""
    folder.mkdir(parents=True)
    machine = {"device": "cpu", "threads": 2, "torch": "2.14.1"}
    known = {"config": config(), "overrides": list(overrides), "name": "train", "directory": "/home/<me>"}
    files.write_json(folder / "run.json", {**known, "prints": {}, "machine": machine})
    names = {"names": {"dataset": "zoo", "model": "tinynet"}, "teacher": {"path": "teacher"}}
    files.write_json(folder / "model.json", names)
    (folder / "teacher").mkdir()
    files.write_json(folder / "teacher" / "model.json", {"names": {"model": "bignet"}})
    files.write_json(folder / "summary.json", summary(0, 0.9234, overrides, baseline))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows(epochs)), encoding="utf-8")
    if answers:
        files.write_json(folder / "evaluation.json", evaluation(classes))
    return records.read(folder)


def sweep(home: Path, settings: Sequence[dict[str, Any]], seeds: Sequence[int] = (0, 1, 2)) -> list[Record]:
    """Runs of a sweep that never lay on a disk: of the first setting the students are best."""
    found = []
    for place, chosen in enumerate(settings):
        for seed in seeds:
            overrides = [*(f"{key}={value}" for key, value in chosen.items()), f"seed={seed}"]
            told = summary(seed, 0.95 - 0.01 * (place % 50) / len(settings) + 0.001 * seed, overrides)
            told["params"] = {"teacher": 1_234_567, "student": 50_000 * (1 + place % 3)}
            names = {"dataset": "zoo", "teacher": "bignet", "model": "tinynet"}
            folder = home / "_".join(overrides).replace("/", "-")
            found.append(Record(folder, config(**chosen, seed=seed), overrides, seed, told, names))
    return found


GRID = [{"T": T, "alpha": alpha} for alpha in (0.5, 0.9) for T in (1.0, 2.0, 8.0)]
FAILURES = [("T=99 <b>seed=0</b>", "failed: the loss was not finite")]


class Outline(HTMLParser):
    """What the checks below ask of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check(page: str) -> Outline:
    """What holds for every page."""
    outline = Outline(page)
    names = [name for name, _ in outline.elements]
    assert page.startswith("<!DOCTYPE html>") and ("html", {"lang": "en"}) in outline.elements
    assert names.count("title") == names.count("h1") == names.count("main") == 1
    assert any(attributes.get("name") == "viewport" for _, attributes in outline.elements)
    assert not {"script", "iframe", "object", "form"} & set(names)
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert names.count("svg") == sum(attributes.get("class") == "picture" for _, attributes in outline.elements)
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id stands twice"
    for name, attributes in outline.elements:
        assert not [key for key in attributes if key.startswith("on")], attributes
        if attributes.get("class") == "picture":
            assert attributes["role"] == "img" and len(attributes["aria-label"] or "") > 20
        if name == "img":
            assert attributes["alt"] and (attributes["src"] or "").startswith("data:image/png;base64,")
        for link in (attributes.get(key) for key in ("href", "xlink:href") if key in attributes):
            assert link is not None and "//" not in link and (name == "link" or ":" not in link), link
            assert not link.startswith("#") or link[1:] in ids, link
    for place in re.findall(r"url\(([^)]*)\)", page):
        assert place[0] == "#" and place[1:] in ids
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(page.encode()) < LIMIT
    return outline


def test_a_runs_page_holds_what_the_run_found(tmp_path: Path) -> None:
    text = check(run_page(make_run(tmp_path / "run"))).text
    for words in (
        "bignet distilled into tinynet on zoo", "92.34%", "95.12%", "90.00%",
        "Distillation helps: +2.34 points over the same student trained on labels only.",
        "95% interval +1.11 to +3.57, over 2,500 test samples.", "12.5× fewer parameters", "4× faster on one image",
        "imitate 2 epochs at T 4, α 0.7; refine 2 epochs at T 4 → 1, α 0.7 → 0", "1,234,567", "0.0321",
        "Most often cat is taken for dog: 7 of 55.", "sample 17, KL 3.21", "81%", "<1%",
        "10 ms 2.5 ms", "617 1,234", "2× more images/s", "distill train T=4 baseline=true", "betas: [0.9, 0.999]",
    ):  # fmt: skip
        assert words in text, words


def test_only_what_is_not_in_percent_is_drawn_on_a_logarithmic_axis(tmp_path: Path) -> None:
    record = make_run(tmp_path / "run", baseline=None)
    lines = [{**row, "val": {**row["val"], "accuracy": 0.01 * 4 ** row["epoch"] / 4, "kl": 9.0}} for row in rows()]
    lines[-1]["val"]["kl"] = 0.01
    (record.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    page = run_page(record)
    said = dict(re.findall('aria-label="([^":]*): ([^"]*)" style="--drawn', page))
    assert "goes from 1.00% to 64.00%" in said["Validation accuracy"]
    assert [title for title in said if "logarithmic" in said[title]] == ["KL(teacher ‖ student) on validation"]
    drawn = dict(zip(said, re.findall("<svg.*?</svg>", page, re.DOTALL), strict=True))
    assert ">40%<" in drawn["Validation accuracy"] and ">0.1<" in drawn["KL(teacher ‖ student) on validation"]


def test_what_was_typed_is_marked_in_the_settings(tmp_path: Path) -> None:
    page = run_page(make_run(tmp_path / "run", overrides=["T=4", "optimizer.lr=0.001"]))
    assert re.findall("<mark>(.*?)</mark>", page) == ["T: 4.0", "  lr: 0.001"]


def test_without_a_baseline_the_page_says_how_to_compare(tmp_path: Path) -> None:
    page = run_page(make_run(tmp_path / "run", baseline=None))
    assert "Whether distilling helped was not measured. baseline=true trains the same student" in check(page).text
    assert 'class="number student"' in page and 'class="number labels"' not in page


@pytest.mark.parametrize(
    ("student", "says"), [(0.88, "Distillation hurts: −2.00 points"), (0.905, "No difference shown: +0.50 points")]
)
def test_the_verdict_is_not_always_that_it_helps(tmp_path: Path, student: float, says: str) -> None:
    folder = tmp_path / "run"
    make_run(folder)
    files.write_json(folder / "summary.json", summary(0, student))
    assert says in check(run_page(records.read(folder))).text


def test_an_older_run_without_evaluation_has_a_page_that_says_so(tmp_path: Path) -> None:
    outline = check(run_page(make_run(tmp_path / "run", answers=False)))
    assert "This run kept no evaluation.json" in outline.text
    assert "Speed was not measured in this run." in outline.text
    assert "img" not in [name for name, _ in outline.elements]


@pytest.mark.parametrize("text", ["", '{"epoch": 1', None])
def test_damaged_epochs_are_named(tmp_path: Path, text: str | None) -> None:
    record = make_run(tmp_path / "run")
    path = record.folder / "metrics.jsonl"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged"):
        run_page(record)


def test_what_users_name_is_shown_and_does_nothing(tmp_path: Path) -> None:
    record = make_run(tmp_path / "<i>run", classes=HOSTILE, overrides=["dataset.root=</style><b>x", "T=4"])
    outline = check(run_page(record))
    for name in HOSTILE:
        assert f"labelled {HOSTILE[1]}" in outline.text and name in outline.text
    assert "distill train 'dataset.root=</style><b>x' T=4" in outline.text and "/home/<me>" in outline.text
    runs = sweep(tmp_path / "<b>", [{"T": 1.0, "dataset.root": name} for name in HOSTILE])
    swept = check(sweep_page(leaderboard(runs), tmp_path, FAILURES))
    assert all(f"dataset.root={name}" in swept.text for name in HOSTILE) and FAILURES[0][0] in swept.text


def test_the_confusion_matrix_of_many_classes_is_a_list(tmp_path: Path) -> None:
    few, many = (make_run(tmp_path / str(k), [f"class {n}" for n in range(k)]) for k in (30, 31))
    assert 'class="heatmap' in run_page(few)
    page = run_page(many)
    assert 'class="heatmap' not in page and "class 0 class 1 7 12.7%" in check(page).text


def test_a_page_stays_small_with_a_thousand_classes_and_epochs(tmp_path: Path) -> None:
    record = make_run(tmp_path / "run", [f"a class with quite a long name {n}" for n in range(1000)], epochs=3000)
    outline = check(run_page(record))
    assert "All 1,000 classes" in outline.text and " 3000 refine 1 " in outline.text


def test_a_sample_is_shown_as_the_picture_or_the_text_that_its_record_holds(tmp_path: Path) -> None:
    record = make_run(tmp_path / "run")
    about = evaluation(["cat", "dog", "eel"])
    first, second, *_ = about["samples"]
    about["samples"] = [first, {**second, "picture": None, "text": "a <b>poor</b>\nfilm"}]
    files.write_json(record.folder / "evaluation.json", about)
    page = run_page(record)
    assert [name for name, _ in check(page).elements].count("img") == 1
    assert page.count("<blockquote") == 1 and "a &lt;b&gt;poor&lt;/b&gt;\nfilm</blockquote>" in page


def test_speed_is_read_under_the_name_and_in_the_unit_of_newer_and_of_older_runs(tmp_path: Path) -> None:
    old, new = (make_run(tmp_path / name) for name in ("old", "new"))
    for path in (new.folder / name for name in ("metrics.jsonl", "evaluation.json", "summary.json")):
        text = path.read_text().replace("images_per_second", "samples_per_second")
        if path.suffix == ".jsonl":
            path.write_text(text)
        else:
            value = {key: value for key, value in json.loads(text).items() if key != "checksum"}
            files.write_json(path, {**value, "unit": "texts"} if path.name == "summary.json" else value)
    was, now = (check(run_page(records.read(record.folder))).text for record in (old, new))
    for words in ("0.9200 812", "2× more {unit}/s", "faster on one {one}", "{unit}/s at batch 64 617 1,234"):
        words = words.removeprefix("0.9200 ")
        assert words.format(unit="images", one="image") in was and words.format(unit="texts", one="text") in now, words
    assert "images/s" not in now and "one image" not in now


def test_every_colour_of_a_picture_has_another_on_dark_pages(tmp_path: Path) -> None:
    """A dark page finds each colour that a picture was drawn in by its value: one that it does not know stays light."""
    pages = [run_page(make_run(tmp_path / "run")), sweep_page(leaderboard(sweep(tmp_path, GRID)), tmp_path)]
    for page in pages:
        drawn = set(re.findall("#[0-9a-f]{6}", "".join(re.findall("<svg.*?</svg>", page, re.DOTALL))))
        assert {"#b44400", "#59626d"} <= drawn
        for colour in drawn:
            assert f'[style*="fill: {colour}"]' in page and f'[style*="stroke: {colour}"]' in page, colour


def test_a_sweeps_page_holds_the_leaderboard_and_what_it_says(tmp_path: Path) -> None:
    runs = sweep(tmp_path / "a b", GRID)
    runs[1].folder.mkdir(parents=True)
    (runs[1].folder / "report.html").touch()
    outline = check(sweep_page(leaderboard(runs), tmp_path, FAILURES))
    for words in (
        "bignet distilled into tinynet on zoo", "18 runs: 6 settings, 3 seeds; 1 more without final numbers.",
        "Best on validation: T=1 alpha=0.5", "95.10 ± 0.10", "Of 6 settings, distillation helps in 6.",
        "Highest at T = 1 and α = 0.5 with 95.10%", "Validation accuracy by alpha", "averaged over T",
        "From 50,000 parameters", "failed: the loss was not finite",
    ):  # fmt: skip
        assert words in outline.text, words
    links = [attributes["href"] for name, attributes in outline.elements if name == "a"]
    assert [link for link in links if link and link[0] != "#"] == ["a%20b/T%3D1.0_alpha%3D0.5_seed%3D1/report.html"]


def test_a_ratio_is_written_out_at_any_size() -> None:
    ratios = (11_000_000 / 9_098, 12.54, 0.5, 1 / 2500)
    assert [times(ratio, "more", "less") for ratio in ratios] == [
        ("1,209×", "more"), ("12.5×", "more"), ("2×", "less"), ("2,500×", "less")]  # fmt: skip


def test_one_setting_alone_needs_no_comparison(tmp_path: Path) -> None:
    outline = check(sweep_page(leaderboard(sweep(tmp_path, GRID[:1], [0])), tmp_path))
    assert "1 run: 1 setting, 1 seed." in outline.text and "over 2,500 test samples" in outline.text
    assert not {"Against labels only", "Settings", "Trade-offs"} & {word.strip() for word in outline.words}


def test_three_hundred_settings_stay_readable(tmp_path: Path) -> None:
    many = [{"T": T, "alpha": round(0.02 * a, 2), "optimizer.lr": 0.1} for a in range(1, 31) for T in range(1, 11)]
    page = sweep_page(leaderboard(sweep(tmp_path / ("long" * 40), many)), tmp_path)
    outline = check(page)
    assert "The first 30 of 300 are drawn." in outline.text and "The other 280" in outline.text
    drawn = page[page.index('aria-label="Accuracy against distance') :]
    assert len(re.findall(r"<text[^>]*>\d+</text>", drawn[: drawn.index("</svg>")])) == 5


def browsers() -> list[str]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
    return [found for name in names if (found := shutil.which(name))][:1]


def browse(browser: str, page: Path, profile: Path) -> tuple[str, list[str]]:
    """The document after loading, and what the console said."""
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    place = [f"--user-data-dir={profile}", "--window-size=1400,900", page.as_uri()]
    done = subprocess.run([browser, *words, *place], capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


MEASURE = """<script>
addEventListener("load", () => {
  document.title = [...document.querySelectorAll("iframe")].map(({contentWindow: view}) => {
    const boxes = [...view.document.querySelectorAll(".scroll, .picture, pre, p")];
    const right = Math.max(...boxes.map((box) => box.getBoundingClientRect().right));
    return [view.innerWidth, view.document.documentElement.scrollWidth, right].join(" ");
  }).join(";");
});
</script>"""


def framed(page: str, widths: Sequence[int]) -> str:
    """A page that shows another one in windows of these widths, all of it unfolded, and has in its title how wide it is."""
    loose = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace("<details", "<details open")
    frames = (f'<iframe srcdoc="{escape(loose)}" style="width: {width}px; border: 0"></iframe>' for width in widths)
    return f"<!DOCTYPE html><title>not measured</title>{MEASURE}{''.join(frames)}"


def test_in_a_browser_pages_are_silent_and_never_wider_than_the_window(tmp_path: Path) -> None:
    """Without a browser on the machine this holds the pages against the other checks alone."""
    long = "a_class_with_a_name_that_no_line_of_a_telephone_can_hold_in_any_font"
    run = run_page(make_run(tmp_path / "run", [*HOSTILE, long], ["dataset.root=" + 40 * "deep/"]))
    entries = leaderboard(sweep(tmp_path, [{**setting, "dataset.root": 40 * "deep/"} for setting in GRID]))
    pages = {"run": run, "sweep": sweep_page(entries, tmp_path, FAILURES)}
    for page in pages.values():
        check(page)
    for browser in browsers():

        def seen(page: str, path: Path = tmp_path / "page.html", browser: str = browser) -> tuple[str, list[str]]:
            path.write_text(page, encoding="utf-8")
            return browse(browser, path, tmp_path / "profile")

        loud = run.replace("</main>", '<img src="https://example.invalid/x.png" alt="x"></main>')
        assert "Content Security Policy" in " ".join(seen(loud)[1]), "a request that is refused would be seen"
        for name, page in pages.items():
            assert seen(page)[1] == []
            title = re.search("<title>(.*?)</title>", seen(framed(page, [390, 1280]))[0])
            assert title is not None
            for width, measured in zip((390, 1280), title[1].split(";"), strict=True):
                window, document, boxes = map(float, measured.split())
                assert window == width and document <= width and boxes <= width, (name, measured)
