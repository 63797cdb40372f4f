"""ExportReport: what an export made, how fast it is, and how far it departs from Keras."""

from __future__ import annotations

import dataclasses


class ParityError(RuntimeError):
    """An exported file does not do what the Keras detector does. Nothing was written."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """How an exported file agrees with the Keras detector on the same photos.

    Boxes that score .3 or higher are compared; in float32, the five best of each photo as well. Two boxes
    match if they have one class and overlap by IoU .8, unless one scores .3 and the other less than .1.
    Of raw heads it is the boxes that the detector makes of them, and `raw_error` is filled too; of detectors
    with proposals it is that of the heads of those proposals that match.

    Parts, such as heads, are those of the boxes that match: they agree if they overlap by IoU .5 or lie no
    more than a pixel apart.

    Attributes:
        photos: how many, and `source`, which ("check_photos", "calibration" or "synthetic").
        boxes: how many of Keras' boxes were compared.
        matched: share of them that the file finds, or share of the file's that Keras finds,
            whichever is lower, 0 to 1.
        score_difference, box_difference: largest over the matched boxes; in the square's pixels. The cells of
            outlines, which are probabilities too, count as scores.
        mean_score_difference: mean over the matched boxes.
        ap, keras_ap: COCO AP of file and Keras on these photos, None without labels.
        parts: share of the parts that agree, 0 to 1.
        raw_error: head -> error. Float: largest difference over the head's largest value (at least
            1). int8: root of the mean squared difference over the head's standard deviation.
    """

    photos: int
    source: str
    boxes: int = 0
    matched: float = 1.0
    score_difference: float = 0.0
    box_difference: float = 0.0
    mean_score_difference: float = 0.0
    ap: float | None = None
    keras_ap: float | None = None
    parts: float = 1.0
    raw_error: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export` did. Printing it gives a table.

    Attributes:
        path: file or folder written.
        precision, outputs, input_dtype: as asked for.
        output_shapes: name -> shape, in the file's order.
        size: bytes.
        latency_ms: median of one inference on this machine's CPU with `threads` threads.
        parity: see `Parity`.
        operators: LiteRT operator -> how often it stands in the file, most frequent first.
        scales: for int8, tensor in which eight bits end -> size of its quantisation step.
        calibrated: for int8, on how many photos, and of which classes they have labelled objects.
    """

    path: str
    precision: str
    outputs: str
    input_dtype: str
    output_shapes: dict[str, tuple[int, ...]]
    size: int
    parity: Parity
    latency_ms: float | None = None
    threads: int = 2
    operators: dict[str, int] = dataclasses.field(default_factory=dict)
    scales: dict[str, float] = dataclasses.field(default_factory=dict)
    calibrated: str = ""

    def __str__(self) -> str:
        rows = [
            ("written", self.path),
            ("precision", f"{self.precision}, input {self.input_dtype}"),
            ("size", f"{self.size / 1e6:.2f} MB"),
        ]
        if self.latency_ms is not None:
            rows.append(("latency", f"{self.latency_ms:.1f} ms, {self.threads} CPU threads, here"))
        for name, shape in self.output_shapes.items():
            rows.append((f"{self.outputs} output", f"{name} {shape}"))
        if self.calibrated:
            rows.append(("calibrated on", self.calibrated))
        for name, step in self.scales.items():
            rows.append(("int8 step", f"{step:.4g} in {name}"))
        rows += _parity_rows(self.parity)
        if self.operators:
            most = [f"{name} {count}" for name, count in list(self.operators.items())[:6]]
            rest = f", {len(self.operators) - 6} more kinds" if len(self.operators) > 6 else ""
            rows.append(("operators", ", ".join(most) + rest))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _parity_rows(parity: Parity) -> list[tuple[str, str]]:
    source = {"synthetic": "drawn scenes (give check_photos=, or --calibration, for yours)"}
    rows = [("compared on", f"{parity.photos} photos: {source.get(parity.source, parity.source)}")]
    if parity.raw_error:
        rows += [("error", f"{error:.2g} in {name}") for name, error in parity.raw_error.items()]
    rows.append(("agreement", f"{parity.matched:.1%} of {parity.boxes} boxes found by both"))
    if parity.boxes:
        rows.append(
            (
                "differences",
                f"score {parity.score_difference:.2g} (mean {parity.mean_score_difference:.2g}), "
                f"box {parity.box_difference:.2g} px of the network's square",
            )
        )
    if parity.parts < 1:
        rows.append(("parts", f"{parity.parts:.1%} where Keras has them"))
    if parity.ap is not None:
        # To compare: they may be photos that it was trained on.
        rows.append(("AP on these", f"{parity.ap:.3f} (Keras {parity.keras_ap:.3f})"))
    return rows
