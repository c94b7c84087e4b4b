"""The MMEngine runner of a stage, and the channel graphs of a run's models."""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import BaseLoop, Runner
from torch import nn

from easypruner.base.distributed import wrapper_config
from easypruner.base.files import zip_damage
from easypruner.base.modules import unwrapped
from easypruner.base.nested import map_tensors
from easypruner.engine.amp import on_this_device
from easypruner.engine.averaging import averaging_hooks
from easypruner.engine.checkpoint import fill, read_plain
from easypruner.engine.compat import quiet
from easypruner.engine.config import building_runner
from easypruner.engine.model_calls import outputs_call
from easypruner.engine.pretrained import no_pretrained
from easypruner.engine.schedule import acting, overridden
from easypruner.engine.stop_hook import PARTIAL
from easypruner.engine.train_loop import TrainLoop
from easypruner.errors import ConfigError, EasyPrunerError, nearest
from easypruner.graph import ChannelGraph, LayerHandler, Limits
from easypruner.graph.coupling.choice import PruningChoice
from easypruner.graph.graph import WidthGrids
from easypruner.graph.tracing import trace

RUNNER_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {'self'}
_NEVER = 10**9
_PLAIN_LOOP = 'EpochBasedTrainLoop'
OF_WORKERS = ('num_workers', 'persistent_workers', 'prefetch_factor', 'timeout')
"""The settings of a data loader that only matter with worker processes."""
_numbers = itertools.count()
_ROUNDING = 1e-3
"""How far an accuracy in single precision may be above 100 %."""


@dataclass(frozen=True)
class RunnerPlan:
    """The settings of a stage's runner that are not in the run's config.

    Attributes:
        work_dir: the folder for logs and training checkpoints.
        seed: the seed of the run.
        launcher: ``'none'``, or what has started the processes of the run.
        verbose: whether MMEngine's log is printed to the console.
        architecture: the record of the pruned network; None for the original network.
        checkpoint: the weights to start with; None for the model's own initialization.
        epochs: the number of epochs to train; None for a runner that does not train.
        overrides: settings to merge into the config, such as ``dict(optim_wrapper=...)``.
        hooks: the hooks to register.
    """

    work_dir: Path
    seed: int
    launcher: str = 'none'
    verbose: bool = False
    architecture: Path | None = None
    checkpoint: Path | None = None
    epochs: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    hooks: Sequence[Hook] = ()


class StageRunner(Runner):
    """A Runner that loads weights strictly and does not print its log.

    A tensor of the wrong shape is an error here. MMEngine's own Runner prints a message and trains
    with the initial value.
    """

    verbose = False
    model: Any

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """Build the logger; it prints only errors unless ``verbose`` is set."""
        logger: logging.Logger = super().build_logger(*args, **kwargs)
        if not self.verbose:
            quiet(logger)
        return logger

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = 'cpu',
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> Any:
        """Load weights without unpickling. Every tensor has to fit.

        Raises:
            EasyPrunerError: a tensor does not fit, or the file is missing or damaged.
        """
        content = read_plain(filename, map_location)
        if 'state_dict' not in content:
            content = {'state_dict': content}
        self.call_hook('after_load_checkpoint', checkpoint=content)
        weights = content['state_dict']
        for pattern, replacement in revise_keys:
            weights = {re.sub(pattern, replacement, name): t for name, t in weights.items()}
        fill(self.plain_model, weights, filename)
        self._has_loaded = True
        return content

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedulers, except those that would begin after the training."""
        loop = self._train_loop
        if isinstance(loop, BaseLoop):
            scheduler = acting(scheduler, loop.max_epochs, loop.max_iters)
        return super().build_param_scheduler(scheduler)

    def build_train_loop(self, loop: Any) -> BaseLoop:
        """Build the loop; one over epochs can continue in the middle of an epoch."""
        if isinstance(loop, Mapping) and loop.get('type', _PLAIN_LOOP) == _PLAIN_LOOP:
            given = {key: value for key, value in loop.items() if key != 'by_epoch'}
            loop = {**given, 'type': TrainLoop}
        with building_runner():
            return super().build_train_loop(loop)

    def _init_model_weights(self) -> None:
        # A stage loads all its weights afterwards, and they may be those of a pruned network.
        with no_pretrained():
            super()._init_model_weights()

    @property
    def plain_model(self) -> nn.Module:
        """The model without a distributed wrapper."""
        return unwrapped(self.model)

    def accuracy_of(self, model: nn.Module) -> float:
        """Return the accuracy of another model on the runner's validation data, in percent."""
        own: nn.Module = self.model
        self.model = model.to(next(own.parameters()).device)
        try:
            return self.accuracy()
        finally:
            self.model = own

    def accuracy(self) -> float:
        """Return the model's accuracy on the validation data, in percent.

        Raises:
            EasyPrunerError: the evaluator of the config does not report an accuracy.
        """
        return accuracy_in(self.val_loop.run())


