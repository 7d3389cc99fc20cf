"""The `tian` command: argparse, one module a subcommand, imported when used."""
