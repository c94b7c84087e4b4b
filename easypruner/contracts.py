"""The contracts: what a plugin subclasses to contribute a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from easypruner.errors import ConfigError, nearest
from easypruner.masks import Masks
from easypruner.scores import NORMALIZATIONS, REDUCTIONS, normalize, reduce_layers

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph
    from easypruner.pipeline.outlook import Outlook
    from easypruner.pipeline.state import PruningState


class Component(ABC):
    """Anything a plugin contributes. The contract it subclasses decides where it is registered."""

    def check(self) -> None:  # noqa: B027 - most components need nothing
        """Raise EasyPrunerError if something it needs, such as a file, is not there.

        Called before a run starts.
        """


@dataclass(frozen=True)
class Context:
    """What a strategy may use besides the channel graph. Absent parts are None.

    Attributes:
        seed: for every random choice.
        batches: opens one pass over training batches, as the data loader yields them.
        loss: the training loss (scalar, differentiable) of a model on one such batch.
        evaluate: the accuracy of a model on the validation data, in percent.
    """

    seed: int = 0
    batches: Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    evaluate: Callable[[nn.Module], float] | None = None


@dataclass(frozen=True)
class Schedule:
    """The optimizer's schedule over one training stage.

    Attributes:
        lr_sum: the sum of the learning rate over all optimizer updates.
        momentum: of the optimizer, 0 where it has none.
        updates: the number of optimizer updates.
    """

    lr_sum: float
    momentum: float
    updates: int

    @property
    def reach_per_strength(self) -> float:
        """How far a penalty of strength 1 alone moves a parameter over the stage."""
        return self.lr_sum / (1.0 - self.momentum)


@dataclass(frozen=True)
class Progress:
    """Where training stands when a regularizer is called.

    Attributes:
        update: optimizer updates done so far in this stage.
        updates: optimizer updates of the whole stage.
        grad_scale: what gradients are multiplied with at this point (fused optimizers under a
            GradScaler), else None.
    """

    update: int
    updates: int
    grad_scale: Tensor | None = None


class Budget(Component):
    """Turns scores into masks under a limit.

    Attributes:
        kind: the limit's name in summaries; the class name unless set.
    """

    @abstractmethod
    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        """Return masks that meet the limit.

        Raises:
            BudgetError: no mask meets it; the message says what the most is and which rule
                holds it.
        """

    @property
    def kind(self) -> str:
        return type(self).__name__

    @property
    @abstractmethod
    def asked(self) -> float:
        """The limit as the user gave it."""

    @abstractmethod
    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """What ``masks`` amount to, in the unit of :attr:`asked`."""


class MaskSource(Component):
    """Chooses the channels to keep. Ranked sources implement score(); searches override select().

    Args:
        budget: how much may stay.
        reduction: how the scores of coupled layers become one: a name of
            :data:`easypruner.scores.REDUCTIONS`.
        normalization: how the scores of groups are made comparable: a name of
            :data:`easypruner.scores.NORMALIZATIONS`.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        self._check_name('reduction', reduction, REDUCTIONS)
        self._check_name('normalization', normalization, NORMALIZATIONS)
        self.budget = budget
        self.reduction = reduction
        self.normalization = normalization

    def _check_name(self, argument: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            raise ConfigError(
                f'{argument}={name!r} of {type(self).__name__} is not known; {nearest(name, known)}'
            )

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        """Return group name -> scores, higher = keep.

        A tensor has shape ``(units,)``, or ``(layers, units)`` where each of the coupled layers
        scores on its own; these are reduced by :attr:`reduction`.
        """
        raise NotImplementedError(f'{type(self).__name__} implements neither score() nor select()')

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the masks; by default the budget's, on the reduced scores."""
        reduced = reduce_layers(self.score(graph, context), self.reduction)
        return self._needed_budget()(normalize(reduced, self.normalization), graph, context)

    def try_on(self, graph: ChannelGraph, context: Context) -> None:
        """Raise what would stop :meth:`select` on a network whose weights are not trained yet.

        Called before a run starts. By default the budget is tried on equal scores.
        """
        ranks = type(self).select is MaskSource.select
        budget = self._needed_budget() if ranks else self.budget
        if budget is not None:
            scores = {name: torch.ones(group.size) for name, group in graph.groups.items()}
            budget(scores, graph, context)

    def _needed_budget(self) -> Budget:
        if self.budget is None:
            raise ConfigError(
                f'{type(self).__name__} ranks channels and needs a budget; '
                "add budget=dict(type='Macs', keep=0.5) or another"
            )
        return self.budget


class Regularizer(Component):
    """Pushes channels towards zero while training. Implement penalty() or add_gradient().

    Args:
        strength: lambda, the factor of the penalty; or ``dict(reach=R)``, which picks the strength
            so that the penalty alone can move a parameter by R over the stage's schedule.
    """

    def __init__(self, strength: float | Mapping[str, float]) -> None:
        self._asked_strength = strength
        self.strength = strength if isinstance(strength, int | float) else 0.0
        if isinstance(strength, Mapping) and set(strength) != {'reach'}:
            raise ConfigError(
                f'strength={dict(strength)!r} of {type(self).__name__} is not understood; '
                'expected a number or dict(reach=number)'
            )
        value = strength['reach'] if isinstance(strength, Mapping) else strength
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(
                f'strength={strength!r} of {type(self).__name__} must be a number of at least 0'
            )

    def schedule(self, schedule: Schedule) -> None:
        """Fix :attr:`strength` for a stage's schedule. Called once before training."""
        if isinstance(self._asked_strength, Mapping):
            per_strength = schedule.reach_per_strength
            if per_strength <= 0:
                raise ConfigError(
                    f'{type(self).__name__} asks for a reach of {self._asked_strength["reach"]}, '
                    'but the learning rates of its stage sum to 0'
                )
            self.strength = self._asked_strength['reach'] / per_strength

    def reach(self, schedule: Schedule) -> float:
        """Return how far the penalty alone can move a parameter over ``schedule``."""
        return self.strength * schedule.reach_per_strength

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return the largest magnitude that must come to zero; 0 where nothing need."""
        return 0.0

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        """Return the penalty as a scalar that has a gradient."""
        raise NotImplementedError(
            f'{type(self).__name__} implements neither penalty() nor add_gradient()'
        )

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Add the penalty's gradient to ``.grad`` in place; called once per optimizer update."""
        parameters = [p for p in graph.model.parameters() if p.requires_grad]
        with torch.enable_grad():
            penalty = self.penalty(graph, masks)
            gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is None:
                continue
            if progress.grad_scale is not None:
                gradient = gradient * progress.grad_scale
            if parameter.grad is None:
                parameter.grad = gradient.clone()
            else:
                parameter.grad += gradient


class LayerHandler(Component):
    """Keeps a module's own numbers true after a cut (out_channels, groups, num_heads, ...).

    It is made without arguments. Of all handlers for a module the first is asked: those given to
    :func:`easypruner.trace`, then those of plugins, then those for torch's own layers.

    Attributes:
        handles: types of modules, or their full names, such as ``'timm.layers.norm.LayerNorm2d'``:
            a name needs no import. Modules of types derived from these are handled as well.
    """

    handles: ClassVar[tuple[type[nn.Module] | str, ...]] = ()

    @abstractmethod
    def resize(self, layer: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
        """Set the numbers of ``layer`` for new parameter shapes.

        Called while the parameters still have their old shapes.

        Args:
            layer: the module, an instance of one of :attr:`handles`.
            shapes: local name -> new shape of each of the layer's own parameters and buffers that
                change shape, and of each weight that is computed from such (a parametrized one).
        """


class Stage(Component):
    """One step of a run. Stages pass a PruningState on; everything heavy in it lies in files.

    Args:
        name: the stage's folder and its row's name; by default the class name in lower case.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).__name__.lower()

    @abstractmethod
    def run(self, state: PruningState) -> PruningState:
        """Do the step and return what the next stage starts from."""

    def foresee(self, outlook: Outlook) -> Outlook:
        """Raise what would stop this stage; return what the stages after it can count on.

        Called on every stage, in order, before a run starts.
        """
        return outlook

    def plan(self, state: PruningState) -> str:
        """Return one line that says what this stage will do; printed before a run starts."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
