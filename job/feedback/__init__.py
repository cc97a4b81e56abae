"""Feedback: agents' verdicts on summaries become a report, and data to train on."""
