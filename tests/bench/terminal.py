"""Longest silence of a run in a terminal: `python -m tests.bench.terminal` for all default runs, `… model=lstm` for one."""

import itertools
import os
import pty
import re
import subprocess
import sys
import tempfile
import time

from src import config
from tests.commands import environment


def silences(*arguments: str) -> list[tuple[float, str]]:
    """Run `python -m src.run` in a terminal; seconds between two changes of what is shown, and what was shown before.

    Args:
        arguments: of the command.
    """
    ours, theirs = pty.openpty()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "src.run", *arguments],
            cwd=folder,
            env=environment(COLUMNS="120"),
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        times, last = [], time.monotonic()
        while True:
            try:
                shown = os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
            text = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", shown).strip()
            times.append((time.monotonic() - last, text))
            last = time.monotonic()
        if process.wait():
            raise SystemExit(f"src.run {' '.join(arguments)} failed: {times[-1][1]}")
    return [(after, before) for (_, before), (after, _) in itertools.pairwise(times)]


def main(arguments: list[str]) -> None:
    """The command line."""
    for run in [arguments] if arguments else [[f"model={name}"] for name in config.option_names("model")]:
        start = time.monotonic()
        seconds, before = max(silences(*run))
        shown = before.splitlines()[-1] if before else "nothing"
        print(
            f"{' '.join(run):<24} {time.monotonic() - start:5.0f} s, longest silence {seconds:4.1f} s, after: {shown}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
