"""This client beside what users would pick instead: the same server, the same jets, one table.

For whoever asks how fast it is. Everything here measures; nothing here is used by the client itself.
"""
