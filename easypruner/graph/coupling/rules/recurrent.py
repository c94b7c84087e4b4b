"""Rules for recurrent layers that run as one operation. Others run as the parts of their cells."""

from __future__ import annotations

from easypruner.graph.coupling.rules.registration import Coupling, Operation, rule


@rule('mkldnn_rnn_layer')
def lstm_layer(coupling: Coupling, operation: Operation) -> None:
    """Couple the hidden units with the rows of each gate, and with the columns that read them.

    On the CPU, torch runs one direction of one layer of an LSTM as one operation over all steps.
    The rows of the four gates follow each other.
    """
    x, weight_ih, weight_hh, bias_ih, bias_hh, hidden, cell = operation.args[:7]
    steps, batch, features = coupling.axes_of(x)
    rows, reads = coupling.axes_of(weight_ih)
    hidden_rows, hidden_reads = coupling.axes_of(weight_hh)
    for weight in (weight_ih, weight_hh):
        coupling.note_use(weight, 'linear.weight')
    coupling.contract(x, features, weight_ih, reads)
    units = coupling.couple_runs(rows, rows.size // hidden_reads.size)
    biases = [coupling.axes_of(bias)[0] for bias in (bias_ih, bias_hh)]
    coupling.couple_all([rows, hidden_rows, *biases])
    for bias in (bias_ih, bias_hh):
        coupling.note_use(bias, 'linear.bias')
    state, cell_state = (coupling.axes_of(tensor)[-1] for tensor in (hidden, cell))
    coupling.contract(hidden, state, weight_hh, hidden_reads)
    axes = steps, batch, coupling.couple_all([units, state, hidden_reads, cell_state])
    coupling.assign(operation.output, axes)
    for last in operation.outputs[1:3]:
        coupling.assign(last, axes[-last.dim() :])
    for scratch in operation.outputs[3:]:
        coupling.assign_constants(scratch)
    coupling.add_macs(1, steps, batch, rows, reads)
    coupling.add_macs(1, steps, batch, hidden_rows, hidden_reads)
