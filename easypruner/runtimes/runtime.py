"""Runtime: the contract of what exports a network, runs it, and says on which widths it is fast."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

from torch import Tensor, nn

from easypruner.base.checks import check_count, check_name
from easypruner.base.component import Component
from easypruner.errors import EasyPrunerError
from easypruner.runtimes.probe import WidthProbe, probe
from easypruner.runtimes.program import input_tensors
from easypruner.runtimes.reasons import first_lines
from easypruner.runtimes.timing import Clock

_Method = TypeVar('_Method', bound=Callable[..., Any])
Grid = Literal['measured', 'documented']


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the file or folder to load.
        files: all files, ``path`` or what it holds among them.
        dynamic_batch: whether the exported network takes batches of any size.
        notes: what a user has to know, such as why the size of the batch is fixed.
    """

    path: Path
    files: tuple[Path, ...]
    dynamic_batch: bool = False
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.stat().st_size for file in self.files)


class Session:
    """A network that a runtime has loaded and can run.

    Args:
        bind: takes example inputs, and returns a function that runs the network on them. All
            preparation belongs into ``bind``, so that the time of a call is the time of a pass.
            The function returns the tensors of the outputs, in order.
        keep: an object that has to live as long as the session, such as a temporary folder.
    """

    def __init__(
        self, bind: Callable[[Any], Callable[[], tuple[Tensor, ...]]], keep: Any = None
    ) -> None:
        self._bind = bind
        self.keep = keep

    def bind(self, inputs: Any) -> Callable[[], tuple[Tensor, ...]]:
        """Return a function that runs the network on ``inputs`` and returns its output tensors.

        The function has run once when it is returned.

        Raises:
            EasyPrunerError: the network does not run on these inputs; with the runtime's reason.
        """
        try:
            run = self._bind(inputs)
            run()
        except EasyPrunerError:
            raise
        except Exception as error:  # classes of errors that have no common base
            shapes = ', '.join(str(tuple(tensor.shape)) for tensor in input_tensors(inputs))
            raise EasyPrunerError(
                f'the network does not run on inputs of shape {shapes}: {first_lines(error)}'
            ) from error
        return run


_NEED_PACKAGES = ('export', 'load', 'session', 'fixed_session', 'layer_sessions')


def _checked(method: _Method) -> _Method:
    """Let a method of a runtime check that the packages are installed, before it imports them."""

    @functools.wraps(method)
    def checked(self: Runtime, *args: Any, **kwargs: Any) -> Any:
        self.check()
        try:
            return method(self, *args, **kwargs)
        except ImportError as error:
            raise EasyPrunerError(
                f'runtime {self.name!r} cannot import a package that it needs: {error}; '
                f'{self.install_command(tuple(self.packages.values()))}'
            ) from error
        except OSError as error:
            raise EasyPrunerError(f'runtime {self.name!r} cannot use a file: {error}') from error

    return cast(_Method, checked)


