"""The stage Reinitialise: new weights for the shape that the network has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from easypruner.base.checks import check_text
from easypruner.base.randomness import fixed_seed, seed_everything
from easypruner.engine.checkpoint import fill
from easypruner.engine.config import model_settings
from easypruner.engine.resets import resets
from easypruner.errors import ConfigError
from easypruner.graph import NetworkRecord
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.pipeline.stages.common import stage_runner, with_row, with_weights
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import Forecast
from easypruner.strategies.stages.state import PruningState

_FEW_VALUES = 4
"""So many different values code may write down, as those of an identity matrix."""


class Reinitialise(Stage):
    """Draws all weights anew, at the shape at hand: the baseline that trains from scratch.

    Every method has to beat it (Liu et al., 2019, "Rethinking the value of network pruning",
    arXiv 1810.05270): where it does not, it has found widths, and its weights were of no use. The
    original network is built anew with another seed, cut by the architecture record, and
    initialised at that shape; nothing of the weights and statistics before is left. Pretrained
    weights that the model's config names as an ``init_cfg`` are not loaded.

    At that shape are drawn the weights of layers that have them from torch's own
    ``reset_parameters()``, and all that the model's ``init_weights()`` draws. Weights to which the
    code of a model gives other values in its constructor are drawn for the original widths.

    Args:
        row: name of the row that the result gets in the final table; None for no row.
        name: of the stage.
    """

    def __init__(self, row: str | None = None, name: str = 'reinitialise') -> None:
        super().__init__(name)
        self.row = check_text(row, 'row', 'Reinitialise')

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        one, other = (fresh(before.config, NetworkRecord(), (), before.seed, n) for n in (1, 2))
        drawn_alike = [
            name
            for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True)
            if a.requires_grad and torch.equal(a, b) and _values(a) > _FEW_VALUES
        ]
        if drawn_alike:
            raise ConfigError(
                f'Reinitialise draws weights anew, but {len(drawn_alike)} parameters of the model '
                f'come out the same under any seed, such as {drawn_alike[0]!r}: they are loaded '
                "from a file; leave what loads them, such as pretrained=True, out of the model's "
                'config, and start from a checkpoint by load_from instead'
            )
        return before

    def run(self, state: PruningState) -> PruningState:
        """Draw, save the weights, evaluate."""
        runner = stage_runner(state)
        model = runner.plain_model
        drawn = fresh(state.config, state.record(), state.run.handlers, state.run.seed, state.index)
        fill(model, drawn.state_dict(), 'a new network')
        state = with_weights(state, model)
        return with_row(state, self.row, runner, state.run.trace(model))

    def plan(self, state: PruningState) -> str:
        return 'draw all weights anew'


def _values(tensor: Tensor) -> int:
    """Return how many different values a tensor has."""
    return len(set(tensor.detach().flatten().tolist()))


def fresh(
    config: Config, record: NetworkRecord, handlers: Sequence[LayerHandler], *entropy: int
) -> nn.Module:
    """Return a network with new weights.

    Args:
        config: of a run.
        record: of the network, which is rebuilt out of the original.
        handlers: of layers, those of plugins.
        entropy: what the weights are drawn from.
    """
    with fixed_seed(0):
        seed_everything(*entropy)
        with resets() as drawn:
            model: nn.Module = MODELS.build(_without_pretrained(model_settings(config)))
        plain = [module for module in model.modules() if drawn.are_all_of(module)]
        model = record.apply(model, handlers)
        # After the cut, for how weights are drawn depends on the widths.
        for module in plain:
            reset: Any = module.reset_parameters
            reset()
        initialise: Any = getattr(model, 'init_weights', None)
        if initialise is not None:
            initialise()
    return model


def _without_pretrained(settings: Any) -> Any:
    """Return a model's settings without the initialisations that load files."""
    if isinstance(settings, Mapping):
        kept = {key: _without_pretrained(value) for key, value in settings.items()}
        given = settings.get('init_cfg')
        if given and not kept['init_cfg']:
            del kept['init_cfg']
        return None if settings.get('type') == 'Pretrained' else kept
    if isinstance(settings, list | tuple):
        kept_items = [_without_pretrained(item) for item in settings]
        loads = [isinstance(i, Mapping) and i.get('type') == 'Pretrained' for i in settings]
        return [item for item, skip in zip(kept_items, loads, strict=True) if not skip]
    return settings
