"""Metrics: numbers about the summaries of a system, a module for each family of them.

To add a metric, write a `Metric` into the module of its family. A new family is a new module and
its line in `all_metrics.py`. Scores, intervals, evaluation.json, table, report, card and gate take
everything else from the record. A library that computes it goes into `libraries`, pyproject.toml
and the locks (`make lock`, `make image-locks`).
"""
