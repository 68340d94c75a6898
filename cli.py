"""The `pgflow` command from a checkout: `python cli.py worker my.module`."""

from pgflow.cli import main

if __name__ == "__main__":
    main(prog_name="pgflow")
