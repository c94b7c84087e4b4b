"""Extension of griffe: roles, double backticks and sessions in docstrings become Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r':(?:class|func|meth|attr|data|mod|exc):`~?([^`]*)`')

_SESSION = re.compile(r'^( *)>>> .*\n?(?:\1\S.*\n?)*', re.MULTILINE)


class DocstringRoles(griffe.Extension):
    """Turns ``:class:`Masks``` into the name in backticks, like all other code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """Return a docstring without the markup of reStructuredText."""
    return _SESSION.sub(_fenced, _ROLE.sub(r'`\1`', docstring).replace('``', '`'))


def _fenced(session: re.Match[str]) -> str:
    """Return a session at Python's prompt as a fenced block."""
    indent = session[1]
    return f'{indent}```pycon\n{session[0].rstrip()}\n{indent}```\n'
