"""Feeds kerasdet what strangers may send (see `hostile.py`), and counts what comes of it.

    python bench/fuzz.py --cases 100000 --model mine.tflite --keras mine.keras

Every chunk of cases runs in a process of its own, with limited memory and time; a `.tflite` case runs in one
each, as `kerasdet.load` tries a file. What is left over, a crash, a hang, another error than a clear one, is
written into --out, and the exit code is 1. A `.tflite` on which LiteRT breaks down in the process that
tries it is counted on its own: kerasdet refuses the file then. The client, export/python/detect.py, tries
none first: where LiteRT breaks down, it does as well, and that is counted too.
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

CHUNK, SECONDS = 500, 20
# Seconds of a `.tflite` in its own process, which has to end before the one that waits for it.
TRIAL_SECONDS = 10
# Bytes of memory; importing TensorFlow takes nearly 3 GiB of address space.
MEMORY = collections.defaultdict(lambda: 3 * 2**30, keras=8 * 2**30)
# Of all cases, the share of each kind; a `.keras` takes a second and more.
SHARES = {"sets": 0.58, "photos": 0.25, "models": 0.1, "client": 0.045, "report": 0.02, "keras": 0.005}
# Where the client is, which is one file and no package.
sys.path.append(str(pathlib.Path(__file__).parents[1] / "export" / "python"))


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

    def look():
        detector = LiteRTDetector(path, threads=1)
        detector.detect(_noise(detector.image_size))

    outcome = _apart(look, path)
    return f"{outcome} in the trial" if outcome in BROKEN else outcome


def run_client(folder: pathlib.Path, data: bytes) -> str:
    """Without kerasdet. What it reads of the file itself has to go well here, before LiteRT is asked."""
    import detect as client

    path = folder / "client.tflite"
    path.write_bytes(data)
    try:
        client._about(path)
    except ValueError as error:
        return "refused" if "client.tflite: " in str(error) else f"no file named: {error!r}"

    def look():
        detector = client.Detector(path, threads=1)
        detector.detect(_noise(detector.size), score=0)

    return _apart(look, path)


def read_report(folder: pathlib.Path, data: bytes) -> str:
    """What `kerasdet report` says of a file's operators; LiteRT does not see it."""
    from kerasdet.deploy.delegates import delegate_report

    path = folder / "report.tflite"
    path.write_bytes(data)
    try:
        found = delegate_report(path)
    except ValueError as error:
        return "refused" if "report.tflite: " in str(error) else f"no file named: {error!r}"[:200]
    for accelerator in found.refused:
        found.causes(accelerator)
    return "read"


def _noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def _apart(look, path: pathlib.Path) -> str:
    """Runs `look`, which may take its process down, in one of its own; it has to name `path` in an error."""
    said = path.with_name("said.txt")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return BROKEN[os.WTERMSIG(status) == signal.SIGALRM]
        return {0: "read", 3: "refused"}.get(os.WEXITSTATUS(status)) or said.read_text()
    code = 4
    try:
        signal.alarm(TRIAL_SECONDS)
        look()
        code = 0
    except BaseException as error:
        if isinstance(error, ValueError) and f"{path.name}: " in str(error):
            code = 3
        else:
            said.write_text(f"no clear error: {error!r}"[:200])
    finally:  # whatever happens: the child must not go on as its parent
        os._exit(code)


def read_keras(folder: pathlib.Path, data: bytes) -> str:
    import kerasdet

    path = folder / "model.keras"
    path.write_bytes(data)
    try:
        kerasdet.load(path)
    except ValueError as error:
        return "refused" if "model.keras: " in str(error) else f"no file named: {error!r}"[:200]
    return "read"


KINDS = {
    "sets": read_set, "photos": read_photo, "models": run_model, "client": run_client, "report": read_report,
    "keras": read_keras,
}
BROKEN = ("broke LiteRT", "did not end")
GOOD = ("read", "refused", *BROKEN, *(f"{outcome} in the trial" for outcome in BROKEN))


def run_chunk(kind: str, strategy, number: int, count: int, work: pathlib.Path, out: pathlib.Path) -> dict:
    """Runs `count` cases in a child; outcome -> number of cases."""
    result = work / "result.json"
    result.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY[kind], MEMORY[kind]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        warnings.simplefilter("ignore")
        if kind == "keras":  # the first case is not to wait for TensorFlow
            import keras  # noqa: F401
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
        if (work / "case").exists():
            shutil.copy(work / "case", out / f"{kind}_{number}_died.txt")
        return {f"process died, status {status}": 1}
    return json.loads(result.read_text())


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a sound .tflite of ours, small")
    parser.add_argument("--keras", type=pathlib.Path, required=True, help="a sound .keras of ours, small")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("fuzz_out"), help="what failed")
    parser.add_argument("--first", type=int, default=0, help="number of the first chunk, to go on from there")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    model, saved = args.model.read_bytes(), args.keras.read_bytes()
    strategies = {
        "sets": hostile.sets(), "photos": hostile.photos(), "models": hostile.models(model),
        "client": hostile.clients(model), "report": hostile.models(model),
        "keras": hostile.keras_files(saved),
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
