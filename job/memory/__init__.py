"""Predict the memory of a training step by simulating it, and that of a night by a formula.

Nothing here needs a GPU or weights: a base is known by its config.json.
"""
