"""Which outputs of a model count: their channels stay. Those of the others may be removed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from easypruner.base.describe import describe
from easypruner.base.nested import tensors_in
from easypruner.errors import ConfigError, nearest

Outputs = str | int | Sequence[str | int] | Callable[[Any], Any]
"""Names of outputs, or a function that returns those of a model's output that count."""

Found = tuple[tuple[str, Tensor], ...]
"""(path, tensor) of outputs."""

_EXPECTED = (
    "the name of an output such as 'logits', a path such as \"[1]['boxes']\", a list of them, or a "
    "function of the model's output that returns the tensors that count"
)
_PART = re.compile(r"\[(?:'([^']*)'|\"([^\"]*)\"|([^]]*))]|([^.[\]]+)")


def dotted(path: str) -> str:
    """Return the path of an output in dots, in whichever way it is written.

    >>> dotted("[1]['feats'][0]"), dotted('.logits'), dotted('logits')
    ('1.feats.0', 'logits', 'logits')
    """
    return '.'.join(next(filter(None, part), '') for part in _PART.findall(path))


@dataclass(frozen=True)
class CountedOutputs:
    """Chooses the outputs that count. By default all of them do.

    Attributes:
        chosen: dotted names, of which globs are allowed; or a function; None for all.
        strict: whether a choice that does not fit an output is an error. If not, all of it counts.
    """

    chosen: tuple[str, ...] | Callable[[Any], Any] | None = None
    strict: bool = True

    @classmethod
    def of(cls, outputs: Any) -> CountedOutputs:
        """Return the choice for the argument ``outputs`` of :func:`easypruner.trace`.

        Raises:
            ConfigError: it cannot be used.
        """
        if outputs is None or callable(outputs):
            return cls(outputs)
        listed = [outputs] if isinstance(outputs, str | int) else outputs
        if (
            not isinstance(listed, list | tuple)
            or not listed
            or not all(isinstance(n, str | int) and not isinstance(n, bool) for n in listed)
        ):
            raise ConfigError(f'outputs={describe(outputs)} of trace; expected {_EXPECTED}')
        return cls(tuple(dotted(str(name)) for name in listed))

    def elsewhere(self) -> CountedOutputs:
        """Return the choice for further calls of the model, which may return something else."""
        return replace(self, strict=False)

    def select(self, output: Any) -> Found:
        """Return (path, tensor) of each tensor that counts in what the model returned.

        Raises:
            ConfigError: the choice does not fit the output.
        """
        every = tuple(tensors_in(output))
        if self.chosen is None:
            return every
        try:
            return self._called(output, every) if callable(self.chosen) else self._named(every)
        except ConfigError:
            if self.strict:
                raise
            return every

    def _named(self, every: Found) -> Found:
        names = {path: dotted(path) for path, _ in every}
        counted: set[str] = set()
        assert isinstance(self.chosen, tuple)
        for chosen in self.chosen:
            fitting = {path for path, name in names.items() if _fits(chosen, name)}
            if not fitting:
                hint = nearest(chosen, names.values())
                raise ConfigError(f'outputs has {chosen!r}, which is not an output; {hint}')
            counted |= fitting
        return tuple((path, tensor) for path, tensor in every if path in counted)

    def _called(self, output: Any, every: Found) -> Found:
        assert callable(self.chosen)
        try:
            found = [tensor for _, tensor in tensors_in(self.chosen(output))]
        except Exception as error:
            raise ConfigError(
                f'the function outputs= fails on the output of the model, {describe(output)}: '
                f'{type(error).__name__}: {error}'
            ) from error
        known = {id(tensor) for _, tensor in every}
        if not found or any(id(tensor) not in known for tensor in found):
            raise ConfigError(
                'the function outputs= returns '
                + ('a tensor that it has computed' if found else 'no tensor')
                + '; expected tensors that the model returns: '
                + ', '.join(path for path, _ in every)
            )
        counted = {id(tensor) for tensor in found}
        return tuple((path, tensor) for path, tensor in every if id(tensor) in counted)


ALL_OUTPUTS = CountedOutputs()
"""All outputs of a model count."""


def _fits(chosen: str, name: str) -> bool:
    """Return whether a name or glob means an output, or what it is inside of."""
    parts = name.split('.')
    return any(fnmatchcase('.'.join(parts[:end]), chosen) for end in range(1, len(parts) + 1))
