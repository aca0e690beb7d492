"""Fuzzing the parsers and a stack in each state: coverage-guided (atheris) and by hypothesis.

`python -m fuzz` runs the targets for a while, `python -m fuzz --replay FILE` one input again; the
kept inputs are in `fuzz/corpus`, one a line. `docs/fuzzing.md` tells how to add a state or an
operation.
"""
