"""The study of arXiv:2312.06838 on one's own facility: timing, more workers, several models, capacity.

For operators, and for whoever wants to know what a facility carries. Says of each part what was simulated.
"""
