# SPDX-License-Identifier: Apache-2.0
"""emcee: a Markov chain whose walkers are evaluated by a Pool, two small maps a step."""

from case import SCIENCE, Case, program

CASES = [
    Case(
        name="emcee",
        title="emcee with a Pool",
        group=SCIENCE,
        parallel_by="Pool.map, two calls a step",
        arguments=program("emcee_chain.py", 150),
        quick_arguments=program("emcee_chain.py", 5),
    )
]
