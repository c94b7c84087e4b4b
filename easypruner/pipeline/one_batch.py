"""One batch: before a run starts, each data loader, hook and evaluator is run on one batch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, IterableDataset

from easypruner.base.randomness import fixed_seed
from easypruner.engine.config import building
from easypruner.engine.failures import EVALUATOR, HOOKS, Failure, blaming, failure_of
from easypruner.engine.hooks import training_hooks
from easypruner.engine.runner import RunnerPlan, StageRunner, accuracy_in, build_runner
from easypruner.errors import EasyPrunerError, Mistakes
from easypruner.graph import ChannelGraph
from easypruner.strategies import Stage
from easypruner.strategies.stages.state import Run

_MACS = 8e9
"""The multiply-adds of a forward pass that is fast enough everywhere."""
_FEWEST, _MOST = 2, 8
"""The numbers of samples of a batch."""
_ROUNDS = 5
"""The most mistakes that are searched for, one after the other."""


@dataclass(frozen=True)
class FirstSamples:
    """The first samples of a data loader.

    Attributes:
        loader: the data loader, without worker processes.
        samples: the samples; empty if the data set has no numbers.
        whole: the batch of all of them.
    """

    loader: DataLoader[Any]
    samples: Sequence[Any]
    whole: Any

    def batch(self, macs: int) -> Any:
        """Return a batch of the first samples: fewer for a large network, so that it is fast."""
        affordable = max(int(_MACS // max(macs, 1)), _FEWEST)
        if affordable >= len(self.samples):
            return self.whole
        assert self.loader.collate_fn is not None, 'torch has a default'
        return self.loader.collate_fn(list(self.samples[:affordable]))


def read_samples(
    name: str, loader: DataLoader[Any] | None, seed: int, mistakes: Mistakes
) -> FirstSamples | None:
    """Read the first samples of a data loader and run its sampler; None after a mistake.

    Args:
        name: the name of the data loader.
        loader: the data loader, if it could be built.
        seed: the seed of the run. The random state is restored.
        mistakes: gets a mistake if reading fails.
    """
    if loader is None:
        return None
    with fixed_seed(seed), mistakes.collect(name), blaming('reading a batch', lambda: ''):
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            return FirstSamples(loader, (), next(iter(loader)))
        next(iter(loader.batch_sampler))
        size = min(loader.batch_size or _MOST, _MOST, len(loader.dataset))  # type: ignore[arg-type]
        samples = [loader.dataset[number] for number in range(size)]
        return FirstSamples(loader, samples, loader.collate_fn(samples))
    return None


def try_one_batch(
    run: Run,
    stages: Sequence[Stage],
    graph: ChannelGraph,
    samples: Sequence[FirstSamples],
    mistakes: Mistakes,
    validates: bool = True,
) -> None:
    """Train and validate on one batch each, with everything that the config registers.

    Nothing of it reaches the run: the model is another one, the work directory is removed, and the
    random state is restored.

    Args:
        run: the run.
        stages: the stages of the run.
        graph: the channel graph of the original model.
        samples: the first samples of the training and of the validation data.
        mistakes: gets a mistake for each part that fails.
        validates: whether the evaluator is run, which may be known to fail.
    """
    trial = _Trial(run, stages, graph, samples, validates=validates)
    with fixed_seed(run.seed):
        _try_runner(trial, mistakes)


def _try_runner(trial: _Trial, mistakes: Mistakes) -> None:
    """Run until nothing fails, each time without what has failed before."""
    for _ in range(_ROUNDS):
        try:
            failure = trial.failure()
        except EasyPrunerError as error:
            mistakes.add(str(error))
            return
        if failure is None:
            return
        mistakes.add(failure.text(), trial.path(failure))
        if failure.part == EVALUATOR:
            trial.validates = False
        elif failure.hook is not None:
            trial.without.add(type(failure.hook))
        else:
            return


@dataclass
class _Trial:
    """Runs of one batch.

    Attributes:
        run: the run.
        stages: the stages of the run.
        graph: the channel graph of the original model.
        samples: the first samples of the training and of the validation data.
        without: classes of hooks that are left out.
        validates: whether the evaluator is run.
    """

    run: Run
    stages: Sequence[Stage]
    graph: ChannelGraph
    samples: Sequence[FirstSamples]
    without: set[type] = field(default_factory=set)
    validates: bool = True

    def failure(self) -> Failure | None:
        """Run once; return what failed."""
        with tempfile.TemporaryDirectory(prefix='easypruner_') as folder:
            try:
                self._run(Path(folder))
            except EasyPrunerError:
                raise
            except Exception as error:
                failure = failure_of(error)
                if failure is None:
                    raise
                return failure
        return None

    def _run(self, folder: Path) -> None:
        runner, metrics = self._runner(folder), _Metrics()
        runner._hooks = [hook for hook in runner._hooks if type(hook) not in self.without]
        runner.register_hook(metrics, 'LOWEST')
        train, val = (_OneBatch(s.loader, s.batch(self.graph.cost().macs)) for s in self.samples)
        runner._val_dataloader = val
        if not self.validates:
            runner._val_evaluator = _NoEvaluator()
        if runner._train_dataloader is None:
            runner.val()
        else:
            runner._train_dataloader = train
            runner.train()
        if self.validates and any(getattr(stage, 'row', None) for stage in self.stages):
            self.check_accuracy(metrics.found)

    @staticmethod
    def check_accuracy(metrics: Mapping[str, Any]) -> None:
        """Raise ConfigError if the evaluator does not report an accuracy, which rows need."""
        mistakes = Mistakes()
        with mistakes.collect(EVALUATOR):
            accuracy_in(metrics)
        mistakes.raise_all()

    def _runner(self, folder: Path) -> StageRunner:
        run, training = self.run, self._training
        hooks = {**(run.config.get('default_hooks') or {}), 'checkpoint': None}
        overrides: dict[str, Any] = {'default_hooks': hooks}
        if run.config.get('auto_scale_lr'):
            # The loader of one batch has no batch size; the plan has computed the rates before.
            overrides['auto_scale_lr'] = {'enable': False}
        if run.config.get('visualizer'):
            # Its backends may send something to a server.
            overrides['visualizer'] = {'vis_backends': None}
        epochs = None
        if training is not None:
            overrides |= training.overrides(run.config)
            overrides['train_cfg'] = {'val_interval': 1, 'val_begin': 1}
            epochs = training.length(run.config)
        plan = RunnerPlan(
            work_dir=folder / 'plan',
            seed=run.seed,
            launcher=run.launcher,
            epochs=epochs,
            overrides=overrides,
            hooks=[] if training is None else training_hooks(),
        )
        return build_runner(run.config, plan)

    @property
    def _training(self) -> Any:
        """The first stage that trains; None if none does, or if its schedule is a mistake."""
        stage: Any = next((stage for stage in self.stages if hasattr(stage, 'overrides')), None)
        try:
            with building():
                return stage and stage.schedule(self.run.config, 1, self.graph.model) and stage
        except EasyPrunerError:
            # Its forecast reports this.
            return None

    def path(self, failure: Failure) -> str:
        """Return the path in the config of what failed, or ''."""
        if failure.part != HOOKS:
            return failure.part
        config, name = self.run.config, type(failure.hook).__name__
        named = [
            *(
                (f'custom_hooks[{n}]', hook)
                for n, hook in enumerate(config.get('custom_hooks') or ())
            ),
            *((f'default_hooks.{n}', h) for n, h in (config.get('default_hooks') or {}).items()),
        ]
        return next((path for path, hook in named if _is_named(hook, name)), '')


def _is_named(hook: Any, name: str) -> bool:
    kind = hook.get('type') if isinstance(hook, Mapping) else type(hook)
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2] == name


class _OneBatch:
    """A data loader that yields one batch. It has the length and the data set of another one."""

    def __init__(self, loader: DataLoader[Any], batch: Any) -> None:
        self._loader = loader
        self._batch = batch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return iter([self._batch])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _NoEvaluator(Evaluator):
    """Stands for an evaluator that has failed."""

    def __init__(self) -> None:
        super().__init__([])

    def evaluate(self, size: int) -> dict[str, float]:
        """Return a metric that hooks may look for."""
        return {'accuracy/top1': 0.0}


class _Metrics(Hook):
    """Keeps the metrics of the validation, and ends the training after one epoch."""

    def __init__(self) -> None:
        self.found: Mapping[str, Any] = {}

    def after_train_epoch(self, runner: Any) -> None:
        """Let this epoch be the last."""
        runner.train_loop.stop_training = True

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Keep the metrics."""
        self.found = metrics or {}
