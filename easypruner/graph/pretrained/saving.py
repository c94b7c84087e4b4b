"""Saves a network of Hugging Face whose config cannot describe it, together with its record."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from easypruner.base.files import write_json, write_whole
from easypruner.errors import EasyPrunerError
from easypruner.graph.recording.inventory import Attributes

CONFIG_FILE = 'config.json'
RECORD_FILE = 'architecture.json'
WEIGHTS_FILE = 'model.safetensors'
MARK = 'easypruner'
UNPRUNED = 'unpruned'
FORMAT = 1


class CutRecord(Protocol):
    """An architecture record."""

    @property
    def tensors(self) -> Mapping[str, Any]: ...

    @property
    def attributes(self) -> Attributes: ...

    def within(self, path: str) -> CutRecord:
        """Return the part of the record that concerns a part of the network."""

    def then(self, later: Any) -> Any:
        """Return the record of this cut followed by another one."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to a file."""


class SavePruned:
    """Takes the place of ``save_pretrained`` of a network whose config cannot describe it.

    The folder has the config of the unpruned network under another name, the record of the cut and
    the weights. transformers refuses it, with the reason, and ``easypruner.from_pretrained`` loads
    it.

    Attributes:
        network: the network.
        record: the record of all cuts since the network that the config describes.
        reason: why the config cannot describe the network.
        config: the config before these cuts; a cut may have set numbers of that of the network.
    """

    def __init__(self, network: Any, record: CutRecord, reason: str, config: Any) -> None:
        self.network = network
        self.record = record
        self.reason = reason
        self.config = config

    def __deepcopy__(self, memo: dict[int, Any]) -> SavePruned:
        return SavePruned(copy.deepcopy(self.network, memo), self.record, self.reason, self.config)

    def __call__(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Write the folder.

        Args:
            save_directory: the folder.
            is_main_process: whether this process writes.
            state_dict: the weights, if they are not those of the network.
            push_to_hub: not possible.
            **options: other options of transformers have no effect.

        Raises:
            EasyPrunerError: the folder cannot be uploaded.
        """
        if push_to_hub:
            raise EasyPrunerError(
                f'push_to_hub: transformers cannot load this network, because {self.reason}; save '
                'it, and upload the folder with huggingface_hub.upload_folder'
            )
        if not is_main_process:
            return
        from safetensors.torch import save

        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.network.state_dict() if state_dict is None else state_dict
        write_whole(folder / WEIGHTS_FILE, save(_without_ties(weights), {'format': 'pt'}))
        self.record.save(folder / RECORD_FILE)
        write_json(folder / CONFIG_FILE, self._config())
        generation = getattr(self.network, 'generation_config', None)
        if generation is not None:
            generation.save_pretrained(folder)

    def _config(self) -> dict[str, Any]:
        kind = type(self.network).__name__
        return {
            'model_type': (
                f'{self.config.model_type}, pruned to widths that its config cannot describe: load '
                'the folder with easypruner.from_pretrained'
            ),
            MARK: {'format': FORMAT, 'class': kind, 'reason': self.reason},
            UNPRUNED: json.loads(self.config.to_json_string(use_diff=False)),
        }


def saver_of(network: Any) -> SavePruned | None:
    """Return what saves a network, if its config cannot describe it."""
    found = vars(network).get('save_pretrained')
    return found if isinstance(found, SavePruned) else None


def _without_ties(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without those that share all of their memory with another one."""
    found: dict[str, Tensor] = {}
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    for name, tensor in weights.items():
        key = tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        found[name] = tensor.detach().contiguous()
    return found