def accuracy_in(metrics: Mapping[str, Any]) -> float:
    """Return the accuracy among the metrics of an evaluator, in percent.

    Raises:
        EasyPrunerError: there is none, or it is not from 0 to 100.
    """
    named = [n for n in metrics if 'accuracy' in n or 'top1' in n]
    if not named:
        raise EasyPrunerError(
            f'the evaluator reports {", ".join(metrics) or "nothing"}, but no accuracy; '
            "use val_evaluator=dict(type='Accuracy', topk=(1,)), or a metric of your own that "
            'returns it in percent as accuracy'
        )
    value = float(metrics[named[0]])
    if not -_ROUNDING <= value <= 100 + _ROUNDING:
        raise EasyPrunerError(
            f'the evaluator reports {named[0]} = {value:g}; expected percent, from 0 to 100'
        )
    return min(max(value, 0.0), 100.0)


def runner_config(config: Config, plan: RunnerPlan) -> Config:
    """Return the config for a stage's runner."""
    content = copy.deepcopy(config.to_dict())
    kept = {k: value for k, value in content.items() if k in RUNNER_KEYS and value is not None}
    # MMEngine would format the config with yapf, which takes long, and fails when interrupted.
    result = overridden(Config(kept, format_python_code=False), plan.overrides)
    result.work_dir = str(plan.work_dir)
    result.launcher = plan.launcher
    result.randomness = {**result.get('randomness', {}), 'seed': plan.seed}
    result.setdefault('val_cfg', {})
    # By default, runners built within the same second share a name, and thus their loggers.
    result.experiment_name = f'{plan.work_dir.name}_{next(_numbers)}'
    result.load_from = str(plan.checkpoint) if plan.checkpoint else None
    result.resume = False
    if plan.architecture is not None:
        result.model = dict(
            type='easypruner.PrunedModel', model=result.model, architecture=str(plan.architecture)
        )
    left_out = averaging_hooks(result)
    if left_out:
        result.custom_hooks = [hook for hook in result.custom_hooks if hook not in left_out]
    _set_loops(result, plan)
    wrapper = wrapper_config()
    if wrapper is not None:
        result.setdefault('model_wrapper_cfg', wrapper)
    if not torch.cuda.is_available():
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if result.get(name):
                result[name].setdefault('pin_memory', False)
    return result


def _set_loops(config: Config, plan: RunnerPlan) -> None:
    if plan.epochs is None:
        for key in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'train_dataloader'):
            config.pop(key, None)
    else:
        given = {k: v for k, v in (config.get('train_cfg') or {}).items() if k != '_delete_'}
        # A stage validates at its end. The runner validates only if the config asks for it.
        validation = {} if 'val_interval' in given else {'val_begin': _NEVER}
        if given.get('by_epoch') is False:
            raise ConfigError(
                'train_cfg: by_epoch=False, but training stages count epochs; use '
                'train_cfg=dict(by_epoch=True, max_epochs=...), or the epochs of a stage'
            )
        by_epoch = {} if 'type' in given else {'by_epoch': True}
        config.optim_wrapper = on_this_device(config.optim_wrapper)
        config.train_cfg = {**by_epoch, **validation, **given, 'max_epochs': plan.epochs}
        # The random state of a persistent worker depends on all epochs so far, so that a resumed
        # run would differ from an uninterrupted one.
        config.train_dataloader.persistent_workers = False
        latest = _latest_checkpoint(plan.work_dir)
        if latest is not None:
            config.load_from, config.resume = str(latest), True
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        config.pop(key, None)


