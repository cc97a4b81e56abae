"""Conversations: records, readers, cleaning, splits."""
