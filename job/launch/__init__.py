"""Launch: training processes, the supervisor above them, and the outcome that they agree on.

`supervisor` starts a training and ends it; `processes` is the tree below it. `outcome` makes one
exit code of many, `peers` agrees on it between nodes. `cluster` and `spot` read what the machine's
scheduler and its cloud announce.
"""
