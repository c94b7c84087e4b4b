"""After a cut: the configs of networks of Hugging Face follow, or their folders need our door."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from easypruner.graph.pretrained.building import (
    build_empty,
    compare,
    find_pretrained,
    stale_numbers,
)
from easypruner.graph.pretrained.saving import CutRecord, SavePruned, saver_of
from easypruner.graph.pretrained.search import ConfigSearch, explain
from easypruner.graph.recording.config_numbers import attribute_of, is_config, numbers_of
from easypruner.graph.recording.inventory import Attributes, dotted_name

Configs = Mapping[nn.Module, Any]
"""Networks of Hugging Face -> their configs before a cut."""


def is_of_config(modules: Mapping[str, nn.Module], key: tuple[str, str]) -> bool:
    """Return whether an entry of a record's attributes is a number of a config of Hugging Face.

    Args:
        modules: dotted path -> module.
        key: the path of a module, and the name of a number.
    """
    path, name = key
    return '.' in name and is_config(vars(modules[path]).get(name.partition('.')[0]))


def configs_of(model: nn.Module) -> Configs:
    """Return the config of each network of Hugging Face in a model, also of inner ones."""
    return {network: network.config for network in find_pretrained(model, nested=True).values()}


def follow(
    model: nn.Module, record: CutRecord, configs: Configs, behaviour: Callable[[], Any]
) -> Attributes:
    """Set the configs of the networks of Hugging Face in a model to their widths after a cut.

    A config is set if it describes the whole network, and if that does not change what the forward
    pass computes. Otherwise it stays, and the network is saved with its record.

    Args:
        model: the model after the cut.
        record: the record of the cut.
        configs: what :func:`configs_of` returned before the cut.
        behaviour: returns what the forward pass computes, to be compared.

    Returns:
        what was set: (path of a module, name of a number) -> value.
    """
    done: dict[tuple[str, str], Any] = {}
    for path, network in find_pretrained(model).items():
        if _concerns(path, record):
            done |= _follow_one(path, network, record, configs, behaviour)
    return done


def _concerns(path: str, record: CutRecord) -> bool:
    return any(not path or name.startswith(f'{path}.') for name in record.tensors)


def _follow_one(
    path: str,
    network: Any,
    record: CutRecord,
    configs: Configs,
    behaviour: Callable[[], Any],
) -> dict[tuple[str, str], Any]:
    own = record.within(path)
    earlier = saver_of(network)
    total = own if earlier is None else earlier.record.then(own)
    try:
        search = ConfigSearch(network, network.config, _set_by(total.attributes))
        config = search.run()
        reason = '' if config is not None else explain(network, search.left)
    except Exception as error:
        kind = type(network).__name__
        reason = f'{kind} cannot be built from its config: {type(error).__name__}: {error}'
        config = None
    if config is not None:
        change = _Change.of(network, search)
        if change is None:
            reason = 'its config would change in more than whole numbers'
        elif _keeps_behaviour(change, behaviour):
            _unmark(network)
            return {
                (f'{path}.{part}'.strip('.'), name): value
                for (part, name), value in change.named.items()
            }
        else:
            reason = 'its forward pass computes with numbers of its config, not only with widths'
    _mark(network, total, reason, configs)
    return {}


def _set_by(attributes: Attributes) -> set[str]:
    return {dotted_name(path, name) for path, name in attributes}


def _keeps_behaviour(change: _Change, behaviour: Callable[[], Any]) -> bool:
    """Make a change if the forward pass computes the same afterwards; else leave all as it was."""
    try:
        before = behaviour()
        change.apply()
        if before == behaviour():
            return True
    except Exception:
        pass  # a forward pass that fails is not the same
    change.undo()
    return False


@dataclass(frozen=True)
class _Change:
    """New configs, and numbers of modules that follow them.

    Attributes:
        named: (path of a module, name of a number) -> value. That of a number of a config starts
            with the name of the config: ``config.hidden_size``.
        after: module -> its attributes that change, with their values.
        before: the same, with the values of now.
    """

    named: Mapping[tuple[str, str], Any]
    after: Mapping[nn.Module, Mapping[str, Any]]
    before: Mapping[nn.Module, Mapping[str, Any]]

    @classmethod
    def of(cls, network: Any, search: ConfigSearch) -> _Change | None:
        """Return the change that a search has found; None if a record cannot have it."""
        named: dict[tuple[str, str], Any] = dict(stale_numbers(network, search.built))
        built, base = (dict(n.named_modules()) for n in (search.built, search.base))
        seen: set[int] = set()
        for path, module in network.named_modules():
            for name, own in _configs_of(module):
                if id(own) in seen or path not in built or path not in base:
                    continue
                seen.add(id(own))
                new, old = (vars(n[path]).get(name) for n in (built, base))
                for key, value in _changed(new, old):
                    if numbers_of(value) is None:
                        return None
                    named[path, f'{name}.{key}'] = value
        after = _prepared(network, named)
        before = {m: {n: vars(m)[n] for n in values} for m, values in after.items()}
        return cls(named, after, before)

    def apply(self) -> None:
        """Set everything."""
        _set_all(self.after)

    def undo(self) -> None:
        """Set everything back."""
        _set_all(self.before)


def _set_all(values: Mapping[nn.Module, Mapping[str, Any]]) -> None:
    for module, attributes in values.items():
        vars(module).update(attributes)


def _configs_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(module).items() if is_config(value))


def _changed(new: Any, old: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the names and values of what differs between two configs, and in those in them."""
    if not is_config(new) or not is_config(old):
        return
    for name in new.to_dict():
        value, before = getattr(new, name, None), getattr(old, name, None)
        if is_config(value):
            yield from _changed(value, before, f'{prefix}{name}.')
        elif value != before:
            yield f'{prefix}{name}', value


