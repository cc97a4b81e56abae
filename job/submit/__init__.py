"""Submit: plan a job, hand it over to a scheduler, and print how to follow and stop it.

`commands` is the command line. `run` has the steps that all schedulers share, and makes the
`Submission` (in `submission`), which is all that a scheduler's own module gets.

To add a scheduler:

1. Write a module beside `docker.py` with one class, a `Target` (in `submission`): it turns a
   Submission into a request, and sends it. `tool` runs a command-line program for it.
2. Give it a command in `commands.py`, with the options of all targets and its own.
3. Name it in README.md and docs/operations.md; tests/submit/test_submit.py asks for that.
"""
