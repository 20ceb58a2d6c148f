"""The checks of `eaf-inference doctor --operator`: a live facility, seen from inside."""
