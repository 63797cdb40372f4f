"""Feeds kerasdet what strangers may send (see `hostile.py`), and counts what comes of it.

    python bench/fuzz.py --cases 100000 --model mine.tflite

Every chunk of cases runs in a process of its own, with limited memory and time; a `.tflite` case runs in one
each, as `kerasdet.load` tries a file. What is left over, a crash, a hang, another error than a clear one, is
written into --out, and the exit code is 1. A `.tflite` on which LiteRT breaks down in the process that
tries it is counted on its own: kerasdet refuses the file then.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import warnings

import hostile
import numpy as np
from common import table
from hypothesis import HealthCheck, Phase, given, seed, settings

CHUNK, MEMORY, SECONDS = 500, 3 * 2**30, 20
# Of all cases, the share of each kind.
SHARES = {"sets": 0.6, "photos": 0.25, "models": 0.15}


def read_set(folder: pathlib.Path, files: dict) -> str:
    """"read", "refused", or what is wrong with how it went."""
    import kerasdet.data

    inner = folder / "set"
    shutil.rmtree(inner, ignore_errors=True)
    hostile.write_set(inner, files)
    try:
        kerasdet.data.load(inner)
    except (ValueError, FileNotFoundError) as error:
        named = any(os.path.basename(name) in str(error) for name in (inner, *files))
        return "refused" if named else f"no file named: {error!r}"
    return "read"


def read_photo(folder: pathlib.Path, data: bytes) -> str:
    from kerasdet import photo

    path = folder / "photo.jpg"
    path.write_bytes(data)
    try:
        photo.read(path)
    except ValueError as error:
        return "refused" if "photo.jpg: " in str(error) else f"no file named: {error!r}"
    return "read"


def run_model(folder: pathlib.Path, data: bytes) -> str:
    """As `kerasdet.load` does: in a process of its own."""
    from kerasdet.deploy.litert import LiteRTDetector

    path = folder / "model.tflite"
    path.write_bytes(data)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            hung = os.WTERMSIG(status) == signal.SIGALRM
            return "did not end in the trial" if hung else "broke LiteRT in the trial"
        return {0: "read", 3: "refused"}.get(os.WEXITSTATUS(status), f"exit code {os.WEXITSTATUS(status)}")
    try:
        signal.alarm(SECONDS)
        detector = LiteRTDetector(path, threads=1)
        side = detector.image_size
        detector.detect(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
        os._exit(0)
    except ValueError as error:
        os._exit(3 if "model.tflite: " in str(error) else 4)
    except BaseException:
        os._exit(5)


KINDS = {"sets": read_set, "photos": read_photo, "models": run_model}
GOOD = ("read", "refused", "broke LiteRT in the trial", "did not end in the trial")


def run_chunk(kind: str, strategy, number: int, count: int, work: pathlib.Path, out: pathlib.Path) -> dict:
    """Runs `count` cases in a child; outcome -> number of cases."""
    result = work / "result.json"
    result.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        warnings.simplefilter("ignore")
        counts: collections.Counter[str] = collections.Counter()

        @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))
        @seed(number)
        @given(strategy)
        def run(case):
            # What is there when the process dies is what it died of.
            (work / "case").write_text(repr(case)[:100_000] if kind == "sets" else case.hex()[:20_000_000])
            signal.alarm(SECONDS)
            try:
                outcome = KINDS[kind](work, case)
            except BaseException as error:
                outcome = f"{type(error).__name__}: {str(error)[:100]}"
            signal.alarm(0)
            counts[outcome] += 1
            if outcome not in GOOD:
                shutil.copy(work / "case", out / f"{kind}_{number}_{sum(counts.values())}.txt")

        run()
        result.write_text(json.dumps(counts))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not result.exists():
        shutil.copy(work / "case", out / f"{kind}_{number}_died.txt")
        return {f"process died, status {status}": 1}
    return json.loads(result.read_text())


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a sound .tflite, a small one")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("fuzz_out"), help="what failed")
    parser.add_argument("--first", type=int, default=0, help="number of the first chunk, to go on from there")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    strategies = {
        "sets": hostile.sets(), "photos": hostile.photos(), "models": hostile.models(args.model.read_bytes())
    }
    totals = {kind: collections.Counter() for kind in KINDS}
    with tempfile.TemporaryDirectory() as work:
        for kind, share in SHARES.items():
            left, number = round(args.cases * share), args.first
            while left > 0:
                count = min(CHUNK, left)
                totals[kind].update(
                    run_chunk(kind, strategies[kind], number, count, pathlib.Path(work), args.out)
                )
                left, number = left - CHUNK, number + 1
                print(f"{kind}: {dict(totals[kind])}", file=sys.stderr, flush=True)
    rows = [(kind, outcome, count) for kind, counts in totals.items() for outcome, count in counts.items()]
    table(("kind", "outcome", "cases"), [(kind, outcome, str(count)) for kind, outcome, count in rows])
    failed = sum(count for _, outcome, count in rows if outcome not in GOOD)
    print(f"{sum(count for _, _, count in rows)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
