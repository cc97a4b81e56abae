"""Inference: the engine protocol and its implementations."""
