"""`python -m job` is `recap`."""

from job.safe_path import forget_current_folder

if __name__ == "__main__":
    forget_current_folder()

    from job.cli import main

    main()
