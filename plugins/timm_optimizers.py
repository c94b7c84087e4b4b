"""Optimizer handlers for the optimizers of timm, and for mmpretrain's copies of some of them.

Adahessian has none, because it keeps a Hessian at the parameters themselves. Kron has none, because
the part of a preconditioner that it has learned is not the preconditioner of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from easypruner import OptimizerHandler, hookimpl
from easypruner.errors import CutError
from easypruner.graph import ParameterCut
from easypruner.graph.cutting.optimizer_handler import describe_optimizer, elementwise

_MIN_FACTORED = 16

Dims = tuple[int, int] | None
"""The dimensions of columns and of rows of a factored moment; None if it is not factored."""


class TimmOptimizer(OptimizerHandler):
    """Optimizers whose states have the shape of the parameter."""

    handles = (
        'timm.optim.AdaBelief',
        'timm.optim.AdamP',
        'timm.optim.AdamWLegacy',
        'timm.optim.Adan',
        'timm.optim.Adopt',
        'timm.optim.LaProp',
        'timm.optim.Lamb',
        'timm.optim.Lars',
        'timm.optim.Lion',
        'timm.optim.MADGRAD',
        'timm.optim.Mars',
        'timm.optim.Muon',
        'timm.optim.NAdamLegacy',
        'timm.optim.NAdamW',
        'timm.optim.NvNovoGrad',
        'timm.optim.RAdamLegacy',
        'timm.optim.RMSpropTF',
        'timm.optim.SGDP',
        'timm.optim.SGDW',
        'mmpretrain.engine.optimizers.Adan',
        'mmpretrain.engine.optimizers.Lamb',
        'mmpretrain.engine.optimizers.LARS',
    )
    layout: ClassVar = dict.fromkeys(
        (
            'exp_avg', 'exp_avg_diff', 'exp_avg_sq', 'exp_avg_var', 'grad_avg',
            'grad_sum_sq', 'last_grad', 'max_exp_avg_sq', 'max_exp_avg_var',
            'momentum', 'momentum_buffer', 'neg_pre_grad', 'pre_grad', 's', 'square_avg', 'x0',
        ),
        elementwise,
    )  # fmt: skip


class TimmLookahead(OptimizerHandler):
    """Lookahead: the slow weights, which are in the state of the optimizer that it wraps."""

    handles = ('timm.optim.Lookahead',)
    layout: ClassVar = {'lookahead_slow_buff': elementwise}
    inner = ('_base_optimizer', 'base_optimizer')


class TimmAdafactor(OptimizerHandler):
    """Adafactor: statistics without the dimension over which they are averaged."""

    handles = ('timm.optim.Adafactor',)
    layout: ClassVar = {
        'exp_avg': elementwise,
        'exp_avg_sq': elementwise,
        'exp_avg_sq_row': lambda cut, value: _without(1, cut, value),
        'exp_avg_sq_col': lambda cut, value: _without(0, cut, value),
    }


class TimmAdafactorBigVision(OptimizerHandler):
    """The Adafactor of Big Vision: statistics of size 1 where they are averaged."""

    handles = ('timm.optim.AdafactorBigVision',)
    layout: ClassVar = {'exp_avg': elementwise, 'exp_avg_sq': elementwise}

    def cut_entry(self, key: str, value: Any, cut: ParameterCut) -> Any:
        if key not in ('exp_avg_sq_r', 'exp_avg_sq_c'):
            return super().cut_entry(key, value, cut)
        old, new = _dims(_largest_dims, cut)
        # The largest dimension may be another one after the cut: rows and columns change places.
        averaged = new[key == 'exp_avg_sq_r']
        source = cut.state['exp_avg_sq_r' if averaged == old[1] else 'exp_avg_sq_c']
        return cut.take(source, [None if d == averaged else d for d in range(len(cut.shape))])


def _without(which: int, cut: ParameterCut, value: Tensor) -> Tensor:
    """Cut a statistic that lacks the dimension over which it is averaged."""
    dims, new = _dims(_first_dims, cut)
    if dims != new:
        raise _other_dims(cut, dims, new)
    return cut.take(value, [d for d in range(len(cut.shape)) if d != dims[which]])


def _first_dims(shape: tuple[int, ...], minimum: int) -> Dims:
    """Return the dimensions that Adafactor chooses: the first two, or the last two."""
    count = len(shape)
    if count > 2 and min(shape[0], shape[1]) > minimum:
        return 0, 1
    if count >= 2 and min(shape[-2], shape[-1]) > minimum:
        return count - 2, count - 1
    return None


def _largest_dims(shape: tuple[int, ...], minimum: int) -> Dims:
    """Return the dimensions that Big Vision's Adafactor chooses: the two largest."""
    order = sorted((size, dim) for dim, size in enumerate(shape))
    if len(shape) < 2 or order[-2][0] < minimum:
        return None
    return order[-2][1], order[-1][1]


def _dims(
    choose: Callable[[tuple[int, ...], int], Dims], cut: ParameterCut
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the factored dimensions before and after a cut, which must be the same two."""
    minimum = cut.group.get('min_dim_size_to_factor', _MIN_FACTORED)
    old, new = (choose(tuple(shape), minimum) for shape in (cut.shape, cut.new_shape))
    if old is None or new is None or set(old) != set(new):
        raise _other_dims(cut, old, new)
    return old, new


def _other_dims(cut: ParameterCut, old: Dims, new: Dims) -> CutError:
    return CutError(
        f'{describe_optimizer(cut.optimizer)} factors its moments of {cut.name!r} along the '
        f'dimensions {old} of {tuple(cut.shape)}, but {new} of {tuple(cut.new_shape)} after the '
        'cut; create a new optimizer after the cut'
    )


easypruner_components = hookimpl(
    lambda: [TimmOptimizer, TimmLookahead, TimmAdafactor, TimmAdafactorBigVision]
)
