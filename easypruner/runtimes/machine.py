"""The machine and the versions on which the times of a runtime are measured."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from easypruner.base.cache import processor
from easypruner.report.text import plural
from easypruner.runtimes.runtime import Runtime


def device_name(device: torch.device) -> str:
    """Return the name of the processor of a device."""
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else processor()


def describe_runtime(runtime: Runtime, device: torch.device) -> str:
    """Return the runtime with its version, threads and processor, for people."""
    versions = runtime.versions()
    main = next((name for name in runtime.packages.values() if name in versions), 'torch')
    known = f'{main} {versions[main]}, ' if main in versions else ''
    return f'{runtime.name}, {known}{plural(runtime.threads, "thread")}, {device_name(device)}'


def runtime_arguments(runtime: Runtime) -> dict[str, Any]:
    """Return the arguments of a runtime on which its times depend."""
    names = [name for name in inspect.signature(type(runtime)).parameters if name != 'grid']
    return {name: repr(getattr(runtime, name, None)) for name in names}
