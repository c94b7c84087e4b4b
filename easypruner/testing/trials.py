"""Trials on tiny networks: which are tried, what is a refusal, and what is a fault."""

from __future__ import annotations

from collections.abc import Iterable

from easypruner.base.describe import describe
from easypruner.errors import EasyPrunerError, MaskError, PluginError
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.testing.networks import TinyNetwork

Networks = TinyNetwork | Iterable[TinyNetwork]
"""One network, or several."""


def listed(networks: Networks) -> tuple[TinyNetwork, ...]:
    """Return the networks that are to be tried.

    Raises:
        EasyPrunerError: there are none, or something else is among them.
    """
    found = (networks,) if isinstance(networks, TinyNetwork) else tuple(networks)
    for network in found:
        if not isinstance(network, TinyNetwork):
            raise EasyPrunerError(
                f'{network!r} is no tiny network; expected some of '
                "easypruner.testing.NETWORKS, as network('plain')"
            )
    if not found:
        raise EasyPrunerError('there is no network to try; leave networks out to try all')
    return found


def check_is_refusal(error: EasyPrunerError, case: str) -> None:
    """Check that a component has refused a network, and not returned what cannot be used.

    Raises:
        AssertionError: it is a fault of its own.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    made_wrongly = last is not None and last.tb_frame.f_code is Masks.__init__.__code__
    if isinstance(error, PluginError) or made_wrongly:
        raise AssertionError(f'{case}: {error}') from error


def check_masks(masks: Masks, graph: ChannelGraph, case: str) -> None:
    """Check that what was chosen are masks of a graph, with a unit left in every group.

    Raises:
        AssertionError: they are not.
    """
    got = describe(masks)
    assert isinstance(masks, Masks), f'{case}: {got} is returned, expected easypruner.Masks'
    try:
        masks.check(graph)
    except MaskError as error:
        raise AssertionError(f'{case}: {error}') from error
