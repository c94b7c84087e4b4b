"""Section of benchmarks/gpu.py: what regularizers do to an update is compared with their formulas.

Each regularizer pushes in the first update of a training under mixed precision. What it has added
to the gradients, or made of the parameters, is compared with its formula in double precision.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from gpu_bench import Bench, Job, attempt, half
from gpu_formulas import (
    CASES,
    LEARNING_RATE,
    MOMENTUM,
    STRENGTH,
    UPDATES,
    Activations,
    Case,
    Setup,
    Values,
)
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.graph import ChannelGraph, Masks

PRECISIONS = {'fp16 with a GradScaler': torch.float16, 'bf16': torch.bfloat16}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    'SGD, fused': dict(type='SGD', momentum=MOMENTUM, fused=True),
    'SGD, foreach': dict(type='SGD', momentum=MOMENTUM, foreach=True),
    'AdamW, fused': dict(type='AdamW', weight_decay=0.0, fused=True),
    'AdamW, foreach': dict(type='AdamW', weight_decay=0.0, foreach=True),
}
ON_ACTIVATIONS = 'ActivationSparsity'
_SCALE = 1024.0


def jobs(bench: Bench) -> Iterator[Job]:
    """Yield a job for each precision and optimizer."""
    subject = Subject(bench)
    for precision in PRECISIONS:
        for name in OPTIMIZERS:
            yield Job(f'{precision}, {name}', partial(_errors, subject, precision, name), 15)


def _errors(subject: Subject, precision: str, optimizer: str) -> dict[str, float | str]:
    """Return regularizer -> its largest relative error, or why there is none."""
    is_adaptive = not optimizer.startswith('SGD')
    cases = {
        name: partial(Update.error_of, case=case)
        for name, case in CASES.items()
        if case.under_adaptive or not is_adaptive
    }
    cases[ON_ACTIVATIONS] = Update.error_on_activations
    was, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        return {
            name: _error_or_failure(subject, precision, optimizer, c) for name, c in cases.items()
        }
    finally:
        torch.backends.cudnn.deterministic = was


def _error_or_failure(
    subject: Subject, precision: str, optimizer: str, measure: Callable[[Update], float]
) -> float | str:
    with warnings.catch_warnings():
        # One update cannot bring anything to zero.
        warnings.simplefilter('ignore', easypruner.PushWarning)
        found = attempt(lambda: {'error': measure(Update(subject, precision, optimizer))})
    return found.get('error', found.get('failed'))


class Subject:
    """The network that is pushed, made when it is first used. Scales have both signs.

    Args:
        bench: the device and the sizes.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    @cached_property
    def model(self) -> nn.Module:
        """The network; it must not be changed."""
        model = copy.deepcopy(self.bench.model(self.bench.size.checked))
        draw = torch.Generator().manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight.data, module.bias.data):
                    values.copy_(torch.randn(values.shape, generator=draw))
        return model

    @cached_property
    def graph(self) -> ChannelGraph:
        """The channel graph of the network."""
        return self.bench.graph(self.model)

    @cached_property
    def masks(self) -> Masks:
        """The masks whose channels are pushed."""
        return half(self.graph)


@dataclass
class Update:
    """The first update of a training.

    Attributes:
        subject: the network.
        precision: a name of :data:`PRECISIONS`.
        optimizer_name: a name of :data:`OPTIMIZERS`.
        snapshots: values and gradients around what the regularizer does.
    """

    subject: Subject
    precision: str
    optimizer_name: str
    snapshots: list[tuple[Values, Values]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        bench = self.subject.bench
        self.model = copy.deepcopy(self.subject.model).requires_grad_().train()
        self.graph: ChannelGraph = self.subject.graph.on(self.model)
        self.masks = self.subject.masks
        settings = dict(OPTIMIZERS[self.optimizer_name])
        kind = getattr(torch.optim, settings.pop('type'))
        self.optimizer = kind(self.model.parameters(), LEARNING_RATE, **settings)
        is_half = PRECISIONS[self.precision] is torch.float16
        device = bench.device.type
        self.scaler = torch.amp.GradScaler(device, init_scale=_SCALE, enabled=is_half)

    def error_of(self, case: Case) -> float:
        """Return the largest relative error of what a regularizer does."""
        pusher = self._pushed_by(case.config)
        loss = self._loss()
        self.scaler.scale(pusher.loss(loss)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        pusher.close()
        momentum = MOMENTUM if self.optimizer_name.startswith('SGD') else 0.0
        setup = Setup(self.graph, self.masks, momentum, self.subject.bench.device)
        start, pushed, stepped, end = self.snapshots
        errors = [
            _change_error(start, pushed, case.before(*start, setup)),
            _change_error(stepped, end, case.after(*stepped, setup)),
        ]
        if momentum:
            values, gradients = pushed
            due = {name: values[name] - LEARNING_RATE * gradients[name] for name in values}
            errors.append(_error(stepped[0], due))
        return max(errors)

    def error_on_activations(self) -> float:
        """Return the relative error of the gradient of the loss with a penalty on activations."""
        pusher = self._pushed_by(dict(type=ON_ACTIVATIONS, strength=STRENGTH))
        activations = Activations(self.graph)
        loss = self._loss()
        parameters = dict(self.model.named_parameters())
        total = self.scaler.scale(loss + activations.penalty())
        due = torch.autograd.grad(total, [*parameters.values()], retain_graph=True)
        self.scaler.scale(pusher.loss(loss)).backward()
        activations.close()
        pusher.close()
        expected = {name: _double(g) for name, g in zip(parameters, due, strict=True)}
        return _error({name: _double(p.grad) for name, p in parameters.items()}, expected)

    def _pushed_by(self, config: Any) -> easypruner.Pusher:
        """Let a regularizer push, between snapshots before and after it."""
        self.optimizer.register_step_pre_hook(self._snapshot)
        self.optimizer.register_step_post_hook(self._snapshot)
        pusher = easypruner.regularize(
            self.model, self.optimizer, self.graph, config, masks=self.masks, updates=UPDATES
        )
        self.optimizer.register_step_pre_hook(self._snapshot)
        self.optimizer.register_step_post_hook(self._snapshot)
        return pusher

    def _snapshot(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Keep all values and gradients. Those of fused optimizers are scaled until the update."""
        scale = getattr(optimizer, 'grad_scale', None)
        factor = 1.0 if scale is None else float(scale)
        parameters = dict(self.model.named_parameters())
        values = {name: _double(parameter) for name, parameter in parameters.items()}
        gradients = {name: _double(p.grad) / factor for name, p in parameters.items()}
        self.snapshots.append((values, gradients))

    def _loss(self) -> Tensor:
        bench = self.subject.bench
        images = bench.images(8)
        labels = torch.arange(8, device=bench.device)
        with torch.autocast(bench.device.type, PRECISIONS[self.precision]):
            return functional.cross_entropy(self.model(images), labels)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double().clone()


def _change_error(
    before: tuple[Values, Values], after: tuple[Values, Values], due: tuple[Values, Values]
) -> float:
    """Return the largest error of changes of values and gradients, relative to the largest due."""
    return max(
        _error(
            {name: now[name] - was[name] for name in was},
            {name: then[name] - was[name] for name in was},
        )
        for was, now, then in zip(before, after, due, strict=True)
    )


def _error(found: Values, due: Values) -> float:
    """Return the largest error, relative to the largest value that is due, or absolute without."""
    largest = max(float(value.abs().max()) for value in due.values())
    error = max(float((found[name] - due[name]).abs().max()) for name in due)
    return error / (largest or 1.0)
