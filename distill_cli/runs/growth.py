"""A run that is to train longer: only where all that it did is what it would have done had that been said at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill_cli.config.schema import Train
from distill_cli.runs import identity


def asked(kept: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a configuration differs from the one that was kept in this alone: its last stage has more epochs."""
    differing = [one for one in identity.differences(kept, now) if not identity.within(one[0], identity.FREE)]
    last = f"schedule.{list(now['schedule'])[-1]}.epochs"
    return (
        [key for key, _, _ in differing] == [last] and isinstance(old := differing[0][1], int) and differing[0][2] > old
    )


def obstacle(settings: Train) -> str:
    """What spreads over the last stage or over the whole run, so that it would have been otherwise in a longer one."""
    name, stage = list(settings.schedule.items())[-1]
    spread = {
        f"T moves through {name}": len(set(stage.T)) > 1,
        f"alpha moves through {name}": len(set(stage.alpha)) > 1,
        f"the learning rate follows optimizer.curve={settings.optimizer.curve}": settings.optimizer.curve != "constant",
        "optimizer.warmup is a share of the run": settings.optimizer.warmup > 0,
        "an objective's warmup is a share of the run": any(one.warmup for one in settings.objective.values()),
        "each link of its chain learns from the one before": bool(settings.chain),
    }
    return next((why for why, holds in spread.items() if holds), "")
