"""What objective.NAME.weight=auto is worth: each objective at its published weight, at the found one, and labels alone.

    python tests/bench/weights.py --out outputs/weights --seeds 0 1 2      # goes on where it stopped; prints the table

All runs are `distill train` on the digits, a tinycnn of a smallcnn, everything else by default; the means are over seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
from pathlib import Path

from distill_cli.cli import main as distill

ROOT = Path(__file__).parents[2]
WORDS = ["dataset=digits", "teacher=smallcnn", "student=tinycnn", "report=false", "threads=1", "device=cpu"]


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/weights"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", help="objectives; all by default")
    args = parser.parse_args()
    names = args.only or sorted(path.stem for path in (ROOT / "conf" / "objective").glob("*.yaml") if path.stem != "ce")

    def summaries(name: str, *words: str) -> list[dict]:
        """The summaries of an objective's runs, a seed each."""
        places = [args.out / "-".join([name, *(["auto"] if words else []), str(seed)]) for seed in args.seeds]
        for seed, place in zip(args.seeds, places, strict=True):
            line = ["train", *WORDS, f"objective={name}", f"seed={seed}", *words, f"run_dir={place}"]
            if not (place / "summary.json").exists():
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                    code = distill([*line, f"output_dir={args.out}"])
                if code:
                    raise SystemExit(f"{' '.join(line)}: exit code {code}\n{said.getvalue()}")
        return [json.loads((place / "summary.json").read_text()) for place in places]

    def mean(runs: list[dict]) -> float:
        return 100 * statistics.mean(run["test"]["student"]["accuracy"] for run in runs)

    found = {name: summaries(name, f"objective.{name}.weight=auto") for name in names}
    labels, seeds = mean(summaries("ce")), len(args.seeds)
    print(f"Labels alone reach {labels:.2f} % over {seeds} seeds.\n")
    print("| | published weight | `auto` | weight found |\n|---|---:|---:|---:|")
    for name, runs in found.items():
        weights = [run["weights"][name] for run in runs]
        print(f"| `{name}` | {mean(summaries(name)) - labels:+.2f} | {mean(runs) - labels:+.2f} | "
              f"{min(weights):.2g} to {max(weights):.2g} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
