"""A real facility on one machine, made of real servers.

`machine.up` runs all of it, `triton.TritonServer` and `gateway.GatewayServer` one server each; `doctor` says
what is there and what is not.
"""
