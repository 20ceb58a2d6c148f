"""The operator's half: the token service, the edge proxy's configuration, and a facility on one machine."""
