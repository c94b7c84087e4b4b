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
            text = _ROLE.sub(r'`\1`', obj.docstring.value).replace('``', '`')
            obj.docstring.value = _SESSION.sub(_fenced, text)


def _fenced(session: re.Match[str]) -> str:
    """Return a session at Python's prompt as a fenced block."""
    indent = session[1]
    return f'{indent}```pycon\n{session[0].rstrip()}\n{indent}```\n'
