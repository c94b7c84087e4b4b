"""Optimizer handlers for the optimizers of the package pytorch_optimizer.

Those with bases, projections or blocks, such as SOAP, GaLore and ScalableShampoo, have none: what
they have learned about all channels says nothing about some of them.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from torch import Tensor

from easypruner import OptimizerHandler, hookimpl
from easypruner.graph import ParameterCut
from easypruner.graph.cutting.optimizer_handler import (
    along,
    each,
    elementwise,
    flattened,
    without,
)

_ELEMENTWISE = """
    A2Grad ASGD Ano AccSGD AdaBelief AdaBound AdaDelta AdaGC AdaGO AdaHessian AdaMax AdaMod AdaNorm
    AdaPNM AdaSmooth AdaTAM AdamC AdamG AdamP AdamS AdamW Adai Adan AdEMAMix ADOPT Aida AliG Amos
    ApolloDQN AvaGrad BCOS DAdaptAdaGrad DAdaptAdam DAdaptAdan DAdaptLion DAdaptSGD DiffGrad
    DualAdam EmoLynx EmoNavi EXAdam FAdam FOCUS Fromage FTRL Grams Gravity GrokFastAdamW Kate Lamb
    LaProp LARS Lion MADGRAD MARS MSVAG Muon MuonClip NovoGrad PAdam PID PNM Prodigy QHAdam QHM
    RAdam Ranger Ranger21 ROSE ScheduleFreeAdamW ScheduleFreeRAdam ScheduleFreeSGD SCION SCIONLight
    SGDP SGDSaI SGDW SignSGD SimplifiedAdEMAMix SophiaH SRMM StableAdamW StableSPAM SWATS TAM Tiger
    VSGD Yogi
"""
_STATES = """
    acc_delta alpha_k approx_hessian avg_grad b beta1_prod bg bhg d d_buffer exp_avg exp_avg_diff
    exp_avg_grad exp_avg_lr exp_avg_slow exp_avg_sq exp_avg_var exp_hessian_diag_sq exp_inf
    exp_mean_avg_beta2 fim grad_buffer grad_ma grad_sum_sq grok_exp_avg hessian hessian_moment
    i_buffer kahan_comp last_grad lookahead_params m max_exp_avg_sq max_exp_avg_var max_variance_ma
    moments momentum momentum_buffer mov_avg_grad mov_avg_param mug n neg_exp_avg neg_grad_ma
    neg_momentum p0 pbar pos_momentum prev_param previous_grad r s shadow sk slow_buffer square_avg
    update v variance_ma weighted_sk x0 x_k z
