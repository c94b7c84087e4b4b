"""Distillation: a teacher's outputs as additional losses of a training stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn import functional

from easypruner.base.checks import check_number, check_text
from easypruner.base.modules import evaluating, unwrapped
from easypruner.errors import ConfigError, nearest
from easypruner.graph.recording.tape import ExampleInputs, call_arguments


@dataclass(frozen=True)
class Soft:
    """The teacher's class probabilities, softened (Hinton et al., 2015, arXiv 1503.02531).

    Attributes:
        weight: of this loss beside the task's.
        temperature: that logits are divided by; the loss is multiplied by its square.
        logits: path of the module that makes the logits; None for the last linear layer.
    """

    weight: float = 1.0
    temperature: float = 4.0
    logits: str | None = None

    def __post_init__(self) -> None:
        check_number(self.weight, 'weight', 'soft', least=0)
        check_number(self.temperature, 'temperature', 'soft', least=0)
        if self.temperature == 0:
            raise ConfigError('temperature=0 of soft is what logits are divided by')
        check_text(self.logits, 'logits', 'soft')

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return weight * T^2 * KL(teacher || student), both softened; a mean over samples.

        Args:
            student: logits ``(samples, classes)``.
            teacher: logits ``(samples, classes)``.
        """
        ours, theirs = (
            functional.log_softmax(logits.float() / self.temperature, dim=-1)
            for logits in (student, teacher)
        )
        divergence = functional.kl_div(ours, theirs, reduction='batchmean', log_target=True)
        return self.weight * self.temperature**2 * divergence


@dataclass(frozen=True)
class Hints:
    """Where the teacher's layers are active (Zagoruyko and Komodakis, 2017, arXiv 1612.03928).

    Compared are maps of attention, the mean of squares over channels, normalized to length 1: they
    have the same shape whatever the widths.

    Attributes:
        layers: paths of modules whose outputs are compared.
        weight: of this loss beside the task's.
    """

    layers: Sequence[str]
    weight: float = 1.0

    def __post_init__(self) -> None:
        listed = isinstance(self.layers, list | tuple) and self.layers
        if not listed or not all(isinstance(path, str) for path in self.layers):
            raise ConfigError(
                f'layers={self.layers!r} of hints; expected a list of paths of modules'
            )
        check_number(self.weight, 'weight', 'hints', least=0)

    def check(self, outputs: Mapping[str, Tensor]) -> None:
        """Raise ConfigError if a layer returns no maps.

        Args:
            outputs: path -> what the layer returns, of all layers.
        """
        for path in self.layers:
            if outputs[path].dim() < 3:
                raise ConfigError(
                    f'hints compare where layers are active, but {path!r} returns '
                    f'{tuple(outputs[path].shape)}, which has no positions; name a layer ahead of '
                    'the pooling'
                )

    def loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return weight * sum over layers of the squared distance of maps; a mean over samples.

        Args:
            student: of each layer the output, ``(samples, channels, *positions)`` or
                ``(samples, tokens, channels)``.
            teacher: likewise.
        """
        distances = []
        for ours, theirs in zip(student, teacher, strict=True):
            dim = channels_of(ours, theirs)
            apart = attention(ours, dim) - attention(theirs, dim)
            distances.append(apart.square().sum(dim=1).mean())
        return self.weight * torch.stack(distances).sum()


def channels_of(student: Tensor, teacher: Tensor) -> int:
    """Return the dimension of the channels: the one in which a cut has made two outputs differ.

    Where they do not differ, it is the last of ``(samples, tokens, channels)``, else the second.
    """
    differing = [
        dim
        for dim, (ours, theirs) in enumerate(zip(student.shape, teacher.shape, strict=True))
        if ours != theirs
    ]
    return differing[0] if differing else 2 if student.dim() == 3 else 1


def attention(features: Tensor, channels: int) -> Tensor:
    """Return the map of attention of features, ``(samples, positions)``, each of length 1.

    Args:
        features: ``(samples, ...)``.
        channels: the dimension of the channels; the others are positions.
    """
    return functional.normalize(features.float().square().mean(dim=channels).flatten(1), dim=1)


def module_at(model: nn.Module, path: str, argument: str) -> nn.Module:
    """Return a module of a model.

    Raises:
        ConfigError: there is none at ``path``; ``argument`` is what named it.
    """
    modules = dict(model.named_modules())
    if path not in modules:
        raise ConfigError(f'{argument} names the module {path!r}; {nearest(path, modules)}')
    return modules[path]


def logits_path(model: nn.Module, soft: Soft) -> str:
    """Return the path of the module that makes the logits.

    Raises:
        ConfigError: there is no such module.
    """
    if soft.logits is not None:
        module_at(model, soft.logits, 'logits of soft')
        return soft.logits
    linear = [path for path, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError(
            f'this {type(model).__name__} has no linear layer that makes its logits; '
            "name the module that does, as in soft=dict(logits='head.conv')"
        )
    return linear[-1]


class Listener:
    """Hears what modules return.

    Args:
        model: the network.
        paths: of the modules.

    Raises:
        ConfigError: there is no such module.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        self._heard: dict[str, Any] = {}
        self._paths = list(dict.fromkeys(paths))
        self._handles = [
            module_at(model, path, 'distillation').register_forward_hook(self._listen(path))
            for path in self._paths
        ]

    def _listen(self, path: str) -> Callable[..., None]:
        def listen(module: nn.Module, args: Any, output: Any) -> None:
            # Stages, backbones and necks return tuples of one.
            alone = isinstance(output, tuple | list) and len(output) == 1
            self._heard[path] = output[0] if alone else output

        return listen

    def take(self) -> dict[str, Tensor]:
        """Return path -> the tensor that the module has returned last, and forget it.

        Raises:
            ConfigError: a module was not called, or returned no tensor.
        """
        heard, self._heard = self._heard, {}
        for path in self._paths:
            if not isinstance(heard.get(path), Tensor):
                met = (
                    f'returns a {type(heard[path]).__name__}' if path in heard else 'is not called'
                )
                raise ConfigError(
                    f'distillation listens to the module {path!r}, which {met} in the forward '
                    'pass; name one that returns a tensor'
                )
        return heard

    def stop(self) -> None:
        """Leave the network as it was."""
        for handle in self._handles:
            handle.remove()


