"""`python -m job` is `recap`."""

from job.cli import main

if __name__ == "__main__":
    main()