def _prepared(network: nn.Module, named: Attributes) -> dict[nn.Module, dict[str, Any]]:
    """Return module -> its attributes to be set, with copies of configs.

    A config may belong to another network as well, which does not change.
    """
    modules = dict(network.named_modules())
    after: dict[nn.Module, dict[str, Any]] = {}
    if any('.' in name for _, name in named):
        memo: dict[int, Any] = {}
        for module in modules.values():
            for name, own in _configs_of(module):
                after.setdefault(module, {})[name] = copy.deepcopy(own, memo)
    homes: dict[int, str] = {}
    for path, module in modules.items():
        for name in after.get(module, {}):
            homes.setdefault(id(after[module][name]), path)
    for (path, name), value in named.items():
        module = modules[path]
        first, _, rest = name.partition('.')
        if not rest:
            after.setdefault(module, {})[name] = value
            continue
        config = after[module][first]
        if homes.get(id(config), path) != path and attribute_of(module, name) is not None:
            # Other modules share it, and keep their number.
            if vars(config).get(rest) == value:
                continue
            config = after[module][first] = copy.copy(config)
            homes[id(config)] = path
        _set_number(config, rest, value)
    return after


def _set_number(config: Any, name: str, value: Any) -> None:
    *inner, last = name.split('.')
    for part in inner:
        config = getattr(config, part)
    # A record has tuples where a config has lists.
    is_list = isinstance(getattr(config, last, None), list)
    setattr(config, last, list(value) if is_list else value)


def set_again(model: nn.Module, attributes: Attributes) -> None:
    """Set the numbers of configs that a record has, as when the cut was made."""
    _set_all(_prepared(model, attributes))


def check(model: nn.Module, record: CutRecord, configs: Configs) -> None:
    """After a cut by a record: networks whose config does not describe them are saved with it.

    Args:
        model: the model after the cut.
        record: the record of the cut.
        configs: what :func:`configs_of` returned before the cut.
    """
    for path, network in find_pretrained(model).items():
        if not _concerns(path, record):
            continue
        own = record.within(path)
        try:
            built = build_empty(type(network), network.config)
            left = compare(network, built, built, _set_by(own.attributes))
            reason = explain(network, left) if left else ''
        except Exception as error:
            kind = type(network).__name__
            reason = f'{kind} cannot be built from its config: {type(error).__name__}: {error}'
        if reason:
            earlier = saver_of(network)
            total = own if earlier is None else earlier.record.then(own)
            _mark(network, total, reason, configs)


def _mark(network: Any, record: CutRecord, reason: str, configs: Configs) -> None:
    """Let networks of Hugging Face, also inner ones, be saved with the record."""
    for path, inner in find_pretrained(network, nested=True).items():
        own = record.within(path)
        if own.tensors:
            earlier = saver_of(inner)
            config = configs[inner] if earlier is None else earlier.config
            vars(inner)['save_pretrained'] = SavePruned(inner, own, reason, config)


def _unmark(network: Any) -> None:
    for inner in find_pretrained(network, nested=True).values():
        if saver_of(inner) is not None:
            del vars(inner)['save_pretrained']
