"""Conformance scripts in the style of packetdrill, run on our `Stack` and on the Linux kernel.

`vocabulary` says how to write one. Every test takes the fixture `net` and so runs twice: `ours` in
virtual time, `kernel` (marked `netns`) in real time in a network namespace of its own, where the
kernel is the oracle for what the script expects. docs/conformance.md lists where the two differ.
"""
