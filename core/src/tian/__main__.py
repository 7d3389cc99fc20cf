"""Entry point of the `tian` command; everything heavier is imported by the subcommand that needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from tian.cli.main import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
