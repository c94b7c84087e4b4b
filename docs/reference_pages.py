"""The pages of the reference: the public names of each package, documented by mkdocstrings."""

from __future__ import annotations

from importlib import import_module

from docstring_roles import as_markdown

PACKAGES = (
    'easypruner',
    'easypruner.slimming',
    'easypruner.strategies',
    'easypruner.graph',
    'easypruner.analysis',
    'easypruner.plugins',
    'easypruner.hookspecs',
    'easypruner.checkpoints',
    'easypruner.testing',
    'easypruner.errors',
)
"""Packages with a page. A name of several packages is documented on the page of the first."""
MODULES = ('easypruner.integrations.accelerate', 'easypruner.integrations.lightning',
           'easypruner.integrations.transformers')  # fmt: skip
"""Modules that need a library which may be absent: they are read, but not imported."""


def reference_pages() -> dict[str, str]:
    """Return path -> text of all pages of the reference."""
    pages: dict[str, str] = {}
    where: dict[int, str] = {}
    for package in PACKAGES:
        pages[f'reference/{package}.md'] = _page(package, where)
    for module in MODULES:
        options = '    options: {heading_level: 1, members_order: source, filters: ["!^_"]}'
        pages[f'reference/{module}.md'] = f'::: {module}\n{options}\n'
    lines = [f'- [`{name}`]({name}.md)' for name in (*PACKAGES, *MODULES)]
    text = (
        '# Reference\n\nThe public names of each package, from their docstrings. Everything else '
        'may change.\n\n'
    )
    pages['reference/index.md'] = f'{text}{chr(10).join(lines)}\n'
    return pages


def _page(package: str, where: dict[int, str]) -> str:
    """Return the page of a package; ``where`` has the names that other pages document."""
    module = import_module(package)
    own, others = [], []
    for name in public_names(package):
        value = getattr(module, name)
        full = where.setdefault(id(value), f'{package}.{name}')
        if full == f'{package}.{name}':
            own.append(f'::: {full}\n')
        else:
            others.append(f'[`{name}`][{full}]')
    parts = [f'# {package}', as_markdown(module.__doc__ or '').strip()]
    if others:
        parts.append('Documented elsewhere: ' + ', '.join(others) + '.')
    return '\n\n'.join([*parts, *own])


def public_names(package: str) -> list[str]:
    """Return the public names of a package: ``__all__``, or what it defines itself."""
    module = import_module(package)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith('_') and getattr(value, '__module__', None) == package
    ]
    return list(getattr(module, '__all__', own))
