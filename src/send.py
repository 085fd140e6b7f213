"""Tells MLflow what runs have left untold because it did not answer: `python -m src.send`."""

import sys

from src import startup


def main() -> None:
    """The command line."""
    startup.log_to_terminal()
    startup.load_tensorflow()
    from src import tracking

    left = tracking.settle()
    sys.exit(f"MLflow does not answer ({left[0]}); {len(left)} run(s) have something to tell still." if left else 0)


if __name__ == "__main__":
    main()
