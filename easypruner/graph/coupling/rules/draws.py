"""Rules for operations that draw random numbers: fewer channels draw others than before."""

from __future__ import annotations

import torch

from easypruner.graph.coupling.rules.fills import fill
from easypruner.graph.coupling.rules.pointwise import pointwise
from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule

_DROPPING = (torch.ops.aten.bernoulli_.float,)
"""Draws of layers that drop values in training. They have no effect otherwise."""


@rule('rand', 'randn')
def draw(coupling: Coupling, operation: Operation) -> None:
    """Leave all axes free. They are mixed: each number depends on how many are drawn before it."""
    fill(coupling, operation)
    _note_mixing(coupling, operation)


@rule('rand_like', 'randn_like', 'randint_like', 'uniform', 'normal', 'random', 'bernoulli',
      'exponential', 'cauchy', 'log_normal', 'geometric', 'poisson', 'binomial',
      '_standard_gamma')  # fmt: skip
def draw_each(coupling: Coupling, operation: Operation) -> None:
    """Couple axes as any pointwise operation does. They are mixed, as those of new numbers are."""
    pointwise(coupling, operation)
    if operation.func not in _DROPPING:
        _note_mixing(coupling, operation)


def _note_mixing(coupling: Coupling, operation: Operation) -> None:
    for axis in coupling.axes_of(operation.output):
        coupling.note_mixing(axis)
