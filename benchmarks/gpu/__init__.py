"""The study's networks on a GPU behind a real Triton: one command for a machine without a network.

`pack` makes the kit that travels, and `run` unpacks it there and runs ``python -m benchmarks.gpu``.
"""
