"""How the teacher's signal enters the loss: a function and a class for each objective, and their weighted sum.

The functions can be used alone. Those on logits take student_logits and teacher_logits (N, K), labels (N,) and a temperature
above 0, those on features take student_features and teacher_features, lists of tensors. Each returns a scalar, in fp32 at
least, and raises a ValueError for tensors of another shape or a label out of range.
"""

from __future__ import annotations

from distill_cli.objectives.base import LogitObjective, Objective
from distill_cli.objectives.contrastive import crd
from distill_cli.objectives.correlation import dist, lskd, mlld
from distill_cli.objectives.decoupled import dkd, nkd
from distill_cli.objectives.features import attention, hint, vid
from distill_cli.objectives.logits import ce, kd, logit_mse, logit_sse
from distill_cli.objectives.loss import Loss, Terms, build, gradient_norms, influence
from distill_cli.objectives.relating import attention_map, relation
from distill_cli.objectives.relations import rkd, similarity
from distill_cli.objectives.review import review
from distill_cli.objectives.softened import annealed, hard, jsd, reverse_kl, skewed_kl, virtual
from distill_cli.objectives.transformer import hidden

__all__ = [
    "LogitObjective",
    "Loss",
    "Objective",
    "Terms",
    "annealed",
    "attention",
    "attention_map",
    "build",
    "ce",
    "crd",
    "dist",
    "dkd",
    "gradient_norms",
    "hard",
    "hidden",
    "hint",
    "influence",
    "jsd",
    "kd",
    "logit_mse",
    "logit_sse",
    "lskd",
    "mlld",
    "nkd",
    "relation",
    "reverse_kl",
    "review",
    "rkd",
    "similarity",
    "skewed_kl",
    "vid",
    "virtual",
]
