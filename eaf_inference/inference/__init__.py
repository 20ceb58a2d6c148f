"""Arrays in, scores out: everything between a caller's array and Triton.

An array passes through `marshal` (prepare), `batching`, `pipeline` (send) and `scatter`. `model` drives it, `padding`
finds out how a model's rows may be padded, and `lookup` asks servers about their models.
"""
