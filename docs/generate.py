"""Generates parts of plugins.md: the hooks, and an example of each kind of plugin.

Run ``python docs/generate.py`` after a change in easypruner/hookspecs.py or
easypruner/cli/templates.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from easypruner import hookspecs
from easypruner.base.files import write_whole

PAGE = Path(__file__).with_name('plugins.md')
TEMPLATES = Path(hookspecs.__file__).with_name('cli') / 'templates'
HOOKS = 'easypruner/hookspecs.py'
EXAMPLES = {
    'budget': 'BestUnits',
    'regularizer': 'FilterDecay',
    'stage': 'Halve',
    'transform': 'Bfloat16Weights',
    'runtime': 'TorchPrograms',
    'handler': 'Keeper',
}
"""Kind of plugin -> the name of its example on the page."""

_BEGIN = '<!-- generated from {} by docs/generate.py: begin -->'
_END = '<!-- generated: end -->'

_SECTION = re.compile(r'^Args:\n((?:    .*\n|\n)*)', re.MULTILINE)
_ARGUMENT = re.compile(r'^    (\w+): ((?:.*)(?:\n        .*)*)', re.MULTILINE)


def hook_reference() -> str:
    """Return the reference of all hooks as Markdown."""
    hooks = [value for name, value in vars(hookspecs).items() if name.startswith('easypruner_')]
    return '\n'.join(_section(hook) for hook in hooks)


def example(kind: str, name: str) -> str:
    """Return the file that ``easypruner new-plugin`` writes for a kind, as Markdown."""
    code = (TEMPLATES / f'{kind}.txt').read_text(encoding='utf-8').replace('CLASS', name)
    return f'```python\n{code}```\n'


def updated(page: str) -> str:
    """Return ``page`` with new text between the markers."""
    parts = {
        f'easypruner/cli/templates/{kind}.txt': example(kind, n) for kind, n in EXAMPLES.items()
    }
    for origin, text in {**parts, HOOKS: hook_reference()}.items():
        begin = _BEGIN.format(origin)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(_END)
        page = f'{before}{begin}\n\n{text}\n{_END}{after}'
    return page


def _section(hook: Callable[..., object]) -> str:
    text = f'{inspect.getdoc(hook)}\n'.replace('``', '`')
    text = _SECTION.sub(lambda section: _ARGUMENT.sub(_bullet, section[1]), text)
    return f'### `{hook.__name__}`\n\n```python\n{signature(hook)}\n```\n\n{text}'


def _bullet(argument: re.Match[str]) -> str:
    words = ' '.join(argument[2].split())
    return f'- `{argument[1]}`: {words}'


def signature(hook: Callable[..., object]) -> str:
    """Return the first line of a hook's definition, as in a plugin."""
    form = inspect.signature(hook)
    parameters = ', '.join(f'{name}: {p.annotation}' for name, p in form.parameters.items())
    return f'def {hook.__name__}({parameters}) -> {form.return_annotation}:'


if __name__ == '__main__':
    write_whole(PAGE, updated(PAGE.read_text(encoding='utf-8')))
