"""The GPUs of this machine: required before a job begins, and measured while it runs.

`required` ends a job that was given a GPU and cannot use it, with the `findings` that say why.
"""
