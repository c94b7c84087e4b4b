"""Distillation: losses that compare a student network with a teacher during a training stage."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn import functional

from easypruner.base.checks import check_number, check_text, refuse
from easypruner.base.describe import describe
from easypruner.base.modules import evaluating, unwrapped
from easypruner.engine.model_calls import outputs_call
from easypruner.errors import ConfigError, nearest
from easypruner.graph.recording.tape import ExampleInputs, call_arguments


@dataclass(frozen=True)
class Soft:
    """A loss on softened class probabilities (Hinton et al., 2015, arXiv 1503.02531).

    Attributes:
        weight: the factor of this loss.
        temperature: the divisor of the logits; the loss is multiplied by its square.
        logits: path of the module that computes the logits; None for the last linear layer.
    """

    weight: float = 1.0
    temperature: float = 4.0
    logits: str | None = None

    def __post_init__(self) -> None:
        check_number(self.weight, 'weight', 'soft', least=0)
        # Logits are divided by it.
        check_number(self.temperature, 'temperature', 'soft', above=0)
        check_text(self.logits, 'logits', 'soft')

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return weight * T^2 * KL(teacher || student) of softened outputs, as a mean over samples.

        Args:
            student: logits of shape ``(samples, classes)``.
            teacher: logits of shape ``(samples, classes)``.
        """
        ours, theirs = (
            functional.log_softmax(logits.float() / self.temperature, dim=-1)
            for logits in (student, teacher)
        )
        divergence = functional.kl_div(ours, theirs, reduction='batchmean', log_target=True)
        return self.weight * self.temperature**2 * divergence


@dataclass(frozen=True)
class Hints:
    """A loss on the attention maps of layers (Zagoruyko and Komodakis, 2017, arXiv 1612.03928).

    An attention map is the mean of squares over channels, normalized to length 1. Its shape does
    not depend on the number of channels, so maps of a pruned and a full network can be compared.

    Attributes:
        layers: paths of the modules whose outputs are compared.
        weight: the factor of this loss.
    """

    layers: Sequence[str]
    weight: float = 1.0

    def __post_init__(self) -> None:
        listed = isinstance(self.layers, list | tuple) and self.layers
        if not listed or not all(isinstance(path, str) for path in self.layers):
            refuse(self.layers, 'layers', 'hints', 'a list of paths of modules')
        check_number(self.weight, 'weight', 'hints', least=0)

    def check(self, outputs: Mapping[str, Tensor]) -> None:
        """Raise ConfigError if the output of a layer has no positions.

        Args:
            outputs: path of each layer -> the output of this layer.
        """
        for path in self.layers:
            if outputs[path].dim() < 3:
                raise ConfigError(
                    f'hints compare the positions at which layers are active, but {path!r} returns '
                    f'{tuple(outputs[path].shape)}, which has no positions; name a layer before '
                    'the pooling'
                )

    def loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return weight * sum over layers of the squared distance of maps, as a mean over samples.

        Args:
            student: the output of each layer, of shape ``(samples, channels, *positions)`` or
                ``(samples, tokens, channels)``.
            teacher: the same for the teacher.
        """
        distances = []
        for ours, theirs in zip(student, teacher, strict=True):
            dim = channels_of(ours, theirs)
            apart = attention(ours, dim) - attention(theirs, dim)
            distances.append(apart.square().sum(dim=1).mean())
        return self.weight * torch.stack(distances).sum()


def channels_of(student: Tensor, teacher: Tensor) -> int:
    """Return the dimension of the channels: the one in which the sizes of two outputs differ.

    If the sizes are equal, it is the last one of ``(samples, tokens, channels)``, else the second.
    """
    sizes = zip(student.shape, teacher.shape, strict=True)
    differing = (dim for dim, (ours, theirs) in enumerate(sizes) if ours != theirs)
    return next(differing, 2 if student.dim() == 3 else 1)


def attention(features: Tensor, channels: int) -> Tensor:
    """Return the attention maps of features, of shape ``(samples, positions)`` and length 1.

    Args:
        features: a tensor of shape ``(samples, ...)``.
        channels: the dimension of the channels; the other dimensions are positions.
    """
    return functional.normalize(features.float().square().mean(dim=channels).flatten(1), dim=1)


def module_at(model: nn.Module, path: str, argument: str) -> nn.Module:
    """Return the module at a path.

    Args:
        model: the network.
        path: the path of the module.
        argument: the argument that names the module, for messages.

    Raises:
        ConfigError: there is no module at this path.
    """
    modules = dict(model.named_modules())
    if path not in modules:
        raise ConfigError(f'{argument} names the module {path!r}; {nearest(path, modules)}')
    return modules[path]


def logits_path(model: nn.Module, soft: Soft) -> str:
    """Return the path of the module that computes the logits.

    Raises:
        ConfigError: there is no such module.
    """
    if soft.logits is not None:
        module_at(model, soft.logits, 'logits of soft')
        return soft.logits
    linear = [path for path, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError(
            f'this {type(model).__name__} has no linear layer that computes its logits; '
            "name the module that does, as in soft=dict(logits='head.conv')"
        )
    return linear[-1]


class OutputRecorder:
    """Records the outputs of modules.

    Args:
        model: the network.
        paths: the paths of the modules.

    Attributes:
        hooks: the hooks on the network; closing them removes them.

    Raises:
        ConfigError: there is no module at one of the paths.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        self.hooks = contextlib.ExitStack()
        self._outputs: dict[str, Any] = {}
        self._paths = list(dict.fromkeys(paths))
        for path in self._paths:
            module = module_at(model, path, 'distillation')
            hook = functools.partial(self._record, path)
            self.hooks.enter_context(module.register_forward_hook(hook))

    def _record(self, path: str, module: nn.Module, args: Any, output: Any) -> None:
        # Stages, backbones and necks return tuples with one element.
        single = isinstance(output, tuple | list) and len(output) == 1
        self._outputs[path] = output[0] if single else output

    def take(self) -> dict[str, Tensor]:
        """Return path -> the last output of this module, and forget the outputs.

        Raises:
            ConfigError: a module was not called, or did not return a tensor.
        """
        outputs, self._outputs = self._outputs, {}
        for path in self._paths:
            if not isinstance(outputs.get(path), Tensor):
                got = f'returns {describe(outputs[path])}' if path in outputs else 'is not called'
                raise ConfigError(
                    f'distillation needs the output of the module {path!r}, which {got} in the '
                    'forward pass; name a module that returns a tensor'
                )
        return outputs


