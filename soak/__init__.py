"""Two stacks, two programs and a hostile network: random sessions checked against a model.

`python -m soak` runs many of them (`make soak`), `python -m soak --replay SEED` one. The property
tests draw the same scenarios from hypothesis. Everything is a function of the scenario: virtual
time, seeded dice, no I/O.
"""
