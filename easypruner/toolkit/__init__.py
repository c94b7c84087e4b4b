"""What plugins build on, without any method of its own.

Scores: :mod:`~easypruner.toolkit.scores` (reductions, normalizations),
:mod:`~easypruner.toolkit.units` (sums over the weights of a unit),
:mod:`~easypruner.toolkit.gradients`, :mod:`~easypruner.toolkit.activations`,
:mod:`~easypruner.toolkit.layer_masks`.

Budgets: :mod:`~easypruner.toolkit.ranking`, :mod:`~easypruner.toolkit.budgets`,
:mod:`~easypruner.toolkit.latency`.

Regularizers: :mod:`~easypruner.toolkit.scale_penalty`, :mod:`~easypruner.toolkit.unit_norms`,
:mod:`~easypruner.toolkit.pushing`, :mod:`~easypruner.toolkit.ramps`.

Searches: :mod:`~easypruner.toolkit.search`, :mod:`~easypruner.toolkit.candidates`.

After a cut: :mod:`~easypruner.toolkit.calibration`, :mod:`~easypruner.toolkit.compensation`.
"""
