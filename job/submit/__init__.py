"""Submit: what is submitted, and one page for each place that runs it."""
