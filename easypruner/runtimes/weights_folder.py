"""A folder with weights as safetensors and the widths as JSON, which loads without EasyPruner."""

from __future__ import annotations

import inspect
import io
import os
import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from easypruner.base.files import write_json
from easypruner.base.modules import copy_of, evaluating
from easypruner.base.randomness import fixed_seed
from easypruner.graph.recording.config_numbers import numbers_of
from easypruner.runtimes import load_widths
from easypruner.runtimes.difference import relative_error, tolerance_of
from easypruner.runtimes.program import outputs_of, quiet

WEIGHTS, WIDTHS, LOADER = 'model.safetensors', 'widths.json', 'load_widths.py'


def write_weights(
    network: nn.Module, inputs: Any, folder: Path, original: nn.Module | None
) -> tuple[str, ...]:
    """Write the weights of a network, and what is needed to load them; return notes on that.

    A network of Hugging Face whose widths its config can express gets a folder for
    ``from_pretrained``. Any other gets its weights, the tensors and numbers that are attributes of
    its modules, and a program of some lines that puts them into the original network.

    Args:
        network: the network, in evaluation mode.
        inputs: its example inputs, on which what was loaded is compared with it.
        folder: a folder, which is created.
        original: the network before the cuts, on which the loading is tried; None if it is not
            known.
    """
    folder.mkdir(parents=True)
    if _write_pretrained(network, inputs, folder):
        return (f'{folder.name}/ loads with {type(network).__name__}.from_pretrained',)
    attributes = _attributes(network, original)
    state = _distinct({**_state(network), **attributes})
    save_file(state, folder / WEIGHTS)
    # The library gives the file to its owner only.
    (folder / WEIGHTS).chmod(0o666 & ~_umask())
    write_json(
        folder / WIDTHS,
        {
            'model': type(network).__name__,
            'numbers': numbers(network, original),
            'attributes': [name for name in attributes if name in state],
        },
    )
    if original is not None and not _loads(network, inputs, folder, original):
        return (
            f'{folder.name}/ has the weights; only easypruner.load_pruned rebuilds this network',
        )
    (folder / LOADER).write_text(inspect.getsource(load_widths), encoding='utf-8')
    untried = '' if original is not None else ' (not tried: the unpruned network was not given)'
    return (f'{folder.name}/ loads into the original network with its {LOADER}{untried}',)


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers, also those that a state dict leaves out."""
    tensors = (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    )
    return {name: tensor.detach().cpu() for name, tensor in tensors}


def _attributes(network: nn.Module, original: nn.Module | None) -> dict[str, Tensor]:
    """Return the tensors that are plain attributes of modules, which a cut may narrow as well.

    What the original does not have was left by a pass.
    """
    found = _plain_tensors(network)
    known = found if original is None else _plain_tensors(original)
    return {name: value for name, value in found.items() if name in known}


def _plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    return {
        f'{path}.{name}'.lstrip('.'): value.detach().cpu()
        for path, module in network.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    }


def _distinct(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without those that share their memory with an earlier one."""
    found: dict[str, Tensor] = {}
    seen: set[tuple[Any, ...]] = set()
    for name, tensor in state.items():
        key = tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
        if not tensor.numel() or key not in seen:
            seen.add(key)
            found[name] = tensor.contiguous().clone()
    return found


def numbers(network: nn.Module, original: nn.Module | None) -> dict[str, dict[str, Any]]:
    """Return module -> attribute -> the integers that it needs in the original network.

    Without the original, these are all integers of all modules.
    """
    before = {} if original is None else dict(original.named_modules())
    found: dict[str, dict[str, Any]] = {}
    for path, module in network.named_modules():
        old = vars(before[path]) if path in before else {}
        changed = {
            name: value
            for name, value in vars(module).items()
            if numbers_of(value) is not None and old.get(name) != value
        }
        if changed:
            found[path] = changed
    return found


def _loads(network: nn.Module, inputs: Any, folder: Path, original: nn.Module) -> bool:
    """Return whether the original becomes the network with what was written."""
    try:
        loaded = load_widths.load_widths(copy_of(original), folder)
        same_kinds = [type(m) for m in network.modules()] == [type(m) for m in loaded.modules()]
        same_state = _are_same(_state(network), _state(loaded))
        return same_kinds and same_state and _computes_the_same(loaded, network, inputs)
    except Exception:  # a network of other modules, which fails in any way
        return False


def _write_pretrained(network: Any, inputs: Any, folder: Path) -> bool:
    """Write the folder of a network of Hugging Face; return False if its class cannot load it."""
    if not hasattr(network, 'save_pretrained'):
        return False
    try:
        # Libraries show their progress, and draw weights before they load them.
        with quiet(), redirect_stdout(io.StringIO()), fixed_seed(0):
            network.save_pretrained(folder)
            loaded = type(network).from_pretrained(folder)
        same = _are_same(network.state_dict(), loaded.state_dict())
        if same and _computes_the_same(loaded, network, inputs):
            return True
    except Exception:  # the library raises errors of many classes
        pass
    shutil.rmtree(folder)
    folder.mkdir()
    return False


def _are_same(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in state.items()
    )


def _computes_the_same(loaded: nn.Module, network: nn.Module, inputs: Any) -> bool:
    """Return whether two networks have the same outputs: numbers in code may have changed."""
    with evaluating(loaded), torch.no_grad():
        got, expected = outputs_of(loaded, inputs), outputs_of(network, inputs)
    limit = tolerance_of(expected)
    return all(relative_error(*pair) <= limit for pair in zip(got, expected, strict=True))


def _umask() -> int:
    """Return the permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
