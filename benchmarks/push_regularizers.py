"""The part ``regularizers`` of benchmarks/push.py: regularizers under SGD and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from push_runs import DIGITS, Network, Stages, accuracies, run, schedule_of, settings_of

if TYPE_CHECKING:
    from torch import Tensor

EPOCHS = 6
KEEP = 0.5
OPTIMIZERS = ('SGD', 'AdamW')
FORMS = ('gradient', 'proximal')
FASTER = 20.0
"""The factor of the learning rate of norms under AdamW, where a push competes with the loss."""
_SILENT = 1e-3
"""The magnitude below which a scale or the norm of a filter counts as zero."""
_MIDDLE = (0.1, 0.9)
"""The ranks between which a gap is looked for."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """A regularizer of the comparison.

    Attributes:
        title: its name in the table.
        settings: its arguments.
        source: the mask source that fits it.
        figures: the measures of its paper, from the network at the end of the stage.
        forms: optimizer -> the forms in which it can act.
        first: whether the masks are chosen before the stage.
        own: optimizer -> arguments under this optimizer.
        selects: whether its push competes with the loss. Under AdamW it then has the strength
            that it has under SGD, and the norms have a higher learning rate.
    """

    title: str
    settings: Mapping[str, Any]
    source: Mapping[str, Any]
    figures: Callable[[Network, Network], Figures]
    forms: Mapping[str, tuple[str, ...]]
    first: bool = False
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    selects: bool = False


@dataclass(frozen=True)
class Job:
    """A stage with a regularizer, an optimizer and a form."""

    case: Case
    optimizer: str
    form: str

    @property
    def name(self) -> str:
        """A name that no other job has."""
        return f'{self.case.title} | {self.optimizer} | {self.form}'


def jobs_of(only: list[str] | None = None) -> list[Job]:
    """Return all jobs, or those of the regularizers in ``only``."""
    return [
        Job(case, optimizer, form)
        for case in CASES
        if only is None or case.title in only
        for optimizer in OPTIMIZERS
        for form in case.forms[optimizer]
    ]


def result_of(job: Job, folder: Path) -> dict[str, Any]:
    """Run a job unless it has finished before; return its strength, figures and accuracies."""
    case, optimizer = job.case, job.optimizer
    train = dict(type='Train', name='baseline', epochs=8, row='baseline')
    start = [train, _select(dict(type='L1Norm')), dict(type='Report')]
    baseline = run({**settings_of(optimizer), 'stages': start}, DIGITS, folder / optimizer)
    weights = next(baseline.glob('*_baseline')) / 'weights.pth'
    push = _push(job)
    stages = [*_stages(job, push), dict(type='Report')]
    config = {**settings_of(optimizer), 'load_from': str(weights.resolve()), 'stages': stages}
    name = '_'.join(
        [*case.title.lower().replace(',', '').split(), optimizer, job.form.replace(' ', '_')]
    )
    end = run(config, DIGITS, folder / name)
    rows = accuracies(end)
    return {
        'strength': push.get('strength'),
        'figures': case.figures(Network.of(baseline, DIGITS, 'baseline'), Network.of(end, DIGITS)),
        'accuracy': [rows[row] for row in ('sparse', 'pruned', 'calibrated')],
    }


def _stages(job: Job, push: Mapping[str, Any]) -> Stages:
    case = job.case
    select = _select(case.source)
    train: dict[str, Any] = dict(type='Train', name='sparse', epochs=EPOCHS, row='sparse')
    if push:
        train['regularizer'] = dict(push)
    if case.selects and job.optimizer == 'AdamW':
        fast = dict(lr_mult=FASTER, decay_mult=0.0)
        keys = {'bn': fast, 'downsample.1': fast}
        train['optim_wrapper'] = dict(paramwise_cfg=dict(custom_keys=keys))
    both = [select, train] if case.first else [train, select]
    return [*both, dict(type='Prune'), dict(type='Calibrate')]


def _select(source: Mapping[str, Any]) -> dict[str, Any]:
    budget = dict(type='Macs', keep=KEEP)
    return dict(type='SelectMask', source=dict(source, budget=budget))


def _push(job: Job) -> dict[str, Any]:
    """Return the regularizer of a job."""
    push = {**job.case.settings, **job.case.own.get(job.optimizer, {})}
    if job.form not in FORMS:
        return push
    if job.form == 'gradient' and job.optimizer == 'AdamW':
        push['strength'] = _number(job.case.settings, 'SGD')
    return push | {'apply': job.form}


def _number(push: Mapping[str, Any], optimizer: str) -> float:
    """Return the strength that a regularizer has under an optimizer, as a number."""
    from easypruner.plugins import load_plugins
    from easypruner.plugins.registry import REGULARIZERS, build

    load_plugins()
    regularizer = build(REGULARIZERS, push)
    regularizer.schedule(schedule_of(settings_of(optimizer), EPOCHS))
    return float(regularizer.strength)


def _scale_figures(_: Network, end: Network) -> Figures:
    """Return the share of scales at zero, and the gap between small and large ones."""
    import torch

    names = [n for n, operand in end.graph.operands.items() if operand == 'batch_norm.weight']
    row = torch.cat([end.graph.parameter(name).detach() for name in names]).abs().sort().values
    low, high = (int(share * len(row)) for share in _MIDDLE)
    gap = float(row[low:high].diff().max())
    return {'at zero': float((row < _SILENT).float().mean()), 'gap': gap}


def _norms(network: Network) -> Tensor:
    from easypruner.strategies.regularizers.unit_norms import UnitNorms

    factors = dict.fromkeys(network.graph.groups, 1.0)
    return UnitNorms.of(network.graph, 'producers', factors, 'benchmark').norms().detach()


def _removed(network: Network) -> Tensor:
    import torch

    masks, groups = network.masks, network.graph.groups
    kept = [masks.get(name, torch.ones(group.size).bool()) for name, group in groups.items()]
    return ~torch.cat(kept)


def _unit_figures(_: Network, end: Network) -> Figures:
    """Return the share of filters at zero, and the median of what is removed and what stays."""
    norms, gone = _norms(end), _removed(end)
    return {
        'at zero': float((norms < _SILENT).float().mean()),
        'removed': float(norms[gone].median()),
        'kept': float(norms[~gone].median()),
    }


def _left_figures(start: Network, end: Network) -> Figures:
    """Return what is left of the norms of the removed filters, and of those that stay."""
    gone = _removed(end)
    left = _norms(end) / _norms(start)
    return {'removed': float(left[gone].median()), 'kept': float(left[~gone].median())}


def _zero_figures(_: Network, end: Network) -> Figures:
    scales, biases = end.removed('weight'), end.removed('bias')
    return {'largest scale': float(scales.max()), 'largest bias': float(biases.max())}


def _activation_figures(start: Network, end: Network) -> Figures:
    """Return the mean activation of all channels, as a share of that before the stage."""
    return {'activation': _activation(end) / _activation(start)}


def _activation(network: Network) -> float:
    from easypruner_plugins.activation_sparsity import ActivationSparsity
    from mmengine.runner import Runner

    from easypruner import Progress

    loader = dict(network.config.val_dataloader, batch_size=360)
    batch = next(iter(Runner.build_dataloader(loader)))
    images = network.graph.model.data_preprocessor(batch)['inputs']
    model, regularizer = network.graph.model.train(), ActivationSparsity(1.0)
    with regularizer.watching(network.graph, None):
        model(images)
        penalty = regularizer.forward_penalty(Progress(0, 1))
    assert penalty is not None
    return float(penalty)


_BN, _L1, _L2 = dict(type='BNScale'), dict(type='L1Norm'), dict(type='L2Norm')
_REACH = dict(reach=1.0)
_BOTH = {'SGD': FORMS, 'AdamW': FORMS}
_SELECTING = {'SGD': FORMS, 'AdamW': ('gradient',)}
_SHRINKING = {'SGD': FORMS, 'AdamW': ('proximal',)}
_PROXIMAL = dict.fromkeys(OPTIMIZERS, ('proximal',))
_GREG = dict(type='GReg', strength=dict(reach=7.0), every=1)
_CEILING = {'AdamW': dict(ceiling=200.0)}


def _other(form: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(OPTIMIZERS, (form,))


CASES = (
    Case('none', {}, _L1, _left_figures, _other('')),
    Case(
        'GlobalSparsity',
        dict(type='GlobalSparsity', strength=_REACH),
        _BN,
        _scale_figures,
        _SELECTING,
        selects=True,
    ),
    Case(
        'Polarization',
        dict(type='Polarization', strength=_REACH),
        _BN,
        _scale_figures,
        _SELECTING,
        selects=True,
    ),
    Case(
        'HoyerSquare',
        dict(type='HoyerSquare', strength=dict(reach=3.0)),
        _BN,
        _scale_figures,
        _SELECTING,
        selects=True,
    ),
    Case(
        'GroupLasso',
        dict(type='GroupLasso', strength=dict(reach=2.0)),
        _L2,
        _unit_figures,
        _BOTH,
        own={'AdamW': dict(strength=_REACH)},
    ),
    Case(
        'GroupLasso, masked',
        dict(type='GroupLasso', strength=dict(until=1e-3), over='group', masked=True),
        _L2,
        _unit_figures,
        _PROXIMAL,
        first=True,
    ),
    Case(
        'GroupLasso, alpha',
        dict(type='GroupLasso', strength=dict(reach=0.5), over='group', alpha=4),
        dict(type='Group'),
        _unit_figures,
        _SHRINKING,
        own={'AdamW': dict(strength=dict(reach=0.2))},
    ),
    Case('GReg', _GREG, _L1, _left_figures, _SHRINKING, first=True, own=_CEILING),
    Case(
        'GReg, whole groups',
        dict(_GREG, over='group'),
        _L1,
        _left_figures,
        _SHRINKING,
        first=True,
        own=_CEILING,
    ),
    Case(
        'GradDecay',
        dict(type='GradDecay', share=0.5),
        _L1,
        _zero_figures,
        _other('rule'),
        first=True,
    ),
    Case(
        'ActivationSparsity',
        dict(type='ActivationSparsity', strength=5e-3),
        dict(type='MeanActivation'),
        _activation_figures,
        _other('in the loss'),
    ),
)
