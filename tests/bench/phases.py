"""Where a short run spends its time: `python -m tests.bench.phases` for the default LSTM, `… experiment=cnn_mnist` for another.

Seconds, as the log file dates them: median, lowest and highest of several runs on data that is prepared.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.commands import environment

ROUNDS = 5
EPOCHS = 3
LINE = re.compile(r"^(\S+ \S+) [A-Z]+ \S+: (.*)$", re.MULTILINE)
PHASE = re.compile(r"(.*): [\d.]+ s")
OUTER = ("Loading TensorFlow", "Training")  # phases that are a part of another, or have others within them


def measure(folder: str, *arguments: str) -> dict[str, float]:
    """Run `python -m src.run`; {phase: seconds}, in order.

    Args:
        folder: its working directory.
        arguments: of the command.
    """
    start = time.time()
    command = [sys.executable, "-m", "src.run", *arguments, f"training.epochs={EPOCHS}"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    end = time.time()
    log_file = max(Path(folder).rglob("run.log"), key=lambda path: path.stat().st_mtime)
    seconds: dict[str, float] = {}
    last = trained = start
    for date, message in LINE.findall(log_file.read_text()):
        now = datetime.strptime(date, "%Y-%m-%d %H:%M:%S,%f").timestamp()
        if message.startswith("TensorFlow takes "):
            seconds["from the command to the first step"] = now - start
            continue
        if message.startswith("epoch "):
            name, trained = "Training", now
        elif (phase := PHASE.fullmatch(message)) and phase[1] not in OUTER:
            name = phase[1]
        else:
            continue
        seconds[name] = seconds.get(name, 0.0) + now - last
        last = now
    return {**seconds, "End of the process": end - last, "from the last epoch to the prompt": end - trained}


def main(arguments: list[str]) -> None:
    """The command line."""
    arguments = arguments or ["model=lstm"]
    with tempfile.TemporaryDirectory() as folder:
        measure(folder, *arguments)  # prepares data and MLflow's database, and computes the baselines
        runs = [measure(folder, *arguments, f"seed={seed}") for seed in range(1, ROUNDS + 1)]
    for name in runs[0]:
        times = [run.get(name, 0.0) for run in runs]
        print(f"{statistics.median(times):6.2f} s ({min(times):.2f} to {max(times):.2f})  {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