"""


def _named(names: str) -> tuple[str, ...]:
    return tuple(f'pytorch_optimizer.{name}' for name in names.split())


_FACTORED_ROWS, _FACTORED_COLUMNS = without(-1), without(-2)
_COLUMNS = tuple[int, ...]


def _columns(count: int) -> _COLUMNS:
    """Return the dimensions of a parameter that are the columns of its matrix."""
    return tuple(range(1, count))


class PytorchOptimizer(OptimizerHandler):
    """Optimizers whose states have the shape of the parameter."""

    handles = _named(_ELEMENTWISE)
    layout: ClassVar = dict.fromkeys(_STATES.split(), elementwise)


class PytorchOptimizerWrapper(OptimizerHandler):
    """Optimizers around another one: slow weights, and averages."""

    handles = _named('Lookahead OrthoGrad ScheduleFreeWrapper')
    layout: ClassVar = dict.fromkeys(
        ('backup_params', 'slow_momentum', 'slow_params', 'z'), elementwise
    )
    inner = ('optimizer',)


class PytorchOptimizerFactored(OptimizerHandler):
    """Optimizers that keep statistics of rows and of columns."""

    handles = _named('AdaFactor CAME Adalite EmoFact NorMuon SM3 RACS Nero')
    layout: ClassVar = {
        **dict.fromkeys(
            ('exp_avg', 'exp_avg_sq_hat', 'm_avg', 'momentum_buffer', 'shadow', 'v_avg'),
            elementwise,
        ),
        # Nero has one number for each row, in a column.
        'exp_avg_sq': lambda cut, value: (
            elementwise if value.shape == cut.shape else _rows_of_any_rank
        )(cut, value),
        'exp_avg_sq_row': _FACTORED_ROWS,
        'exp_avg_sq_col': _FACTORED_COLUMNS,
        'exp_avg_res_row': _FACTORED_ROWS,
        'exp_avg_res_col': _FACTORED_COLUMNS,
        'exp_avg_r': along(lambda count: [0, *[None] * (count - 1)]),
        'exp_avg_c': along(lambda count: [None, *range(1, count)]),
        'v_avg_0': along(lambda count: [0]),
        'v_avg_1': along(lambda count: [_columns(count)]),
        'm_avg_c': along(lambda count: [0, None]),
        'm_avg_r': along(lambda count: [None, _columns(count)]),
        'second_momentum_buffer': along(lambda count: [0, None]),
        's': along(lambda count: [0]),
        'q': along(lambda count: [_columns(count)]),
    }

    def cut_entry(self, key: str, value: Any, cut: ParameterCut) -> Any:
        found = re.fullmatch(r'accumulator_(\d+)', key)
        if found:
            axes = [dim if dim == int(found[1]) else None for dim in range(len(cut.shape))]
            return cut.take(value, axes)
        return super().cut_entry(key, value, cut)


def _rows_of_any_rank(cut: ParameterCut, value: Tensor) -> Tensor:
    return cut.take(value, [0, *[None] * (len(cut.shape) - 1)])


class PytorchOptimizerAdaMuon(OptimizerHandler):
    """AdaMuon: its second moments are flattened."""

    handles = _named('AdaMuon')
    layout: ClassVar = {
        **dict.fromkeys(('exp_avg', 'exp_avg_sq', 'm', 'momentum_buffer'), elementwise),
        'v': flattened,
    }


class PytorchOptimizerLists(OptimizerHandler):
    """AggMo and AdaShift: several momenta, and a queue of gradients."""

    handles = _named('AggMo AdaShift')
    layout: ClassVar = {
        'momentum_buffer': each(elementwise),
        'grad_queue': each(elementwise),
        'exp_avg': elementwise,
        'exp_avg_sq': elementwise,
    }


class PytorchOptimizerShampoo(OptimizerHandler):
    """Shampoo: a square preconditioner of each dimension, and its inverse root."""

    handles = _named('Shampoo')
    layout: ClassVar = {'momentum_buffer': elementwise}

    def cut_entry(self, key: str, value: Any, cut: ParameterCut) -> Any:
        found = re.fullmatch(r'(inv_)?pre_cond_(\d+)', key)
        if not found:
            return super().cut_entry(key, value, cut)
        dim = int(found[2])
        if not found[1] or not value.any():
            return cut.take(value, [dim, dim])
        # The inverse of a part is not the part of the inverse.
        part = cut.take(cut.state[f'pre_cond_{dim}'], [dim, dim])
        return _inverse_root(part, 2 * len(cut.shape)) if dim in cut.kept else value


def _inverse_root(matrix: Tensor, order: int) -> Tensor:
    """Return the power -1 / order of a symmetric positive matrix."""
    u, s, vh = torch.linalg.svd(matrix.float(), full_matrices=False)
    return (u @ s.pow(-1.0 / order).diag() @ vh).to(matrix.dtype)


easypruner_components = hookimpl(
    lambda: [
        PytorchOptimizer,
        PytorchOptimizerWrapper,
        PytorchOptimizerFactored,
        PytorchOptimizerAdaMuon,
        PytorchOptimizerLists,
        PytorchOptimizerShampoo,
    ]
)
