"""Extension of griffe: the roles and double backticks of docstrings become Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r':(?:class|func|meth|attr|data|mod|exc):`~?([^`]*)`')


class DocstringRoles(griffe.Extension):
    """Turns ``:class:`Masks``` into the name in backticks, like all other code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r'`\1`', obj.docstring.value).replace('``', '`')