class Runtime(Component):
    """Exports a network, runs it, and says on which grid of widths it is fast.

    A subclass implements :meth:`export` and :meth:`load`. One whose networks run without files
    overrides :meth:`session` as well. These methods may import :attr:`packages`: each of them
    calls :meth:`check` first. The other methods, such as :meth:`grid`, work without the packages,
    because a network may be pruned for a runtime of another machine.

    Args:
        threads: the number of threads of a pass on the CPU.
        grid: the grid of widths: ``'measured'`` by a probe on this machine, which takes seconds
            and is stored in the user's cache; ``'documented'`` is that of :attr:`widths`; a number
            is one for all kinds of layers.
    """

    packages: ClassVar[Mapping[str, str]] = {}
    """Module that has to be importable -> the package that has it."""
    extra: ClassVar[str] = ''
    """The extra of EasyPruner's installation that has the packages; empty if there is none."""
    widths: ClassVar[Mapping[str, int]] = {}
    """Kind of layer (see :mod:`easypruner.runtimes.kinds`) -> the grid of its fast widths, in
    channels, where it was not measured; 1 for kinds that are not in it."""
    reported: ClassVar[bool] = False
    """Whether the report of a run has the times in this runtime by default."""
    clock: ClassVar[Clock] = 'cpu'
    """The clock that times single layers: that of the process, unless a pass runs elsewhere."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _NEED_PACKAGES:
            if name in vars(cls):
                setattr(cls, name, _checked(vars(cls)[name]))

    def __init__(
        self, threads: int = 1, grid: int | Literal['measured', 'documented'] = 'measured'
    ) -> None:
        self.threads = check_count(threads, 'threads', self.name)
        if isinstance(grid, str):
            check_name(grid, 'grid', self.name, get_args(Grid))
        else:
            check_count(grid, 'grid', self.name)
        self._grid = grid

    @property
    def name(self) -> str:
        """The name under which configs and commands know this runtime."""
        return type(self).__name__

    @classmethod
    def missing(cls) -> tuple[str, ...]:
        """Return the packages that are not installed."""
        return tuple(
            package
            for module, package in cls.packages.items()
            if importlib.util.find_spec(module) is None
        )

    def check(self) -> None:
        missing = self.missing()
        if missing:
            verb = 'is' if len(missing) == 1 else 'are'
            raise EasyPrunerError(
                f'runtime {self.name!r} needs {" and ".join(missing)}, which {verb} not '
                f'installed: {self.install_command(missing)}'
            )

    def fault(self) -> str:
        """Return why the runtime cannot run here; '' if it can."""
        try:
            self.check()
        except EasyPrunerError as error:
            return str(error)
        return ''

    @classmethod
    def install_command(cls, packages: Sequence[str]) -> str:
        """Return the command that installs packages."""
        wanted = f"'easypruner[{cls.extra}]'" if cls.extra else ' '.join(packages)
        return f'pip install {wanted}'

    def versions(self) -> dict[str, str]:
        """Return package -> version of what a time in this runtime depends on."""
        packages = ('torch', *self.packages.values())
        return {package: version(package) for package in packages if package not in self.missing()}

    @abstractmethod
    def export(self, network: nn.Module, inputs: Any, folder: Path, name: str) -> Exported:
        """Write a network to files.

        Args:
            network: the network, in evaluation mode; it must stay as it is.
            inputs: example inputs: a tensor, a tuple of positional arguments, or a dict of
                keyword arguments.
            folder: an existing folder.
            name: the name of the files, without a suffix.

        Raises:
            EasyPrunerError: the runtime cannot express the network; with its reason.
        """

    @abstractmethod
    def load(self, path: Path) -> Session:
        """Load what :meth:`export` wrote.

        Args:
            path: its ``path``.

        Raises:
            EasyPrunerError: the file is damaged, or another runtime's.
        """

    def session(self, network: nn.Module, inputs: Any) -> Session:
        """Return a session of a network, for a measurement: exported to a temporary folder.

        Args:
            network: the network, in evaluation mode.
            inputs: its example inputs.
        """
        folder = tempfile.TemporaryDirectory(prefix='easypruner-')
        session = self.load(self.export(network, inputs, Path(folder.name), 'network').path)
        session.keep = (session.keep, folder)
        return session

    def fixed_session(self, network: nn.Module, inputs: Any) -> Session:
        """Return a session that is only bound to inputs of the shapes of the example inputs.

        A runtime overrides this if it loads such a network sooner. It should then load the network
        anew for each binding: where in the memory it is changes its time by some percent.

        Args:
            network: the network, in evaluation mode.
            inputs: its example inputs.
        """
        return self.session(network, inputs)

    def layer_sessions(self, layers: Sequence[tuple[nn.Module, Any]]) -> list[Session]:
        """Return a session of each of many small networks, for a probe.

        Args:
            layers: (network, its input, which is a tensor) of each; it returns a tensor.
        """
        return [self.session(layer, inputs) for layer, inputs in layers]

    def grid(self, kind: str) -> int:
        """Return the grid of a kind of layer: widths that are its multiples are fast, in channels.

        A runtime that cannot run here is not measured: its documented grid counts.
        """
        if isinstance(self._grid, int):
            return self._grid
        probe = self.probe
        return self.widths.get(kind, 1) if probe is None else probe.grid(kind)

    @functools.cached_property
    def probe(self) -> WidthProbe | None:
        """The measurement that the grids come from; None if they are given or documented."""
        return probe(self) if self._grid == 'measured' and not self.fault() else None
