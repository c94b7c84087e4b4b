"""Writes the generated part of plugins.md: the reference of the hooks, from their definitions.

Run it after a change of the hooks: ``python docs/generate.py``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from easypruner import hookspecs
from easypruner.files import write_whole

PAGE = Path(__file__).with_name('plugins.md')
BEGIN = '<!-- generated from easypruner/hookspecs.py by docs/generate.py: begin -->'
END = '<!-- generated: end -->'

_SECTION = re.compile(r'^Args:\n((?:    .*\n|\n)*)', re.MULTILINE)
_ARGUMENT = re.compile(r'^    (\w+): ((?:.*)(?:\n        .*)*)', re.MULTILINE)


def hook_reference() -> str:
    """Return the reference of all hooks as Markdown."""
    hooks = [value for name, value in vars(hookspecs).items() if name.startswith('easypruner_')]
    return '\n'.join(_section(hook) for hook in hooks)


def updated(page: str) -> str:
    """Return ``page`` with the part between the markers written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f'{before}{BEGIN}\n\n{hook_reference()}\n{END}{after}'


def _section(hook: Callable[..., object]) -> str:
    text = f'{inspect.getdoc(hook)}\n'.replace('``', '`')
    text = _SECTION.sub(lambda section: _ARGUMENT.sub(_bullet, section[1]), text)
    return f'### `{hook.__name__}`\n\n```python\n{signature(hook)}\n```\n\n{text}'


def _bullet(argument: re.Match[str]) -> str:
    words = ' '.join(argument[2].split())
    return f'- `{argument[1]}`: {words}'


def signature(hook: Callable[..., object]) -> str:
    """Return the head of a hook's definition, as a plugin writes it."""
    form = inspect.signature(hook)
    parameters = ', '.join(f'{name}: {p.annotation}' for name, p in form.parameters.items())
    return f'def {hook.__name__}({parameters}) -> {form.return_annotation}:'


if __name__ == '__main__':
    write_whole(PAGE, updated(PAGE.read_text(encoding='utf-8')))
