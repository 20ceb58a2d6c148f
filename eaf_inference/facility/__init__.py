"""A real facility on one machine, made of real servers.

`machine.up` runs all of it, `triton.TritonServer` one server; `doctor` says what is there and what is not.
"""
