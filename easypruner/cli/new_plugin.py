"""The command ``easypruner new-plugin``: writes a plugin to start from, and its test."""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.util
import keyword
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from easypruner.base.files import write_whole
from easypruner.cli.options import CommonArguments, flag, option, positional
from easypruner.errors import ConfigError, EasyPrunerError

_TEMPLATES = Path(__file__).parent / 'templates'
_CLASS = 'CLASS'
_IN_A_CONFIG = {
    'source': "source=dict(type='{}', budget=dict(type='Macs', keep=0.5))",
    'budget': "budget=dict(type='{}', units=4)",
    'regularizer': "regularizer=dict(type='{}', strength=1e-4)",
    'stage': "dict(type='{}'), among the stages",
    'transform': "dict(type='Apply{}'), among the stages",
    'runtime': "graph=dict(target='{}'), and --runtime {} of commands",
    'handler': 'not needed: a handler is found by the type of the layer',
}
KINDS = tuple(_IN_A_CONFIG)
"""The kinds of plugins, as ``--kind`` names them."""


@dataclass(frozen=True, kw_only=True)
class NewPluginArguments(CommonArguments):
    """The arguments of ``easypruner new-plugin``."""

    name: str = positional('name of the class, such as ReaderNorm or reader_norm', metavar='NAME')
    kind: str = option(
        'kind of component that the plugin contributes', required=True, choices=KINDS
    )
    dir: str = option('folder to write; default: my_plugins', default='my_plugins', metavar='DIR')
    overwrite: bool = flag('replace existing files')


def new_plugin(arguments: NewPluginArguments) -> int:
    """Write a plugin and its test, and print the next steps."""
    folder, kind = arguments.dir, arguments.kind
    plugin, test = write_plugin(arguments.name, kind, Path(folder), arguments.overwrite)
    print(f'wrote {plugin} and {test}')
    print(f'  run the test:       pytest {shlex.quote(str(test))}')
    print(f'  list the plugin:    easypruner plugins --plugins {shlex.quote(folder)}')
    use = _IN_A_CONFIG[kind].replace('{}', class_name(arguments.name))
    print(f'  use it in a config: {use}')
    return 0


def write_plugin(name: str, kind: str, folder: Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Write a plugin that works, and a test that it passes.

    Args:
        name: the name of the class or of the file.
        kind: one of :data:`KINDS`.
        folder: the folder for the plugin; the test is written to its subfolder ``tests``.
        overwrite: whether to replace existing files.

    Returns:
        the paths of the plugin and of its test.

    Raises:
        ConfigError: the name cannot be that of a class, or is already used.
        EasyPrunerError: a file exists already or cannot be written.
    """
    cls = class_name(name)
    stem = file_stem(cls)
    files = [_TEMPLATES / f'{kind}.txt', _TEMPLATES / f'{kind}_test.txt']
    templates = [file.read_text(encoding='utf-8') for file in files]
    _check_meaning(cls, templates)
    _check_taken(cls, stem, kind)
    _check_module(stem, folder)
    targets = (folder / f'{stem}.py', folder / 'tests' / f'test_{stem}.py')
    texts = [template.replace(_CLASS, cls) for template in templates]
    _write_all(dict(zip(targets, texts, strict=True)), overwrite)
    return targets


def class_name(name: str) -> str:
    """Convert a name to the name of a class.

    Raises:
        ConfigError: it cannot be the name of a class.

    >>> class_name('reader_norm'), class_name('ReaderNorm')
    ('ReaderNorm', 'ReaderNorm')
    """
    cls = ''.join(part[:1].upper() + part[1:] for part in re.split('[_-]', name))
    if not cls.isidentifier() or keyword.iskeyword(cls) or not cls.isascii():
        raise ConfigError(
            f'{name!r} cannot be the name of a plugin; expected the name of a Python class or '
            'module, such as ReaderNorm or reader_norm'
        )
    return cls


def file_stem(cls: str) -> str:
    """Convert the name of a class to that of its file.

    >>> file_stem('ReaderNorm'), file_stem('L1Norm'), file_stem('FPGMScore')
    ('reader_norm', 'l1_norm', 'fpgm_score')
    """
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', cls).lower()


def _write_all(texts: Mapping[Path, str], overwrite: bool) -> None:
    """Write all files or none."""
    with contextlib.ExitStack() as undo:
        for target, text in texts.items():
            undo.callback(_write(target, text, overwrite))
        undo.pop_all()


def _write(target: Path, text: str, overwrite: bool) -> Callable[[], object]:
    """Write a file, and return a function that restores what was there before."""
    try:
        before = target.read_bytes() if target.exists() else None
        if before is None or overwrite:
            write_whole(target, text)
            return target.unlink if before is None else partial(write_whole, target, before)
    except OSError as error:
        raise EasyPrunerError(
            f'{str(target)!r} cannot be written: {error.strerror}; choose another --dir or name'
        ) from error
    raise EasyPrunerError(
        f'{str(target)!r} exists; replace it with --overwrite, or choose another name'
    )


def _check_meaning(cls: str, templates: Sequence[str]) -> None:
    """Raise ConfigError if a template uses the name for something else, such as ``Tensor``."""
    nodes = [node for template in templates for node in ast.walk(ast.parse(template))]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    if cls in used or hasattr(builtins, cls):
        raise ConfigError(
            f'{cls!r} has another meaning in Python or in a plugin file; choose another name'
        )


def _check_taken(cls: str, stem: str, kind: str) -> None:
    """Raise ConfigError if another class or plugin has the name."""
    # These modules import torch, and --help has to be fast.
    from easypruner.plugins import load_plugins
    from easypruner.plugins.registry import REGISTRIES

    plugins = load_plugins(skip_broken=True)
    (registry,) = (registry for registry in REGISTRIES if registry.parameter == kind)
    for other in registry.classes:
        # Two names that differ only in case are easily confused.
        if other.lower() == cls.lower():
            raise ConfigError(f'there is a {registry.kind} {other!r} already; choose another name')
    for plugin in (*plugins.plugins, *plugins.disabled, *plugins.skipped):
        if plugin.name == stem:
            raise ConfigError(
                f'there is a plugin {stem!r} already, {plugin.origin}, and --disable-plugin needs '
                'a unique name; choose another name'
            )


def _check_module(stem: str, folder: Path) -> None:
    """Raise ConfigError if the file could not be imported, or would hide another module."""
    used = keyword.iskeyword(stem) or stem in sys.stdlib_module_names or stem in sys.modules
    if used or _is_installed(stem, folder):
        raise ConfigError(
            f'the file would be {stem}.py, but {stem!r} is a keyword or a module of Python or of '
            'an installed package; choose another name'
        )


def _is_installed(module: str, folder: Path) -> bool:
    """Return whether there is a module of this name outside a folder."""
    spec = importlib.util.find_spec(module)
    # find_spec() also finds folders without code, as namespace packages.
    if spec is None or spec.origin is None:
        return False
    return Path(spec.origin).parent != folder.resolve()
