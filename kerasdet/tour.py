"""`make demo`: the whole road once, from a photo to a phone's file, in a few minutes."""

from __future__ import annotations

import os
import pathlib
import sys
import time

import numpy as np

# Scenes, epochs and rate of the fine-tuning: about a minute of two CPU cores.
SCENES, HELD_OUT, EPOCHS, BATCH, RATE = 128, 48, 5, 16, 5e-4
# What LiteRT and MediaPipe may differ by on the same photo.
MAX_PIXELS, MAX_SCORE = 2.0, 0.02
# What scores less is not looked at.
FAINT = 0.01


def main(out: str | os.PathLike = "out") -> int:
    """Runs the demo and returns 0 if everything agreed, 1 if not.

    Finds people on a real photo, fine-tunes on drawn scenes, exports int8, and runs the file through
    LiteRT and MediaPipe Tasks; where MediaPipe cannot run, it says so first and goes without. Pictures and
    files go into `out`.

    Raises:
        ImportError: scikit-image (for the photo) or mediapipe is missing.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from rich.console import Console
    from rich.table import Table
    from skimage import data as photos

    import kerasdet
    from kerasdet.data import scenes
    from kerasdet.deploy.mediapipe import missing_packages

    say = Console().print
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    missing = missing_packages()
    if missing:
        left_out = f"left out: MediaPipe needs {' and '.join(missing)}"
        say(f"[yellow]{left_out}; to run it too: sudo apt-get install {' '.join(missing)}[/yellow]")

    say("[bold]1  People on a photo[/bold]")
    model = kerasdet.zoo.load("csp")
    found = model.detect(photos.astronaut(), score=0.3)
    found.draw().save(out / "astronaut.jpg")
    say(f"   {found!r}")
    folder = out / "scenes"
    train = scenes.write_scenes(folder, SCENES, seed=1)
    val = scenes.write_scenes(folder, HELD_OUT, seed=1, split="val")
    model.detect(val[0].path).draw().save(out / "scene_before.jpg")

    say("[bold]2  Fine-tuning on drawn scenes[/bold]")
    model = kerasdet.zoo.load("csp", classes=train.classes)
    before = model.evaluate_detections(val)
    start = time.perf_counter()
    model.compile(keras.optimizers.AdamW(RATE))
    model.fit(train.batches(BATCH, model, training=True), epochs=EPOCHS, verbose=2)
    minutes = (time.perf_counter() - start) / 60
    after = model.evaluate_detections(val)
    model.save(out / "mine.keras")
    model.detect(val[0].path).draw().save(out / "scene_after.jpg")

    say("[bold]3  A file for the phone[/bold]")
    report = model.export(out / "mine.tflite", precision="int8", calibration=train, overwrite=True)
    say(f"   {report}")
    phone = kerasdet.load(out / "mine.tflite")
    on_file = phone.evaluate_detections(val)
    phone.detect(val[0].path).draw().save(out / "scene_int8.jpg")

    say("[bold]4  The same file in MediaPipe Tasks[/bold]")
    agreed = None if missing else agreement(phone, out / "mine.tflite", [sample.path for sample in val])

    table = Table(title="make demo")
    for column in ("what", "value"):
        table.add_column(column)
    table.add_row("AP on drawn scenes, preset as it comes", f"{before['AP']:.3f}")
    table.add_row(f"AP after {minutes:.1f} minutes of fine-tuning", f"{after['AP']:.3f}")
    table.add_row("AP of the int8 file", f"{on_file['AP']:.3f}")
    table.add_row("size of the int8 file", f"{report.size / 1e6:.1f} MB")
    table.add_row(f"latency, {report.threads} threads of this CPU", f"{report.latency_ms:.1f} ms")
    if agreed is None:
        table.add_row("LiteRT and MediaPipe", left_out)
    else:
        pixels, score, boxes = agreed
        table.add_row(
            f"LiteRT and MediaPipe on {boxes} boxes differ by at most", f"{pixels:.2f} px, {score:.3f} score"
        )
    say(table)
    say(f"pictures and files: {out.resolve()}")
    wrong = complaints(before["AP"], after["AP"], agreed)
    for text in wrong:
        say(f"[red]{text}[/red]")
    return 1 if wrong else 0


def complaints(before: float, after: float, agreed: tuple[float, float, int] | None) -> list[str]:
    """What went wrong on the road: AP before and after fine-tuning, and what `agreement` gives, if asked."""
    wrong = []
    if not after > before:
        wrong.append("fine-tuning did not raise AP")
    if agreed is not None and (agreed[2] == 0 or agreed[0] > MAX_PIXELS or agreed[1] > MAX_SCORE):
        wrong.append(f"LiteRT and MediaPipe disagree (more than {MAX_PIXELS} px or {MAX_SCORE} score)")
    return wrong


def agreement(phone, path, photos: list[str], score: float = 0.2) -> tuple[float, float, int]:
    """How far the same file differs between LiteRT and MediaPipe Tasks.

    Args:
        phone: the file's `LiteRTDetector`.
        path: the file.
        photos: paths of photos.
        score: boxes that score lower, in both, are not compared.

    Returns:
        Largest difference of a box side in pixels of the network's square, of a score, and how many
        boxes were compared, each side's with the other's of the same class. A box that one of the two does
        not find counts as infinitely far.
    """
    from kerasdet.deploy.mediapipe import MediaPipeDetector

    pixels, scores, count = 0.0, 0.0, 0
    with MediaPipeDetector(path, score=FAINT) as detector:
        for photo in photos:
            ours = phone.detect(photo, score=FAINT)
            (theirs,) = detector.detect([ours.photo])
            scale = phone.image_size / np.array([*ours.photo.shape[1::-1]] * 2)
            for one, other in ((ours, theirs), (theirs, ours)):
                for row in np.flatnonzero(one.scores >= score):
                    count += 1
                    same = np.flatnonzero(other.labels == one.labels[row])
                    if not len(same):
                        return float("inf"), float("inf"), count
                    away = np.abs(other.boxes[same] - one.boxes[row]) * scale
                    nearest = int(np.argmin(away.max(1)))
                    # MediaPipe rounds boxes to whole pixels of the photo: half of one is not a difference.
                    pixels = max(pixels, float((away[nearest] - scale / 2).max()))
                    scores = max(scores, abs(float(other.scores[same[nearest]] - one.scores[row])))
    return pixels, scores, count


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
