"""What finds each kind of personal data in a text."""
