"""The command new-plugin: a plugin file to start from, and its test."""

from __future__ import annotations

import keyword
import re
from argparse import Namespace
from pathlib import Path

from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.files import write_whole

_TEMPLATES = Path(__file__).parent / 'templates'
_CLASS = 'CLASS'
_IN_A_CONFIG = {
    'source': "source=dict(type='{}', budget=dict(type='Macs', keep=0.5))",
    'budget': "budget=dict(type='{}', units=4)",
    'regularizer': "regularizer=dict(type='{}', strength=1e-4)",
    'stage': "dict(type='{}'), among the stages",
    'handler': 'not at all: a handler is found by the type of the layer',
}
KINDS = tuple(_IN_A_CONFIG)
"""What a plugin can contribute, as ``--kind`` names it."""


def new_plugin_command(args: Namespace) -> int:
    """Run ``easypruner new-plugin``; see its --help for the arguments."""
    plugin, test = write_plugin(args.name, args.kind, Path(args.dir), args.overwrite)
    name = class_name(args.name)
    print(f'wrote {plugin} and {test}')
    print(f'  test it:             pytest {test}')
    print(f'  see it listed:       easypruner plugins --plugins {args.dir}')
    print(f'  name it in a config: {_IN_A_CONFIG[args.kind].format(name)}')
    return 0


def write_plugin(name: str, kind: str, folder: Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Write a plugin that works, and a test that it passes.

    Args:
        name: of the class, or of the file.
        kind: one of :data:`KINDS`.
        folder: for the plugin; the test comes into ``tests`` in it.
        overwrite: whether files that are there are replaced.

    Returns:
        the two files.

    Raises:
        ConfigError: a name that cannot be that of a class, or is taken.
        EasyPrunerError: a file is there already.
    """
    cls = class_name(name)
    _check_free(cls, kind)
    stem = file_stem(cls)
    targets = (folder / f'{stem}.py', folder / 'tests' / f'test_{stem}.py')
    for target in targets:
        if target.exists() and not overwrite:
            raise EasyPrunerError(
                f'{str(target)!r} exists; replace it with --overwrite, or choose another name'
            )
    for target, template in zip(targets, (f'{kind}.txt', f'{kind}_test.txt'), strict=True):
        text = (_TEMPLATES / template).read_text(encoding='utf-8').replace(_CLASS, cls)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text.encode())
    return targets


def class_name(name: str) -> str:
    """Return the name of a class.

    Raises:
        ConfigError: it cannot be one.

    >>> class_name('reader_norm'), class_name('ReaderNorm')
    ('ReaderNorm', 'ReaderNorm')
    """
    cls = ''.join(part[:1].upper() + part[1:] for part in re.split('[_-]', name))
    if not cls.isidentifier() or keyword.iskeyword(cls) or not cls.isascii():
        raise ConfigError(
            f'{name!r} cannot be the name of a plugin; expected one of a Python class or module, '
            'such as ReaderNorm or reader_norm'
        )
    return cls


def file_stem(cls: str) -> str:
    """Return the name of the file for a class.

    >>> file_stem('ReaderNorm'), file_stem('L1Norm'), file_stem('FPGMScore')
    ('reader_norm', 'l1_norm', 'fpgm_score')
    """
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', cls).lower()


def _check_free(cls: str, kind: str) -> None:
    from easypruner.plugins import load_plugins
    from easypruner.registry import REGISTRIES

    load_plugins()
    for registry in REGISTRIES:
        if registry.parameter == kind and cls in registry.module_dict:
            raise ConfigError(
                f'there is a {registry.kind} {cls!r} already; choose another name for yours'
            )
