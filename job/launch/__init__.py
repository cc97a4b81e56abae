"""Launch: the supervisor of the training processes, their environment and their exit codes."""
