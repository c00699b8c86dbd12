"""Show a model's modules: paths, output shapes, parameters; and which of them objectives on features compare.

usage: distill inspect student=NAME [teacher=NAME] [key=value ...] [options]

  distill inspect student=smallcnn                      every module that gives a tensor
  distill inspect student=smallcnn teacher=resnet18     both, and the pairs that objectives on features choose
  distill inspect student=resnet20 dataset=cifar10      built for the pictures and classes of that data

The paths are what objectives on features take, as in objective.hint.teacher_layer=layer3. Nothing is trained.
Missing data are downloaded.
"""

from __future__ import annotations

from functools import partial
from itertools import zip_longest

from omegaconf.errors import OmegaConfBaseException

from distill_cli import models, objectives
from distill_cli.base import ui
from distill_cli.base.errors import ConfigError
from distill_cli.config import schema
from distill_cli.config.places import group_files
from distill_cli.data import Data, load
from distill_cli.models import Classifier, features, origin
from distill_cli.models.features import Shapes
from distill_cli.tasks import task as tasks
from distill_cli.training import job

Pairs = tuple[tuple[str, str], ...]  # paths in student and teacher


def run(settings: schema.Train) -> dict[str, Shapes]:
    """Print the tables; returns every module's output shape for one picture, by role and path.

    Raises:
        ConfigError: a model cannot be built for these data.
    """
    job.check(settings)
    typed = {text.partition("=")[0].partition(".")[0].lstrip("+") for text in settings.typed}
    roles = {"student": settings.student, **({"teacher": settings.teacher} if "teacher" in typed else {})}
    data = load(settings.dataset, settings.workers, folder=partial(origin.folder_of, settings.teacher))
    task = tasks.of(data)
    teacher = job.build(settings.teacher, "teacher", data, task) if "teacher" in roles else None
    built = {"student": job.build(settings.student, "student", data, task, teacher)}
    built |= {"teacher": teacher} if teacher else {}
    shapes = {role: features.shapes(model) for role, model in built.items()}
    for role, model in built.items():
        modules = dict(model.net.named_modules())
        title = f"{role} {roles[role].name}, {models.num_parameters(model):,} parameters, input {data.input.words()}"
        rows = [
            [path, type(modules[path]).__name__, _size(shape), f"{models.num_parameters(modules[path]):,}"]
            for path, shape in shapes[role].items()
        ]
        ui.show(ui.table(title, ["path", "module", "output", "parameters"], rows))
    if "teacher" not in roles:
        ui.show("teacher=NAME beside it shows what objectives on features compare")
        return shapes
    compared, refused = _compared(settings, built["student"], built["teacher"], data)
    rows = []
    for pairs, names in compared.items():
        for number, (ours, theirs) in enumerate(pairs):
            sides = [ours, _size(shapes["student"].get(ours, ())), theirs, _size(shapes["teacher"].get(theirs, ()))]
            rows.append(["" if number else ", ".join(names), *sides])
    title = "what objectives on features compare unless they are told otherwise"
    ui.show(ui.table(title, ["objective", "student", "shape", "teacher", "shape"], rows, numbers=False))
    for why, names in refused.items():
        ui.show(f"{', '.join(names)}: {why}")
    return shapes


def _compared(
    settings: schema.Train, student: Classifier, teacher: Classifier, data: Data
) -> tuple[dict[Pairs, list[str]], dict[str, list[str]]]:
    """The names of objectives on features by what they would compare, and by why they cannot."""
    compared, refused = dict[Pairs, list[str]](), dict[str, list[str]]()
    for name in sorted(group_files("objective")):
        try:
            for objective in objectives.build(settings.source.objective(name)).values():
                objective.connect(student, teacher, data)
                if pairs := tuple(zip_longest(objective.student_layers, objective.teacher_layers, fillvalue="")):
                    compared.setdefault(pairs, []).append(name)
        except (ConfigError, OmegaConfBaseException) as error:
            refused.setdefault(str(error).splitlines()[0], []).append(name)
    return compared, refused


def _size(shape: tuple[int, ...]) -> str:
    """A shape without its batch."""
    return " x ".join(str(side) for side in shape[1:])
