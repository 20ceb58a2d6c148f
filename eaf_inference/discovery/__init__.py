"""From nothing typed to a server: where one may be, and which of them answers."""
