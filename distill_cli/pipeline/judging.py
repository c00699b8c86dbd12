"""What came of a run: teacher, student and baseline judged on validation and test, one pass for each model and split."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from distill_cli.base import world
from distill_cli.config.schema import FIRST
from distill_cli.deploy import cost
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import OF_TEACHER, Classifier, edits, num_parameters
from distill_cli.pipeline import baseline, words
from distill_cli.tasks import task as tasks
from distill_cli.tasks.watchers import OfTeacher, Watcher
from distill_cli.teachers.answer import Teacher
from distill_cli.training.job import Job
from distill_cli.training.state import State

DETAILS = "evaluation.json"  # in a run's folder: what its page shows beyond its summary


def judge(
    job: Job, state: State, teacher: Teacher, untrained: Classifier, clock: words.Clock
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary's numbers, and what a page shows beyond them; leaves the student with its best weights.

    Args:
        untrained: the student as initialised, which the baseline starts from.
    """
    assert state.best is not None
    models = {"student": job.student}
    if state.best["epoch"] != state.epoch:
        models["student_last"] = copy.deepcopy(job.student)
    job.student.net.load_state_dict(state.best_weights)
    models |= before_rounding(state, untrained)
    if hasattr(untrained.net, OF_TEACHER):
        models["student_start"] = untrained
    if job.settings.baseline:
        with clock("baseline"):
            models["baseline"] = baseline.prepare(job, untrained)
    details, scores = job.task.details(), dict[str, Any]()
    with clock("eval"):
        for name in ("test", "val"):
            meters = {who: job.task.meter() for who in ("teacher", *models)}
            for who, model in models.items():
                model.to(job.device)  # where it has not been while there were shards of it
                watchers: Sequence[Watcher] = [meters[who]]
                if who == "student":
                    watchers = [*watchers, OfTeacher(meters["teacher"]), *([details] if name == "test" else [])]
                tasks.watch(job.task, model, getattr(job.data, name), watchers, teacher.on(name, whole=True))
            scores[name] = {who: meter.compute() for who, meter in meters.items()}
            last = scores[name].get("student_last", scores[name]["student"])  # the last epoch may be the best
            scores[name]["student_last"] = last
            if name == "test" and "baseline" in meters and len(job.data.test.labelled):
                difference = job.task.difference(meters["student"], meters["baseline"])
                scores["difference"] = {**difference, "samples": len(job.data.test.labelled)}
    found = details.compute(job.data.test)
    found["cost"] = None
    # Only a page shows it, and it takes the whole teacher.
    if job.settings.report and state.model.spread is None:
        # What rounds while it learns says nothing of what 8 bits cost.
        exact = "student_fp32" if "student_fp32" in models else "student"
        pair = {"teacher": job.teachers[FIRST], "student": models.get(exact, job.student)}
        asked = {who: Predictor({}, model) for who, model in pair.items()}
        found["cost"] = world.decided(lambda: cost.measure(asked, job.device))
        for row, who in zip(found["cost"]["rows"], ("teacher", exact), strict=True):
            row["accuracy"] = scores["test"][who].get("accuracy")
    return {**scores, **_facts(job, state, untrained)}, found


def before_rounding(state: State, untrained: Classifier) -> dict[str, Classifier]:
    """Where a stage has made the student one of 8 bits: the student as it was before, and that in 8 bits without any training."""
    if not state.exact:
        return {}
    exact = copy.deepcopy(untrained)
    exact.net.load_state_dict(state.exact["weights"])
    plain = copy.deepcopy(exact)
    edits.redo(plain.net, edits.of(state.model.net))
    return {"student_fp32": exact, "student_int8": plain}


def _facts(job: Job, state: State, untrained: Classifier) -> dict[str, Any]:
    """Sizes, the best epoch and the speed."""
    assert state.best is not None
    sizes = {**job.sizes, "student": num_parameters(untrained)}  # before anything was folded
    rates = {key: [row[key] for row in state.rows] for key in state.rows[0] if key.endswith("_per_second")}
    return {
        "params": sizes,
        "compression": sizes["teacher"] / sizes["student"],
        "unit": job.task.unit,
        "metric": job.task.metric,
        **({"weights": found} if (found := state.balance.weights(state.balance.objectives)) else {}),
        "best": {"epoch": state.best["epoch"], "stage": state.best["stage"]},
        **({"fp32": {"epoch": state.exact["best"]["epoch"]}} if state.exact else {}),
        "chosen_by": tasks.chosen_by(job.pace.best),
        **({} if job.data.train.complete else {"labelled": len(job.data.train.labelled)}),
        **{key: sum(values) / len(values) for key, values in rates.items()},
    }
