"""`python -m autolink` is the `autolink` command."""

from autolink.cli import main

if __name__ == "__main__":
    main(prog_name="autolink")
