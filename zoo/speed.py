"""Times the exported files of all presets, and a peer, in one run on one machine, and says so on the cards.

    python zoo/speed.py --data DATA --reference ssd_mobilenet_v1_coco_uint8_300.tflite

Files are exported anew, so that they are what a user gets now, and take turns. A file's milliseconds are what
it takes of the reference's time in the same turn, by median, times the reference's own median: a machine that
slows down for a while slows both. Cards, the README's tables and its plots get the new times;
`zoo/peers.json`, the factor that brings its table to this machine: what the reference takes here over what it
took there. `--dry` prints the times and changes nothing.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

import kerasdet
from kerasdet.deploy import timing
from kerasdet.training.recipe import read

PUBLISH = read(pathlib.Path(__file__).parent / "publish.py")
COMMAND = "python zoo/speed.py --data DATA --reference FILE"
# Ranges of activations do not change what a file takes, nor does it matter here how well it agrees.
CALIBRATION_PHOTOS, CHECK_PHOTOS = 100, 4


def files(preset: str, data: pathlib.Path, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Exports a preset at every precision; precision -> file."""
    train, _ = read(PUBLISH.SHELF / preset / "recipe.py").sets(data)
    photos = train.subset(range(min(CALIBRATION_PHOTOS, len(train))))
    model, made = kerasdet.zoo.load(preset), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four photos say nothing of how well files agree
        for precision in PUBLISH.PRECISIONS:
            made[precision] = folder / f"{preset}_{precision}.tflite"
            model.export(
                made[precision], precision=precision, calibration=photos,
                check_photos=photos.subset(range(CHECK_PHOTOS)), on_parity="warn",
            )
    return made


def latency_rows(files: dict[str, pathlib.Path], times: dict[str, np.ndarray], reference) -> list[dict]:
    """A card's rows, of files and seconds by precision and the reference's seconds in the same turns."""
    def beside(seconds):
        return float(np.median(seconds / reference) * np.median(reference))

    return [
        PUBLISH.latency_row(precision, path.stat().st_size, beside(times[precision]), COMMAND)
        for precision, path in files.items()
    ]


def with_scale(peers: str, seconds: np.ndarray) -> str:
    """The text of `peers.json` for a machine on which the reference takes so long."""
    before = json.loads(peers)["reference"]["milliseconds"]
    now = 1000 * float(np.median(seconds))
    fields = {
        "machine": timing.processor(), "scale": round(now / before, 2),
        "scaled_by": f"SSD-MobileNetV1's {now:.1f} ms on the cards' machine ({COMMAND}, {len(seconds)} "
        f"rounds) over the {before} ms of the table",
    }
    for key, value in fields.items():
        line = f" {json.dumps(key)}: {json.dumps(value)},"
        peers, lines = re.subn(rf'(?m)^ "{key}": .*$', lambda _, line=line: line, peers)
        if lines != 1:
            raise ValueError(f"peers.json: {key} has to stand in a line of its own")
    return peers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the recipes' sets")
    parser.add_argument(
        "--reference", type=pathlib.Path, required=True, help="SSD-MobileNetV1, as zoo/peers.json names it"
    )
    parser.add_argument("--rounds", type=int, default=PUBLISH.ROUNDS)
    parser.add_argument("--dry", action="store_true", help="print the times, change nothing")
    options = parser.parse_args()
    peers = PUBLISH.SHELF / "peers.json"
    wanted = json.loads(peers.read_text())["reference"]["file"]
    if wanted not in options.reference.name or not options.reference.is_file():
        parser.error(f"--reference is {options.reference}; give the file of {wanted}")
    # Asked for now, since measuring is work too.
    if (busy := timing.disturbance()) and not options.dry:
        parser.error(f"{busy}; wait until nothing else runs, or try it with --dry")
    cards = {card.name: card for card in kerasdet.zoo.cards()}
    with tempfile.TemporaryDirectory() as work:
        made = {name: files(name, options.data, pathlib.Path(work)) for name in cards}
        tasks = {"": timing.inference(options.reference, PUBLISH.THREADS, _square(300))}
        for name, card in cards.items():
            for precision, path in made[name].items():
                tasks[name, precision] = timing.inference(path, PUBLISH.THREADS, _square(card.image_size))
        times = timing.interleave(tasks, options.rounds, settle=1, progress=True)
        rows = {
            name: latency_rows(made[name], {p: times[name, p] for p in made[name]}, times[""])
            for name in cards
        }
    table = Table("file", "ms (quartiles)", "of the reference's")
    for key, seconds in times.items():
        name = " ".join(key) or options.reference.name
        table.add_row(name, timing.spread(1000 * seconds), timing.spread(seconds / times[""]))
    Console(width=120).print(table, f"{timing.machine()}, {PUBLISH.THREADS} threads", sep="\n")
    if busy:
        print(f"note: {busy}")
    if options.dry:
        return
    peers.write_text(with_scale(peers.read_text(), times[""]))
    for name, card in cards.items():
        dataclasses.replace(card, latency=rows[name]).write(PUBLISH.SHELF / name)
    for name in cards:
        PUBLISH.tell(name)


def _square(side: int) -> np.ndarray:
    return np.zeros((side, side, 3), np.uint8)


if __name__ == "__main__":
    main()
