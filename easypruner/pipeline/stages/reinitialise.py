"""The stage Reinitialise: new weights for the current shape of the network."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from easypruner.base.randomness import fixed_seed, seed_everything
from easypruner.engine.checkpoint import fill
from easypruner.engine.config import model_settings
from easypruner.engine.pretrained import no_pretrained
from easypruner.errors import ConfigError
from easypruner.graph import LayerHandler, NetworkRecord
from easypruner.graph.recording.inventory import own_tensors
from easypruner.pipeline.stages.common import stage_runner, with_row, with_weights
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import PruningState

_FEW_VALUES = 4
"""The number of distinct values below which a tensor is a constant, such as an identity matrix."""

_RESET = 'reset_parameters'

_Resets = dict[nn.Module, dict[str, Tensor]]
"""Layer -> its tensors right after its own ``reset_parameters()``."""


class Reinitialise(RowStage):
    """Draws all weights again, for the current shape of the network.

    The original network is built with another seed, cut by the architecture record, and initialized
    at the new shape. No weights or statistics remain. Pretrained weights that the model's config
    names in an ``init_cfg`` are not loaded.

    Layers with torch's own ``reset_parameters()`` are initialized at the new shape, and so is
    everything that the model's ``init_weights()`` draws. If the constructor of a model sets other
    values, these are drawn for the original widths and then cut.

    Use when:
        A baseline is needed: training the pruned shape from scratch (Liu et al., 2019, arXiv
        1810.05270). If a method does not beat it, only the widths it found are useful, not the
        weights.

    Fails when:
        The model loads pretrained weights by other means than an ``init_cfg``; the error names a
        parameter that is the same under every seed.

    Values:
        Train afterwards with the full schedule of the unpruned network. Liu et al. also double the
        epochs for networks with half of the compute (Scratch-B).
    """

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        one, other = (
            fresh_network(before.config, NetworkRecord(), (), before.seed, n) for n in (1, 2)
        )
        same = [
            name
            for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True)
            if a.requires_grad and torch.equal(a, b) and torch.unique(a).numel() > _FEW_VALUES
        ]
        if same:
            raise ConfigError(
                f'Reinitialise draws all weights again, but {len(same)} parameters are the same '
                f'under every seed, such as {same[0]!r}: the model loads them from a file; '
                "remove what loads them, such as pretrained=True, from the model's config, and "
                'start from a checkpoint by load_from instead'
            )
        return replace(before, step=Step(renews=True))

    def run(self, state: PruningState) -> PruningState:
        """Draw the weights, save them, evaluate."""
        runner = stage_runner(state)
        model = runner.plain_model
        entropy = (state.run.seed, state.index)
        drawn = fresh_network(state.config, state.record(), state.run.handlers, *entropy)
        fill(model, drawn.state_dict(), 'a new network')
        state = with_weights(state, model)
        return with_row(state, self.row, runner, state.run.trace(model))

    def plan(self, state: PruningState) -> str:
        return 'draw all weights again'


def fresh_network(
    config: Config, record: NetworkRecord, handlers: Sequence[LayerHandler], *entropy: int
) -> nn.Module:
    """Return a network with new weights.

    Args:
        config: the config of a run.
        record: the record of the network, which is rebuilt from the original one.
        handlers: the layer handlers of plugins.
        entropy: the numbers that seed the weights.
    """
    with fixed_seed(0):
        seed_everything(*entropy)
        with _resets() as drawn:
            model: nn.Module = MODELS.build(_without_pretrained(model_settings(config)))
        plain = [module for module in model.modules() if _is_unchanged(module, drawn)]
        model = record.apply(model, handlers)
        # Reset after the cut, because the distribution of weights depends on the widths.
        for module in plain:
            reset: Any = module.reset_parameters
            reset()
        with no_pretrained():
            getattr(model, 'init_weights', lambda: None)()
    return model


def _without_pretrained(settings: Any) -> Any:
    """Return a model's settings without the initializations that load files."""
    if isinstance(settings, Mapping):
        kept = {key: _without_pretrained(value) for key, value in settings.items()}
        if settings.get('init_cfg') and not kept['init_cfg']:
            del kept['init_cfg']
        return None if settings.get('type') == 'Pretrained' else kept
    if isinstance(settings, list | tuple):
        kept_items = [_without_pretrained(item) for item in settings]
        loads = [isinstance(i, Mapping) and i.get('type') == 'Pretrained' for i in settings]
        return [item for item, skip in zip(kept_items, loads, strict=True) if not skip]
    return settings


def _is_unchanged(module: nn.Module, drawn: _Resets) -> bool:
    """Return whether a layer was reset and its tensors are unchanged since then."""
    if module not in drawn:
        return False
    given, now = drawn[module], _own(module)
    return given.keys() == now.keys() and all(torch.equal(given[n], now[n]) for n in now)


@contextlib.contextmanager
def _resets() -> Iterator[_Resets]:
    """Record the resets of all layers that are built during a block.

    A layer resets itself in its constructor. If the code of a model changes the weights afterwards
    in any way, a comparison with the recorded tensors shows it.
    """
    found: _Resets = {}
    with contextlib.ExitStack() as patches:
        for cls in _classes(nn.Module):
            if _RESET in vars(cls):
                reset = vars(cls)[_RESET]
                patches.callback(setattr, cls, _RESET, reset)
                setattr(cls, _RESET, _watched(reset, found))
        yield found


def _watched(reset: Callable[..., Any], found: _Resets) -> Callable[..., Any]:
    @functools.wraps(reset)
    def watched(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = reset(self, *args, **kwargs)
        found[self] = _own(self)
        return result

    return watched


def _classes(cls: type[nn.Module]) -> Iterator[type[nn.Module]]:
    for derived in cls.__subclasses__():
        yield derived
        yield from _classes(derived)


def _own(module: nn.Module) -> dict[str, Tensor]:
    own = dict(own_tensors(module))
    return {name: tensor.detach().clone() for name, tensor in own.items()}
