"""Submit: plan a job, hand it over to a scheduler, and follow it or print how to.

`commands` is the command line. `run` has the steps that all schedulers share, and makes the
`Submission` (in `submission`), which is all that a scheduler's own module gets.

To add a scheduler:

1. Write a module beside `docker.py` with one class, a `Target` (in `submission`): it turns a
   Submission into a request, and sends it. `tool` runs a command-line program for it. The target
   starts as many machines as `nodes` or `workers` says, or raises ConfigError. One without a
   `cluster` always gets one worker. Beside it, a `Watch` (in `follow`), as `docker_container.py`
   has one, looks after a job for `--wait`; `log_process` reads the log that a program prints.
2. Give it a command in `commands.py`, with `_of_every_target`, `_of_every_cluster` if it has
   several machines, and its own options. Without `_of_every_cluster`, `nodes` is always 1.
3. Let its machines find out which of several they are, unless the scheduler sets the variables of
   AWS Batch or of an Indexed Job. A worker's index is one of `INDEX_VARIABLES` in
   job/summarization/shard.py (the number of workers is in RECAP_SHARDS). A node's names are a
   `_Names` in job/launch/cluster.py, listed in `find_cluster`.
4. Add it to `CLUSTERS` or `TARGETS` in tests/submit/test_submit.py, which asks for it in the help,
   in README.md and in docs/operations.md.
"""
