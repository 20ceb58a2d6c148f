"""Credentials: a user's token, its sources and its renewal, and the certificates of TLS."""