def _latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest undamaged training checkpoint; a run may stop while it writes one."""
    # A checkpoint from the middle of an epoch is removed when the epoch has been saved.
    newest_first = (*_numbered(folder, PARTIAL), *_numbered(folder, 'epoch_*.pth'))
    whole = (path for path in newest_first if zipfile.is_zipfile(path) and not zip_damage(path))
    return next(whole, None)


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Return the files with a number at the end of their names, the highest first."""
    found = {path.stem.rpartition('_')[2]: path for path in folder.glob(pattern)}
    numbered = {int(number): path for number, path in found.items() if number.isdecimal()}
    return [numbered[number] for number in sorted(numbered, reverse=True)]


def build_runner(
    config: Config,
    plan: RunnerPlan,
    configure: Callable[[Runner], object] = lambda runner: None,
) -> StageRunner:
    """Build the runner of a stage.

    Args:
        config: the config of the run.
        plan: the settings of the stage.
        configure: a function that gets the runner before it runs, such as the hook of plugins.

    Raises:
        ConfigError: something of the config cannot be built; the message names its key.
    """
    runner_class: type[StageRunner] = type('StageRunner', (StageRunner,), {'verbose': plan.verbose})
    with building_runner():
        runner: StageRunner = runner_class.from_cfg(runner_config(config, plan))
    for hook in plan.hooks:
        runner.register_hook(hook)
    configure(runner)
    return runner


def example_input(config: Config, model: BaseModel) -> dict[str, Any]:
    """Return the arguments of the model's forward for a batch of the first validation sample.

    Raises:
        EasyPrunerError: the validation data set is empty, or its batches do not fit the model.
    """
    if not hasattr(model, 'data_preprocessor'):
        raise ConfigError(
            f'{type(model).__name__} is not a BaseModel of MMEngine, which trains and validates '
            'with its loss and its data_preprocessor; derive it from mmengine.model.BaseModel, or '
            'prune it in your own code with easypruner.slim'
        )
    settings = {k: v for k, v in config.val_dataloader.to_dict().items() if k not in OF_WORKERS}
    loader = Runner.build_dataloader({**settings, 'batch_size': 1})
    if not len(loader.dataset):
        raise EasyPrunerError(
            'the validation data set is empty; expected at least one sample, to trace the model on'
        )
    batch = loader.collate_fn([loader.dataset[0]])
    return outputs_call(model, model.data_preprocessor(batch, False))


class Tracer:
    """Makes channel graphs of a run's models, with the first validation sample as input.

    The sample is read only once, because listing a large data set takes longer than tracing. The
    first traced model has to be the original network, because limits refer to its groups.

    Args:
        config: the config of the run.
        handlers: the layer handlers of plugins.
        target: what knows the grids of fast widths; None if nothing does.
    """

    def __init__(
        self, config: Config, handlers: Sequence[LayerHandler], target: WidthGrids | None = None
    ) -> None:
        self._config = config
        self._target = target
        self._handlers = tuple(handlers)
        self._example: dict[str, Any] = {}
        self._original: dict[str, Limits] | None = None

    def __call__(self, model: nn.Module) -> ChannelGraph:
        """Return the graph of a model."""
        inputs, options = (
            self._inputs(model),
            {**graph_options(self._config), 'target': self._target},
        )
        if self._original is None:
            graph = trace(model, inputs, self._handlers, **options)
            sizes = {name: group.size for name, group in graph.groups.items()}
            self._original = {n: own.in_units(sizes[n]) for n, own in graph.limits.items()}
            return graph
        asked = PruningChoice.of(
            limits=options.pop('limits', None), uniform=options.pop('uniform', False)
        )
        graph = trace(model, inputs, self._handlers, **options)
        limits = asked.limits_of(graph.groups, excused=asked.limits)
        graph.set_limits(limits)
        own = graph.limits.items()
        graph.limits = {name: self._original.get(name, limit) for name, limit in own}
        return graph

    def _inputs(self, model: nn.Module) -> dict[str, Any]:
        if not self._example:
            self._example = example_input(self._config, model)
        device = next(model.parameters()).device
        return {n: map_tensors(v, lambda t: t.to(device)) for n, v in self._example.items()}


def graph_options(config: Config) -> dict[str, Any]:
    """Return the options of a config's ``graph``, which restrict what can be pruned.

    Raises:
        ConfigError: there is no such option.
    """
    options = dict(config.get('graph') or {})
    known = ('ignore', 'limits', 'attention', 'grouped', 'uniform', 'outputs', 'target')
    for name in options:
        if name not in known:
            raise ConfigError(f'graph has no option {name!r}; {nearest(name, known)}')
    return options
