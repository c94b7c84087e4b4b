"""The pruning choice: which parts of a model may be pruned."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from torch import nn

from easypruner.base.checks import check_name, refuse
from easypruner.errors import ConfigError, nearest
from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.graph.limits import Limits
from easypruner.graph.recording.outputs import ALL_OUTPUTS, CountedOutputs, Outputs

Attention = Literal['width', 'heads', 'query_heads']
Grouped = Literal['within', 'whole']
Ignored = str | type[nn.Module]
Uniform = bool | str | Iterable[str]


@dataclass(frozen=True)
class PruningChoice:
    """What may be pruned.

    Attributes:
        ignore: modules whose channels stay: paths, globs, names of classes, or classes. Their
            inputs may still lose channels.
        limits: path, glob or name of a group -> its limits. The first that fits counts.
        attention: ``'width'`` removes width of every head of an attention, ``'heads'`` whole heads,
            ``'query_heads'`` heads of queries alone where several share a head of keys and values.
        grouped: ``'whole'`` removes whole groups of a grouped convolution, ``'within'`` the same
            channels within each of its groups.
        uniform: paths, globs or names of groups that keep as many units as others of their kind.
        experts: whether whole experts of a mixture may go.
        outputs: which outputs count.
    """

    ignore: tuple[Ignored, ...] = ()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    attention: Attention = 'width'
    grouped: Grouped = 'within'
    uniform: tuple[str, ...] = ()
    experts: bool = True
    outputs: CountedOutputs = ALL_OUTPUTS

    @classmethod
    def of(
        cls,
        ignore: Ignored | Iterable[Ignored] = (),
        limits: Limits | Mapping[str, Any] | None = None,
        attention: Attention = 'width',
        grouped: Grouped = 'within',
        uniform: Uniform = False,
        outputs: Outputs | None = None,
    ) -> PruningChoice:
        """Return the choice for the arguments of :func:`easypruner.trace`.

        Raises:
            ConfigError: an argument cannot be used.
        """
        check_name(attention, 'attention', 'trace', get_args(Attention))
        check_name(grouped, 'grouped', 'trace', get_args(Grouped))
        listed = (ignore,) if isinstance(ignore, str | type) else tuple(ignore)
        for entry in listed:
            if not isinstance(entry, str) and not (
                isinstance(entry, type) and issubclass(entry, nn.Module)
            ):
                raise ConfigError(
                    f'ignore has {entry!r}; expected the path of a module, a glob, '
                    'the name of a class, or a class of modules'
                )
        alike, counted = _read_uniform(uniform), CountedOutputs.of(outputs)
        return cls(listed, _read_limits(limits), attention, grouped, alike, outputs=counted)

    def ignored(self, modules: Mapping[str, nn.Module]) -> dict[str, str]:
        """Return path -> entry of ``ignore``, for the modules that fit an entry and their parts.

        Raises:
            ConfigError: an entry fits no module.
        """
        found: dict[str, str] = {}
        for entry in self.ignore:
            name = entry if isinstance(entry, str) else entry.__name__
            paths = [path for path, module in modules.items() if _fits(entry, path, module)]
            if not paths:
                known = {*modules, *(type(module).__name__ for module in modules.values())} - {''}
                raise ConfigError(
                    f'ignore has {name!r}, which fits no module; {nearest(name, known)}'
                )
            for path in modules:
                if any(path == p or not p or path.startswith(p + '.') for p in paths):
                    found.setdefault(path, name)
        return found

    def limits_of(
        self, groups: Mapping[str, ChannelGroup], excused: Container[str] = ()
    ) -> dict[str, Limits]:
        """Return group -> its limits, for the groups that have limits.

        Args:
            groups: the groups of a graph.
            excused: the patterns that may fit no group.

        Raises:
            ConfigError: another pattern fits no group.
        """
        found = first_fitting(self.limits, groups, 'limits', excused)
        uniform = first_fitting(dict.fromkeys(self.uniform, True), groups, 'uniform', self.uniform)
        for name in uniform:
            own = found.get(name, Limits())
            found[name] = replace(own, uniform=own.uniform or True)
        return found


def _read_limits(limits: Limits | Mapping[str, Any] | None) -> dict[str, Limits]:
    """Return pattern -> limits."""
    if limits is None:
        return {}
    if not isinstance(limits, Limits | Mapping):
        expected = 'easypruner.Limits, a dict of its attributes, or a dict of such for groups'
        refuse(limits, 'limits', 'trace', expected)
    known = {entry.name for entry in fields(Limits)}
    if isinstance(limits, Limits) or limits.keys() <= known:
        return {'*': Limits.of(limits)}
    for name, values in limits.items():
        if not isinstance(values, Limits | Mapping):
            if name in known:
                raise ConfigError(
                    f'limits has {name!r}, a limit of all groups, beside '
                    f'{_other(limits, known)!r}, which names groups; write it as '
                    f'{{"*": {{{name!r}: ...}}}}, at the end'
                )
            raise ConfigError(f'{name!r} is not a limit of a group; {nearest(name, known)}')
    return {pattern: Limits.of(values) for pattern, values in limits.items()}


def _other(limits: Mapping[str, Any], known: Container[str]) -> str:
    return next(name for name in limits if name not in known)


def _read_uniform(uniform: Uniform) -> tuple[str, ...]:
    """Return the patterns of groups that are uniform."""
    if isinstance(uniform, bool):
        return ('*',) if uniform else ()
    patterns = (uniform,) if isinstance(uniform, str) else uniform
    if not isinstance(patterns, list | tuple | set) or not all(
        isinstance(pattern, str) for pattern in patterns
    ):
        expected = 'True, False, or paths, globs or names of groups'
        refuse(uniform, 'uniform', 'trace', expected)
    return tuple(patterns)


def _fits(entry: Ignored, path: str, module: nn.Module) -> bool:
    if isinstance(entry, str):
        return fnmatchcase(path, entry) or entry in {base.__name__ for base in type(module).__mro__}
    return isinstance(module, entry)
