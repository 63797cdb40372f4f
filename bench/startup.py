"""How long `import kerasdet` and `kerasdet zoo` take in a fresh process, and what they import.

    python bench/startup.py [--rounds 10]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from common import print_machine, table

from kerasdet.deploy.timing import interleave, spread

ROOT = Path(__file__).parents[1]
# What the installed command `kerasdet` does, whether it is installed or not.
ZOO = "from kerasdet.cli import app; app(['zoo'])"
COMMANDS = {
    "python -c pass": "pass",
    "import numpy": "import numpy",
    "import kerasdet": "import kerasdet",
    "kerasdet zoo": ZOO,
}
HEAVY = ("tensorflow", "jax", "keras")
# Printed at exit, because a command line leaves by SystemExit.
LISTING = (
    "import atexit, sys; atexit.register(lambda: print("
    f"'\\n', *[name for name in {HEAVY} if name in sys.modules])); "
)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args(argv)

    imported = {name: run(LISTING + code).splitlines()[-1] for name, code in COMMANDS.items()}
    times = interleave(
        {name: lambda code=code: run(code) for name, code in COMMANDS.items()}, args.rounds
    )
    empty = times["python -c pass"]
    rows = [
        (
            name,
            spread(seconds, ".3f"),
            spread(seconds - empty, ".3f"),
            spread(seconds / times["import numpy"], ".2f"),
            imported[name].strip().replace(" ", ", ") or "none",
        )
        for name, seconds in times.items()
    ]
    print_machine()
    table(("process", "s", "s beyond python", "time / numpy", f"of {', '.join(HEAVY)}"), rows)
    return 0


def run(code: str) -> str:
    """Standard output of a fresh Python that runs `code` in the checkout."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"python -c {code!r} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
