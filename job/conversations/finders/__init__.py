"""Finders: a search for each kind of personal data in a text."""
