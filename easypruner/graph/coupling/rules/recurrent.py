"""Rules for recurrent layers that run as one operation; most come as the parts of their cells."""

from __future__ import annotations

from torch import Tensor

from easypruner.graph.coupling.coupling import INNER, Axis, Coupling
from easypruner.graph.coupling.rules import rule
from easypruner.graph.recording.tape import Operation


@rule('mkldnn_rnn_layer')
def lstm_layer(coupling: Coupling, operation: Operation) -> None:
    """One direction of one layer of an LSTM, over all steps: what torch runs on the CPU."""
    x, weight_ih, weight_hh, bias_ih, bias_hh, hidden, cell = operation.args[:7]
    steps, batch, features = coupling.axes(x)
    rows, reads = coupling.axes(weight_ih)
    hidden_rows, hidden_reads = coupling.axes(weight_hh)
    coupling.use(weight_ih, 'linear.weight')
    coupling.use(weight_hh, 'linear.weight')
    coupling.contract(x, features, weight_ih, reads)
    units = _units(coupling, rows, hidden_reads.size)
    for other in (hidden_rows, *(coupling.axes(bias)[0] for bias in (bias_ih, bias_hh))):
        coupling.couple(rows, other)
    for bias in (bias_ih, bias_hh):
        coupling.use(bias, 'linear.bias')
    coupling.contract(hidden, coupling.axes(hidden)[-1], weight_hh, hidden_reads)
    for state in (coupling.axes(hidden)[-1], hidden_reads, coupling.axes(cell)[-1]):
        units = coupling.couple(units, state)
    _assign(coupling, operation.outputs, (steps, batch, units))
    coupling.macs(1, steps, batch, rows, reads)
    coupling.macs(1, steps, batch, hidden_rows, hidden_reads)


def _units(coupling: Coupling, rows: Axis, count: int) -> Axis:
    """Couple position j of every gate, which lie one after the other; return the positions."""
    gates = rows.reshape(-1, count)
    units: Axis = gates[0]
    for gate in gates[1:]:
        units = coupling.couple(units, gate)
    return units


def _assign(coupling: Coupling, outputs: tuple[Tensor, ...], axes: tuple[Axis, ...]) -> None:
    """Assign the axes of all steps' outputs and of the last states; what is left is scratch."""
    coupling.assign(outputs[0], axes)
    for state in outputs[1:3]:
        coupling.assign(state, axes[-state.dim() :])
    for scratch in outputs[3:]:
        coupling.assign(scratch, (coupling.constant(size, INNER) for size in scratch.shape))
