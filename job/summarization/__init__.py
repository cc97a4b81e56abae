"""Summarization: the batch run over files of conversations."""
