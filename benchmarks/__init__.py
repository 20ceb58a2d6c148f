"""Benchmarks of this client against what users would pick instead, on the same server and jets.

Run ``python -m benchmarks`` in a clone of the project, with the extra ``[bench]`` installed. The wheel does not have
this package.
"""
