"""Breaks each law of the kernel path in a copy of the checkout, and expects its test to go red.

./scripts/mutants.sh [WORD]      only laws whose text has the word
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from laws import MUTANTS, Mutant

CHECKOUT = Path(__file__).resolve().parents[2]
RED = 1  # pytest: tests failed. Anything else (none found, not collected) is no answer


def copy(folder: Path) -> None:
    """What git knows, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)


def verdict(folder: Path, mutant: Mutant) -> str:
    """ "" if the test went red, else what happened instead."""
    file = folder / mutant.file
    sound = file.read_text()
    if sound.count(mutant.sound) != 1:
        return f"{mutant.file} has its text {sound.count(mutant.sound)} times: renew the mutant"
    file.write_text(sound.replace(mutant.sound, mutant.broken))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(sound)
    if done.returncode == RED and "programs cannot be loaded" not in done.stdout:
        return ""
    return f"{mutant.test} ended with {done.returncode}\n{done.stdout[-600:]}"


def main() -> int:
    """1: a law can be broken without anybody noticing."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    alive = 0
    with tempfile.TemporaryDirectory(prefix="rauta-mutants-") as name:
        folder = Path(name)
        copy(folder)
        for mutant in MUTANTS:
            if word in mutant.law:
                told = verdict(folder, mutant)
                alive += bool(told)
                print(f"{'ALIVE' if told else 'red  '}  {mutant.law}{f': {told}' if told else ''}", flush=True)
    return min(1, alive)


if __name__ == "__main__":
    sys.exit(main())
