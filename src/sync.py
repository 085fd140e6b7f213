"""Sends MLflow what it has not received from earlier runs: `python -m src.sync`."""

from collections.abc import Sequence

from src import cli
from src.errors import UserError

USAGE = cli.Usage(
    "python -m src.sync",
    "Send MLflow what it has not received from earlier runs of this folder because it did not answer. A run whose process is "
    "gone is marked KILLED.",
    ["python -m src.sync", "MLFLOW_TRACKING_URI=http://server:5000 python -m src.sync"],
)


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: MLflow does not answer.
    """
    cli.parse_key_values(arguments, valid=())
    from src.tracking.status import sync

    errors = sync()
    if errors:
        raise UserError(f"MLflow does not answer ({errors[0]}); {len(errors)} run(s) still have something to send.")
    return 0


if __name__ == "__main__":
    cli.run_command(main, USAGE)
