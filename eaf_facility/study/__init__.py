"""The scaling study of arXiv:2312.06838 on your own facility: timing, more workers, several models, capacity.

It is for operators and for anyone who wants to know what load a facility can carry. Its report states what was
simulated.
"""
