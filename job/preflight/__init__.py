"""Preflight: all that can be known before paying for a GPU."""
