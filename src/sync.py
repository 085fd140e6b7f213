"""Tells MLflow what runs have left untold because it did not answer: `python -m src.sync`."""

from src import cli
from src.errors import UserError


def main() -> int:
    """The command line."""
    from src.tracking.status import sync

    errors = sync()
    if errors:
        raise UserError(f"MLflow does not answer ({errors[0]}); {len(errors)} run(s) have something to tell still.")
    return 0


if __name__ == "__main__":
    cli.command(main)
