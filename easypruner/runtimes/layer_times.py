"""The times of single layers in a runtime on this machine, measured once and kept in a file."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.cache import cache_folder
from easypruner.base.checks import is_number
from easypruner.base.files import write_json
from easypruner.base.json_fields import content_hash, read_json
from easypruner.base.randomness import fixed_seed
from easypruner.errors import EasyPrunerError
from easypruner.runtimes.layers import LayerForm, Widths
from easypruner.runtimes.machine import device_name, runtime_arguments
from easypruner.runtimes.passes import synchronized
from easypruner.runtimes.runtime import Runtime, Session
from easypruner.runtimes.timing import Clock, measure

FORMAT = 'easypruner.layer_times/2'
_AT_ONCE = 32
_REPEATS = 15
_WARMUP = 3
_CALL = 'a call'
"""The key of the time that a pass takes besides the layers in it."""
_REFERENCE = 'the reference'
"""The key of the time of a layer that is timed with all others: a machine's speed changes."""
_CHAIN = 9
_LEAST = 0.1
"""The smallest share of a layer's time that is left when that of a call is taken off."""

Layer = tuple[LayerForm, Widths]


class LayerTimes:
    """Times single layers in a runtime. What was measured before is read from a file.

    The file belongs to the runtime with its arguments, the versions, the processor and the clock.
    Networks share its entries: an entry is a layer with its extents and widths. Layers that are
    measured at different moments are comparable, because a reference layer is measured with them,
    and all times are those at which the reference takes as long as it did first.

    Args:
        runtime: the runtime.
        device: the device on which the layers are.

    Attributes:
        clock: the clock.
        machine: what the times depend on.
        path: the file.
    """

    def __init__(self, runtime: Runtime, device: torch.device) -> None:
        self._runtime = runtime
        self._device = device
        # The time of a process counts each of its threads.
        alone = runtime.threads == 1 and device.type == 'cpu'
        self.clock: Clock = runtime.clock if alone else 'wall'
        self.machine = _describe(runtime, device, self.clock)
        name = f'{runtime.name}-{content_hash(self.machine)[:16]}.json'
        self.path = cache_folder() / 'layers' / name
        self._known: dict[str, float] = {}
        self._slowness = 1.0

    def seconds(self, layers: Iterable[Layer]) -> dict[Layer, float]:
        """Return the seconds of each layer in a network. Those that are not known are measured.

        What the call of a network takes besides its layers is not a part of them. A layer that the
        runtime cannot express is left out.
        """
        wanted = list(dict.fromkeys(layers))
        self._known |= _read(self.path)
        missing = [layer for layer in wanted if _key(layer) not in self._known]
        # Random weights: what follows must not depend on which layers were known.
        with fixed_seed(0):
            if wanted and _CALL not in self._known:
                self._known[_CALL] = self._measure_call()
            for start in range(0, len(missing), _AT_ONCE):
                self._known |= self._measure(missing[start : start + _AT_ONCE])
        if missing:
            self._save()
        call = self._known.get(_CALL, 0.0)
        times = {layer: self._known.get(_key(layer)) for layer in wanted}
        return {
            layer: max(seconds - call, _LEAST * seconds)
            for layer, seconds in times.items()
            if seconds is not None
        }

    def at_first(self, seconds: float) -> float:
        """Return what was measured now as the time that it would have taken at first.

        Args:
            seconds: the time of a network in the runtime, measured just before.
        """
        self._known |= _read(self.path)
        self._timed([])
        return seconds / self._slowness

    def _measure_call(self) -> float:
        """Return the time of a small network that more layers would not take."""
        chain = [nn.Conv2d(16, 16, 1).requires_grad_(False) for _ in range(_CHAIN)]
        inputs = torch.rand(1, 16, 2, 2, device=self._device)
        built = [
            (nn.Sequential(*layers).eval().to(self._device), inputs)
            for layers in (chain[:1], chain)
        ]
        short, long = self._timed(built)
        if short is None or long is None:
            return 0.0
        return max(short - (long - short) / (_CHAIN - 1), 0.0)

    def _measure(self, layers: Sequence[Layer]) -> dict[str, float]:
        found = self._timed([form.build(widths) for form, widths in layers])
        keys = map(_key, layers)
        return {key: each for key, each in zip(keys, found, strict=True) if each is not None}

    def _timed(self, built: Sequence[tuple[nn.Module, Tensor]]) -> list[float | None]:
        """Return the seconds of a pass of each network; None for those without a session."""
        everything = [*built, self._reference()]
        sessions = self._sessions(everything)
        bound = {
            number: (synchronized(session.bind(inputs), self._device), inputs)
            for number, ((_, inputs), session) in enumerate(zip(everything, sessions, strict=True))
            if session is not None
        }
        if not bound:
            return [None] * len(built)
        timed = measure(
            [run for run, _ in bound.values()],
            threads=self._runtime.threads,
            repeats=_REPEATS,
            warmup=_WARMUP,
            clock=self.clock,
            # In a network, the layer before has just written the input.
            before=[inputs.sum for _, inputs in bound.values()],
            settle=False,
        )
        seconds = {n: each.fastest for n, each in zip(bound, timed, strict=True)}
        reference = seconds.pop(len(built), 0.0)
        if reference:
            self._slowness = reference / self._known.setdefault(_REFERENCE, reference)
        found = {number: each / self._slowness for number, each in seconds.items()}
        return [found.get(number) for number in range(len(built))]

    def _reference(self) -> tuple[nn.Module, Tensor]:
        layer = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False).eval()
        return layer.to(self._device), torch.rand(1, 64, 28, 28, device=self._device)

    def _sessions(self, built: Sequence[tuple[Any, Any]]) -> list[Session | None]:
        try:
            return list(self._runtime.layer_sessions(built))
        except EasyPrunerError:
            if len(built) == 1:
                return [None]
        return [session for one in built for session in self._sessions([one])]

    def _save(self) -> None:
        # Another process may have measured other layers meanwhile.
        known = _read(self.path) | self._known
        entries = {key: _entry(key, known[key]) for key in sorted(known)}
        # Without a file, the layers are measured again next time.
        with contextlib.suppress(OSError):
            write_json(self.path, {'format': FORMAT, 'machine': self.machine, 'entries': entries})


def _key(layer: Layer) -> str:
    form, widths = layer
    return form.key(widths)


def _entry(key: str, seconds: float) -> dict[str, Any]:
    return {'seconds': seconds, 'hash': content_hash({key: seconds})[:16]}


def _read(path: Path) -> dict[str, float]:
    """Return the undamaged entries of a file; nothing without a file."""
    try:
        content = read_json(path).value
        entries: Any = content['entries'] if content['format'] == FORMAT else {}
    except (EasyPrunerError, KeyError, TypeError):
        return {}
    known = {}
    for key, entry in entries.items() if isinstance(entries, Mapping) else ():
        seconds: Any = entry.get('seconds') if isinstance(entry, Mapping) else None
        if is_number(seconds) and seconds >= 0 and entry == _entry(key, seconds):
            known[key] = seconds
    return known


def _describe(runtime: Runtime, device: torch.device, clock: Clock) -> dict[str, Any]:
    """Return everything that the time of a layer depends on, besides the layer."""
    return {
        'runtime': runtime.name,
        'arguments': runtime_arguments(runtime),
        'versions': runtime.versions(),
        'processor': device_name(device),
        'system': f'{platform.system()} {platform.machine()}',
        'clock': clock,
    }
