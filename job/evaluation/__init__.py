"""Evaluation: metrics, floors, model card, report."""
