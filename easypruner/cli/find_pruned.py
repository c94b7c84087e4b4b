"""Finds networks to deploy: those of runs, records and files of Python besides models by name."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

from easypruner.base.describe import describe
from easypruner.base.modules import copy_of
from easypruner.base.modules_beside import import_beside, import_of_package
from easypruner.cli.find_network import Subject, example_images, find_network, of_config
from easypruner.cli.options import PluginArguments
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.config import building, read_config
from easypruner.engine.pretrained import load_weights
from easypruner.errors import ConfigError, EasyPrunerError, nearest
from easypruner.graph import NetworkRecord
from easypruner.pipeline.work_dir import INITIAL
from easypruner.plugins.handlers import plugin_handlers, plugin_transforms
from easypruner.runtimes.exporting import SUMMARY
from easypruner.slimming.pruning import Slimmed
from easypruner.strategies.stages.state import ARCHITECTURE

CONFIG, WEIGHTS = 'pruned_config.py', 'pruned.pth'
_OWN = 'easypruner.PrunedModel'
_PYTHON = '.py:'
"""What separates a file of Python from one of its functions."""


@dataclass(frozen=True)
class Deployed:
    """A network to deploy.

    Attributes:
        subject: the network, with its weights and example inputs.
        unpruned: the network before the cuts; None if it was not pruned, or is not known.
        notes: what a user has to know, such as that the weights are random.
    """

    subject: Subject
    unpruned: nn.Module | None = None
    notes: tuple[str, ...] = ()


def find_pruned(
    name: str,
    shape: Sequence[int] | None,
    plugins: PluginArguments,
    original: str | None = None,
    weights: str | None = None,
) -> Deployed:
    """Find a network by the folder of a run, a record, a file of Python, a config or a name.

    Args:
        name: what it is found by.
        shape: the shape of the input tensor; None for the usual one.
        plugins: the arguments for plugins and logs.
        original: the name of the network that a record was made on.
        weights: the checkpoint of the network; None for that of the run, or random weights.

    Raises:
        ConfigError: there is no such network, or it cannot be built.
    """
    path = Path(name)
    if path.is_dir() or (path.suffix == '.json' and original is None and _run_of(path)):
        found = _of_run(path if path.is_dir() else path.parent, shape, plugins)
    elif path.suffix == '.json':
        found = _of_record(path, _original_of(path, original, shape, plugins), weights)
    else:
        note = 'the weights are random: give those of a checkpoint with --weights'
        # A function has built its network with weights that only it knows.
        known = weights is not None or _PYTHON in name
        found = Deployed(_of_name(name, shape, plugins), notes=() if known else (note,))
    if weights is not None:
        load_weights(found.subject.model, weights, '--weights')
    return found


def _run_of(path: Path) -> bool:
    """Return whether a record is that of the network of a finished run."""
    return (
        path.name == ARCHITECTURE
        and (path.parent / CONFIG).is_file()
        and (path.parent / WEIGHTS).is_file()
    )


def _of_run(folder: Path, shape: Sequence[int] | None, plugins: PluginArguments) -> Deployed:
    if (folder / SUMMARY).is_file():
        raise EasyPrunerError(
            f'{str(folder)!r} has what an export wrote, which only easypruner benchmark takes; '
            'give what it was exported from: the folder of a run, a record, a config, a model, or '
            'FILE.py:FUNCTION'
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise EasyPrunerError(
                f'{str(folder)!r} has no {name}, because its run has not finished the Report '
                'stage, or because it is not a work directory; finish the run with --resume, or '
                'give a record, a config or the name of a model'
            )
    config = read_config(folder / CONFIG, {})
    plugins.load_plugins(config.get('custom_imports') or ())
    if not plugins.verbose:
        quiet(MMLogger.get_current_instance())
    prepare()
    subject = of_config(str(folder), config, shape)
    load_weights(subject.model, str(folder / WEIGHTS))
    if config.model.get('type') != _OWN:
        return Deployed(subject, notes=('this run has not pruned its network',))
    before = Config(config.to_dict(), format_python_code=False)
    settings = {'data_preprocessor': config.get('data_preprocessor'), **before.model.model}
    with building('the unpruned model'):
        unpruned: nn.Module = MODELS.build({k: v for k, v in settings.items() if v is not None})
    load_weights(unpruned, str(_unpruned_weights(folder)))
    return Deployed(subject, unpruned)


def _unpruned_weights(folder: Path) -> Path:
    """Return the file of the weights of a run before the first stage pushed them towards a cut."""
    states = sorted(folder.glob('[0-9]*_*/state.json'))
    for state in reversed(states):
        content = json.loads(state.read_text(encoding='utf-8'))
        known = content.get('unpruned') if isinstance(content, dict) else None
        if known and (folder / known).is_file():
            return folder / str(known)
    return folder / INITIAL


def _original_of(
    path: Path, original: str | None, shape: Sequence[int] | None, plugins: PluginArguments
) -> Subject:
    if not path.is_file():
        raise ConfigError(f'there is no record {str(path)!r}')
    if original is None:
        raise ConfigError(
            f'{str(path)!r} has no network beside it ({CONFIG} and {WEIGHTS} of a run); name the '
            'network that it was made on with --model, such as --model torchvision::resnet50'
        )
    return _of_name(original, shape, plugins)


def _of_record(path: Path, original: Subject, weights: str | None) -> Deployed:
    record = NetworkRecord.load(path, plugin_transforms())
    pruned = record.apply(copy_of(original.model), plugin_handlers())
    note = (
        'the weights are those of the original, cut: give trained ones with --weights'
        if weights is None
        else 'the unpruned network has the weights with which it was built'
    )
    return Deployed(replace(original, name=str(path), model=pruned), original.model, (note,))


def _of_name(name: str, shape: Sequence[int] | None, plugins: PluginArguments) -> Subject:
    file, colon, function = name.rpartition(_PYTHON)
    if not colon:
        try:
            return find_network(name, shape, plugins)
        except ConfigError as error:
            if Path(name).suffix != '.py' or not Path(name).is_file():
                raise
            advice = f'if it is not a config, name a function in it: {name}:FUNCTION'
            raise ConfigError(f'{error}; {advice}') from error
    plugins.load_plugins()
    return _of_python(Path(f'{file}.py'), function, shape)


def _import(file: Path) -> ModuleType:
    """Import a file as Python runs a script, or as a module of its package.

    A script finds the modules that are beside it. If it imports some by ``from .name``, it is a
    module of a package.
    """
    import_beside(file)
    if _imports_relatively(file):
        return import_of_package(file)
    # Dataclasses look for the module of their class. The name is none that a file could import.
    name = f'easypruner file {file.resolve()}'
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _imports_relatively(file: Path) -> bool:
    tree = ast.parse(file.read_bytes(), str(file))
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))


def _check_no_arguments(given: Callable[..., Any], name: str) -> None:
    """Raise ConfigError if a function or class cannot be called without arguments."""
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # some callables of C have none
        return
    try:
        signature.bind()
    except TypeError as error:
        kind = 'class' if isinstance(given, type) else 'function'
        called = name.rpartition(':')[2]
        raise ConfigError(
            f'{name} is a {kind} that needs arguments: {called}{signature}; write a function '
            f'without arguments that returns {called}(...) and its example inputs, and name that '
            'function'
        ) from error


def _of_python(file: Path, function: str, shape: Sequence[int] | None) -> Subject:
    """Return the network that a function in a file of Python returns, with its inputs or alone."""
    if not file.is_file():
        raise ConfigError(f'there is no file {str(file)!r}')
    name = f'{file}:{function}'
    with building(name):
        module = _import(file)
    given: Any = getattr(module, function, None)
    if not callable(given):
        known = [each for each, value in vars(module).items() if callable(value)]
        raise ConfigError(f'{str(file)!r} has no function {function!r}; {nearest(function, known)}')
    made = given
    if not isinstance(given, nn.Module):
        _check_no_arguments(given, name)
        with building(name):
            made = given()
    network, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if isinstance(network, Slimmed):
        network = network.model
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f'{name} returns {describe(made)}; expected a network, or a network and its example '
            'inputs'
        )
    if shape is not None:
        inputs = example_images(shape)
    if inputs is None:
        raise ConfigError(
            f'{name} returns a network without example inputs; let it return both, or give the '
            'shape with --input-shape'
        )
    return Subject(name, network, inputs)
