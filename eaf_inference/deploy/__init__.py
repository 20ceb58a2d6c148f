"""A user's own model on the facility's Triton: exported, checked, uploaded, served and compared."""
