"""Optimizer handlers for the optimizers of torch."""

from __future__ import annotations

from typing import ClassVar

from torch import optim

from easypruner.graph.cutting.optimizer_handler import OptimizerHandler, elementwise, without


class TorchOptimizer(OptimizerHandler):
    """Optimizers whose states have the shape of the parameter."""

    handles = (
        optim.Adadelta,
        optim.Adagrad,
        optim.Adam,  # AdamW is a subclass since torch 2.7
        optim.AdamW,
        optim.Adamax,
        optim.ASGD,
        optim.NAdam,
        optim.RAdam,
        optim.RMSprop,
        optim.Rprop,
        optim.SGD,
        optim.SparseAdam,
        'torch.optim.Muon',
    )
    layout: ClassVar = dict.fromkeys(
        (
            'acc_delta', 'ax', 'exp_avg', 'exp_avg_sq', 'exp_inf', 'grad_avg', 'max_exp_avg_sq',
            'momentum_buffer', 'prev', 'square_avg', 'step_size', 'sum',
        ),
        elementwise,
    )  # fmt: skip


class TorchAdafactor(OptimizerHandler):
    """Adafactor: statistics that are averaged over the columns or the rows of each matrix."""

    handles = ('torch.optim.Adafactor',)
    layout: ClassVar = {
        'row_var': without(-1, keep=True),
        'col_var': without(-2, keep=True),
        'variance': elementwise,
    }


TORCH_OPTIMIZERS: tuple[OptimizerHandler, ...] = (TorchOptimizer(), TorchAdafactor())
