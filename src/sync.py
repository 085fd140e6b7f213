"""Tells MLflow what runs have left untold because it did not answer: `python -m src.sync`."""

from src import cli
from src.errors import UserError


def main() -> int:
    """The command line."""
    from src.tracking.status import settle

    left = settle()
    if left:
        raise UserError(f"MLflow does not answer ({left[0]}); {len(left)} run(s) have something to tell still.")
    return 0


if __name__ == "__main__":
    cli.command(main)