def returned(
    model: nn.Module, example_inputs: ExampleInputs, paths: Sequence[str]
) -> dict[str, Tensor]:
    """Return path -> what a module returns in one forward pass.

    Raises:
        ConfigError: there is no such module, it is not called, or returns no tensor.
    """
    listener = Listener(model, paths)
    args, kwargs = call_arguments(example_inputs)
    try:
        with evaluating(model), torch.no_grad():
            model(*args, **kwargs)
    finally:
        listener.stop()
    return listener.take()


class DistillationHook(Hook):
    """Adds what a student's outputs differ from a teacher's to the losses of a training stage.

    Both see the same inputs. The teacher is in evaluation mode, is not trained, and is in no
    checkpoint. The losses are logged as ``loss_soft`` and ``loss_hints``.

    Args:
        teacher: makes the teacher, with its weights.
        soft: of the logits; None for none.
        hints: of inner layers; None for none.
    """

    def __init__(
        self, teacher: Callable[[], nn.Module], soft: Soft | None, hints: Hints | None
    ) -> None:
        self._make_teacher = teacher
        self._soft = soft
        self._hints = hints
        self._stop: list[Callable[[], object]] = []

    def before_train(self, runner: Any) -> None:
        """Make the teacher, and let it add to what the student's forward pass returns."""
        student = unwrapped(runner.model)
        teacher = self._make_teacher().to(next(student.parameters()).device).eval()
        teacher.requires_grad_(False)
        paths = heard_paths(student, self._soft, self._hints)
        ours, theirs = Listener(student, paths), Listener(teacher, paths)

        def teach(module: nn.Module, args: Any, kwargs: Any, losses: Any) -> Any:
            if kwargs.get('mode') != 'loss':
                return None
            with torch.no_grad():
                teacher(args[0] if args else kwargs['inputs'], mode='tensor')
            return {**losses, **self._losses(paths, ours.take(), theirs.take())}

        handle = student.register_forward_hook(teach, with_kwargs=True)
        self._stop = [handle.remove, ours.stop, theirs.stop]

    def after_train(self, runner: Any) -> None:
        """Leave the student as it was."""
        for stop in self._stop:
            stop()

    def _losses(
        self, paths: Sequence[str], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        losses = {}
        if self._soft is not None:
            losses['loss_soft'] = self._soft.loss(ours[paths[0]], theirs[paths[0]])
        if self._hints is not None:
            student, teacher = ([heard[p] for p in self._hints.layers] for heard in (ours, theirs))
            losses['loss_hints'] = self._hints.loss(student, teacher)
        return losses


def heard_paths(model: nn.Module, soft: Soft | None, hints: Hints | None) -> list[str]:
    """Return the modules to listen to, that of the logits first.

    Raises:
        ConfigError: there is no module that makes the logits.
    """
    logits = [] if soft is None else [logits_path(model, soft)]
    return logits if hints is None else [*logits, *hints.layers]
