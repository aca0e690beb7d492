"""Measurements: scenarios that run this stack and the kernel's side by side, and their results.

`python -m bench list` names the scenarios, `python -m bench run NAME` runs one. Each scenario is
a file in `scenarios/`; it builds its network from `topology`, starts `nodes` in it as processes of
their own, and returns a `results.Report`, which `cli` prints as a table and writes as JSON.
"""
