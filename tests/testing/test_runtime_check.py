"""The check of runtimes finds faults in runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError
from easypruner.runtimes import Exported, Runtime, Session
from easypruner.runtimes.program import FromTensors, input_tensors, tensors_of
from easypruner.testing import check_runtime


class Remembers(Runtime):
    """A runtime whose files hold nothing: it remembers the networks."""

    known: ClassVar[dict[Path, nn.Module]] = {}

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        path = folder / f'{name}.none'
        path.write_text('a network')
        self.known[path] = FromTensors(network, inputs)
        return Exported(path, (path,), dynamic_batch=True)

    def load(self, path: Path) -> Session:
        if path not in self.known:
            raise EasyPrunerError(f'{path} is not known')
        network = self.known[path]

        def bind(inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
            tensors = input_tensors(inputs)
            return lambda: tensors_of(network(*tensors))

        return Session(bind)


class Wrong(Remembers):
    """Its outputs are wrong."""

    def load(self, path: Path) -> Session:
        session = super().load(path)
        return Session(lambda inputs: lambda: tuple(t + 1e-3 for t in session.bind(inputs)()))


class Swaps(Remembers):
    """It returns several outputs in another order."""

    def load(self, path: Path) -> Session:
        session = super().load(path)
        return Session(lambda inputs: lambda: session.bind(inputs)()[::-1])


class Litters(Remembers):
    """It writes a file that it does not list."""

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        (folder / 'network.log').write_text('')
        return super().export(network, inputs, folder, name)


class Trains(Remembers):
    """It leaves the network in training mode."""

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        found = super().export(network, inputs, folder, name)
        network.training = True
        return found


class Rounds(Remembers):
    """It changes the weights."""

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        found = super().export(network, inputs, folder, name)
        for parameter in network.parameters():
            parameter.data = parameter.data.bfloat16().float()
        return found


class Fixed(Remembers):
    """It fixes the size of the batch and does not say why."""

    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        found = super().export(network, inputs, folder, name)
        return Exported(found.path, found.files)


class Believes(Remembers):
    """It loads a damaged file."""

    def load(self, path: Path) -> Session:
        return super().load(path) if path.suffix else Session(lambda inputs: lambda: ())


class Silent(Remembers):
    """It says nothing about what to install."""

    packages: ClassVar = {'torch': 'torch'}

    def check(self) -> None:
        """Check nothing."""


class Odd(Remembers):
    """It has a grid for a kind of layer that does not exist."""

    widths: ClassVar = {'narrow': 4}


def test_a_runtime_without_faults_passes() -> None:
    check_runtime(Remembers())


@pytest.mark.parametrize(
    ('cls', 'fault'),
    [
        (Wrong, r'plain, loaded: output 0 differs by 0\.001'),
        (Swaps, 'tokens, loaded: outputs of shapes'),
        (Litters, r'network\.log.* and lists'),
        (Trains, r"an export changes \['\.training'\]"),
        (Rounds, 'an export changes .*weight'),
        (Fixed, 'the batch is fixed, and no note says why'),
        (Believes, 'a file that is damaged is accepted'),
        (Silent, 'an absent package is accepted'),
        (Odd, r"widths has the kinds \['narrow'\]"),
    ],
)
def test_a_fault_is_found(cls: type[Runtime], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_runtime(cls(), networks=['plain'])


def test_a_runtime_that_cannot_run_is_refused() -> None:
    class Absent(Remembers):
        packages: ClassVar = {'no_such_module': 'no-such-package'}

    with pytest.raises(EasyPrunerError, match='pip install no-such-package'):
        check_runtime(Absent())
