"""The real servers of a facility: how each is installed, configured, started and known to be ready."""
