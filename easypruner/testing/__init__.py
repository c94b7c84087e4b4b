"""Helpers for tests of plugins: tiny networks, contexts, checks, compositions and runs."""

from easypruner.testing.checks import (
    check_budget,
    check_forward_penalty,
    check_gradient,
    check_met,
    check_source,
    random_masks,
)
from easypruner.testing.composition import Combination, combinations, compose, run
from easypruner.testing.contexts import component, example_budget, tiny_batches, tiny_context
from easypruner.testing.handler_check import check_handler
from easypruner.testing.networks import (
    NETWORKS,
    TinyNetwork,
    example_inputs,
    network,
    randomized_network,
)
from easypruner.testing.optimizer_check import check_optimizer_handler
from easypruner.testing.rule_check import check_rule
from easypruner.testing.runs import check_stage, run_stages, tiny_config
from easypruner.testing.runtime_check import check_runtime

__all__ = [
    'NETWORKS',
    'Combination',
    'TinyNetwork',
    'check_budget',
    'check_forward_penalty',
    'check_gradient',
    'check_handler',
    'check_met',
    'check_optimizer_handler',
    'check_rule',
    'check_runtime',
    'check_source',
    'check_stage',
    'combinations',
    'component',
    'compose',
    'example_budget',
    'example_inputs',
    'network',
    'random_masks',
    'randomized_network',
    'run',
    'run_stages',
    'tiny_batches',
    'tiny_config',
    'tiny_context',
]
