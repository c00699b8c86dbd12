"""Show a model's modules: paths, output shapes, parameters; and which of student and teacher to pair.

usage: distill inspect student=NAME [teacher=NAME] [key=value ...] [options]

  distill inspect student=smallcnn                      every module that gives a tensor
  distill inspect student=smallcnn teacher=resnet18     both, and pairs for objectives on features
  distill inspect student=resnet20 dataset=cifar10      as it is for that data's pictures and classes

The paths are what objectives on features take, as in objective.hint.teacher_layer=layer3. Nothing is trained;
data that are not there are downloaded.
"""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table

from distill_cli import kinds, models, setup, ui
from distill_cli.compose import choice
from distill_cli.data import InputSpec, load
from distill_cli.errors import ConfigError
from distill_cli.models import Classifier, features
from distill_cli.models.features import Shapes


def run(cfg: DictConfig) -> dict[str, Shapes]:
    """Print the tables; returns every module's output shape for one picture, by role and path.

    Raises:
        ConfigError: a model cannot be built for these data.
    """
    plain = kinds.plain(cfg)
    setup.check(plain)
    typed = {text.partition("=")[0].partition(".")[0].lstrip("+") for text in HydraConfig.get().overrides.task}
    roles = ["student", *(["teacher"] if "teacher" in typed else [])]
    data = load(plain["dataset"], plain["workers"])
    found: dict[str, Shapes] = {}
    for role in roles:
        model = models.build(plain[role], role, data.input, len(data.classes))
        found[role] = features.shapes(model, data.input)
        name = plain[role].get("name") or choice(role)
        ui.show(_table(f"{role} {name}, {models.num_parameters(model):,} parameters", model, found[role], data.input))
    if len(roles) == 1:
        ui.show("teacher=NAME beside it suggests which modules to pair")
        return found
    try:
        pairs = features.pairs(found["student"], found["teacher"])
    except ConfigError as error:
        ui.show(f"no pairs: {error.message}")
        return found
    rows = [[ours, _size(found["student"][ours]), theirs, _size(found["teacher"][theirs])] for ours, theirs in pairs]
    ui.show(ui.table("feature maps to pair, the deepest last: what attention, vid and review take",
                     ["student", "shape", "teacher", "shape"], rows, numbers=False))  # fmt: skip
    return found


def _table(title: str, model: Classifier, shapes: Shapes, spec: InputSpec) -> Table:
    size = f"{spec.channels}x{spec.size[0]}x{spec.size[1]}"
    modules = dict(model.net.named_modules())
    rows = [
        [path, type(modules[path]).__name__, _size(shape), f"{models.num_parameters(modules[path]):,}"]
        for path, shape in shapes.items()
    ]
    return ui.table(f"{title}, input {size}", ["path", "module", "output", "parameters"], rows)


def _size(shape: tuple[int, ...]) -> str:
    """A shape without its batch."""
    return " x ".join(str(side) for side in shape[1:])
