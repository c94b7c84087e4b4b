"""The command ``easypruner new-plugin``: a plugin file to start from, and its test."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from easypruner.base.files import write_whole
from easypruner.cli.options import Commands, add_command
from easypruner.errors import ConfigError, EasyPrunerError

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


@dataclass(frozen=True)
class NewPluginArguments:
    """The arguments of ``easypruner new-plugin``.

    Attributes:
        name: of the class, or of the file.
        kind: what the plugin contributes, one of :data:`KINDS`.
        dir: folder for the plugin.
        overwrite: replace files that are there.
    """

    name: str
    kind: str
    dir: str
    overwrite: bool


def add_new_plugin(commands: Commands) -> None:
    """Add the command to the command line."""
    summary = 'write a plugin to start from, and its test'
    parser = add_command(commands, 'new-plugin', NewPluginArguments, new_plugin, summary)
    parser.add_argument('name', metavar='NAME', help='as ReaderNorm or reader_norm')
    parser.add_argument('--kind', required=True, choices=KINDS, help='what it contributes')
    parser.add_argument('--dir', default='my_plugins', metavar='DIR', help='default: my_plugins')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')


def new_plugin(arguments: NewPluginArguments) -> int:
    """Write a plugin and its test, and say what to do with them."""
    folder, kind = arguments.dir, arguments.kind
    plugin, test = write_plugin(arguments.name, kind, Path(folder), arguments.overwrite)
    print(f'wrote {plugin} and {test}')
    print(f'  test it:             pytest {shlex.quote(str(test))}')
    print(f'  see it listed:       easypruner plugins --plugins {shlex.quote(folder)}')
    print(f'  name it in a config: {_IN_A_CONFIG[kind].format(class_name(arguments.name))}')
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
        EasyPrunerError: a file is there already, or cannot be written.
    """
    cls = class_name(name)
    stem = file_stem(cls)
    _check_meaning(cls, kind)
    _check_taken(cls, stem, kind)
    _check_module(stem, folder)
    targets = (folder / f'{stem}.py', folder / 'tests' / f'test_{stem}.py')
    templates = (f'{kind}.txt', f'{kind}_test.txt')
    texts = [_template(template).replace(_CLASS, cls) for template in templates]
    _write_all(dict(zip(targets, texts, strict=True)), overwrite)
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


def _write_all(texts: Mapping[Path, str], overwrite: bool) -> None:
    """Write all files, or leave everything as it was."""
    before = {target: _content(target, overwrite) for target in texts}
    done: list[Path] = []
    try:
        for target, text in texts.items():
            write_whole(target, text)
            done.append(target)
    except OSError as error:
        for other in done:
            _put_back(other, before[other])
        raise _unwritable(target, error) from error


def _content(target: Path, overwrite: bool) -> bytes | None:
    """Return what is in a file that is to be replaced; None where there is none."""
    try:
        if not target.exists():
            return None
        content = target.read_bytes()
    except OSError as error:
        raise _unwritable(target, error) from error
    if not overwrite:
        raise EasyPrunerError(
            f'{str(target)!r} exists; replace it with --overwrite, or choose another name'
        )
    return content


def _put_back(target: Path, content: bytes | None) -> None:
    if content is None:
        target.unlink()
    else:
        write_whole(target, content)


def _unwritable(target: Path, error: OSError) -> EasyPrunerError:
    return EasyPrunerError(
        f'{str(target)!r} cannot be written: {error.strerror}; choose another --dir or name'
    )


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding='utf-8')


def _check_meaning(cls: str, kind: str) -> None:
    """Raise ConfigError if the files use the name for something else, such as ``Tensor``."""
    nodes = [
        node
        for name in (f'{kind}.txt', f'{kind}_test.txt')
        for node in ast.walk(ast.parse(_template(name)))
    ]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    if cls in used or hasattr(builtins, cls):
        raise ConfigError(
            f'{cls!r} means something else in Python or in a plugin file; '
            'choose another name for yours'
        )


def _check_taken(cls: str, stem: str, kind: str) -> None:
    """Raise ConfigError if the names of the class or of the plugin are those of others."""
    # The packages need torch, for which --help need not wait.
    from easypruner.plugins import load_plugins
    from easypruner.plugins.registry import REGISTRIES

    plugins = load_plugins(skip_broken=True)
    (registry,) = (registry for registry in REGISTRIES if registry.parameter == kind)
    for other in registry.classes:
        # Two names that differ in their capitals are mistaken for each other.
        if other.lower() == cls.lower():
            raise ConfigError(
                f'there is a {registry.kind} {other!r} already; choose another name for yours'
            )
    loaded = {plugin.name: plugin.origin for plugin in plugins.plugins}
    absent = {plugin.name: plugin.origin for plugin in (*plugins.disabled, *plugins.skipped)}
    for name, origin in (loaded | absent).items():
        if name == stem:
            raise ConfigError(
                f'there is a plugin {stem!r} already, {origin}, and plugins are disabled by name; '
                'choose another name for yours'
            )


def _check_module(stem: str, folder: Path) -> None:
    """Raise ConfigError if the file cannot be imported, or hides a module that others import."""
    used = keyword.iskeyword(stem) or stem in sys.stdlib_module_names or stem in sys.modules
    if used or _is_installed(stem, folder):
        raise ConfigError(
            f'the file would be {stem}.py, but {stem!r} is a word or a module of Python, or of '
            'an installed package; choose another name for yours'
        )


def _is_installed(module: str, folder: Path) -> bool:
    """Tell whether there is a module of a name elsewhere than in a folder."""
    spec = importlib.util.find_spec(module)
    # A folder without code is found as a package too.
    if spec is None or spec.origin is None:
        return False
    return Path(spec.origin).parent != folder.resolve()