def returned(
    model: nn.Module, example_inputs: ExampleInputs, paths: Sequence[str]
) -> dict[str, Tensor]:
    """Run one forward pass and return path -> the output of this module.

    Raises:
        ConfigError: there is no module at one of the paths, or it is not called, or it does not
            return a tensor.
    """
    recorder = OutputRecorder(model, paths)
    args, kwargs = call_arguments(example_inputs)
    with recorder.hooks, evaluating(model), torch.no_grad():
        model(*args, **kwargs)
    return recorder.take()


@dataclass(eq=False)
class DistillationHook(Hook):
    """Adds losses to a training stage that compare the outputs of the student and a teacher.

    Both get the same inputs. The teacher is in evaluation mode, is not trained, and is not in any
    checkpoint. The losses are logged as ``loss_soft`` and ``loss_hints``.

    Attributes:
        teacher: a function that builds the teacher and loads its weights.
        soft: the loss on logits; None to leave it out.
        hints: the loss on inner layers; None to leave it out.
    """

    teacher: Callable[[], nn.Module]
    soft: Soft | None
    hints: Hints | None
    _stop: list[Callable[[], object]] = field(default_factory=list, init=False)

    def before_train(self, runner: Any) -> None:
        """Build the teacher, and add its losses to those of the student's forward pass."""
        student = unwrapped(runner.model)
        teacher = self.teacher().to(next(student.parameters()).device).eval()
        teacher.requires_grad_(False)
        paths = heard_paths(student, self.soft, self.hints)
        of_student, of_teacher = OutputRecorder(student, paths), OutputRecorder(teacher, paths)

        def teach(module: nn.Module, args: Any, kwargs: Any, losses: Any) -> Any:
            if kwargs.get('mode') != 'loss':
                return None
            with torch.no_grad():
                data = args or {name: v for name, v in kwargs.items() if name != 'mode'}
                teacher(**outputs_call(teacher, data))
            return {**losses, **self._losses(paths, of_student.take(), of_teacher.take())}

        handle = student.register_forward_hook(teach, with_kwargs=True)
        self._stop = [handle.remove, of_student.hooks.close, of_teacher.hooks.close]

    def after_train(self, runner: Any) -> None:
        """Remove the hooks from the student."""
        for stop in self._stop:
            stop()

    def _losses(
        self, paths: Sequence[str], student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        losses = {}
        if self.soft is not None:
            losses['loss_soft'] = self.soft.loss(student[paths[0]], teacher[paths[0]])
        if self.hints is not None:
            layers = self.hints.layers
            maps = ([outputs[path] for path in layers] for outputs in (student, teacher))
            losses['loss_hints'] = self.hints.loss(*maps)
        return losses


def heard_paths(model: nn.Module, soft: Soft | None, hints: Hints | None) -> list[str]:
    """Return the paths of the modules whose outputs the losses need, that of the logits first.

    Raises:
        ConfigError: there is no module that computes the logits.
    """
    logits = [] if soft is None else [logits_path(model, soft)]
    return logits if hints is None else [*logits, *hints.layers]
