"""The figures that go beside a version's weights."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camserve_server.engine.architectures.shapes import ShapesNet
from camserve_server.engine.calibration import fit_temperature, reliability, softmax
from training.dataset import Dataset
from training.evaluation import Outcome, examine
from training.foreign_scenes import RENDERERS
from training.outlines import CLASSES

SIZES_PX = ((0, 20), (20, 32), (32, 64), (64, 129))
LEAST_PX = 20
"""Longest side of a box, in pixels of the model's input, from which on the accuracy floor is meant to hold."""


def _share(values: NDArray[np.bool_]) -> float:
    return round(float(values.mean()), 4) if len(values) else float("nan")


def _split(outcome: Outcome, groups: dict[str, NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "scenes": int(rows.sum()),
            "accuracy": _share(outcome.correct[rows]),
            "cam_peak_in_box": _share(outcome.peak_inside[rows]),
        }
        for name, rows in groups.items()
    }


def _only(outcome: Outcome, rows: NDArray[np.bool_]) -> Outcome:
    return Outcome(**{field.name: getattr(outcome, field.name)[rows] for field in fields(outcome)})


def _summary(outcome: Outcome, temperature: float) -> dict[str, Any]:
    return {
        "scenes": len(outcome.labels),
        "accuracy": _share(outcome.correct),
        "cam_peak_in_box": _share(outcome.peak_inside),
        "ece_before": round(reliability(softmax(outcome.logits, 1.0), outcome.labels).ece, 4),
        "ece_after": round(reliability(softmax(outcome.logits, temperature), outcome.labels).ece, 4),
    }


def measure(network: ShapesNet, held_out: Dataset, calibration: Dataset, foreign: Dataset) -> dict[str, Any]:
    """Returns the figures as plain data: held-out and foreign scenes, by class, size and renderer."""
    fitted = examine(network, calibration)
    temperature = round(fit_temperature(fitted.logits, fitted.labels), 4)
    same, other = examine(network, held_out), examine(network, foreign)
    longest = np.maximum(held_out.boxes[:, 2] - held_out.boxes[:, 0], held_out.boxes[:, 3] - held_out.boxes[:, 1])
    turns = np.arange(len(other.labels)) // len(CLASSES) % len(RENDERERS)
    return {
        "temperature": temperature,
        "held_out": _summary(_only(same, longest >= LEAST_PX), temperature),
        "held_out_all_sizes": _summary(same, temperature),
        "held_out_by_class": _split(same, {name: same.labels == number for number, name in enumerate(CLASSES)}),
        "held_out_by_size_px": _split(
            same, {f"{low}-{high - 1}": (longest >= low) & (longest < high) for low, high in SIZES_PX}
        ),
        "foreign": _summary(other, temperature),
        "foreign_by_renderer": _split(other, {name: turns == number for number, name in enumerate(RENDERERS)}),
        "foreign_by_class": _split(other, {name: other.labels == number for number, name in enumerate(CLASSES)}),
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }


def table(figures: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    training = figures["training"]
    lines = [
        "# Figures",
        "",
        "Written by the training script; the accuracy floor is 98 %, the floor for the CAM's peak in the box 95 %.",
        "",
        f"- command: `{training['command']}` ({training['scenes']} scenes, {training['close_steps']} steps on windows, "
        f"{training['full_steps']} on whole pictures, {training['fit_s']} s)",
        "- seeds: " + ", ".join(f"{name} {seed}" for name, seed in training["seeds"].items()),
        f"- parameters: {figures['parameters']:,}; weights file: {figures['weights_bytes']:,} bytes",
        f"- temperature: {figures['temperature']} (fitted on a series of its own)",
        "",
        "| scenes | number | accuracy | CAM peak in box | ECE before | ECE after |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in (
        ("held_out", f"held out, objects of {LEAST_PX} px and more in the model's input"),
        ("held_out_all_sizes", "held out, smaller ones too"),
        ("foreign", "other people's renderers, every size"),
    ):
        row = figures[name]
        lines.append(
            f"| {title} | {row['scenes']} | {row['accuracy']:.2%} | {row['cam_peak_in_box']:.2%} "
            f"| {row['ece_before']:.4f} | {row['ece_after']:.4f} |"
        )
    for name, title in (
        ("held_out_by_class", "Held out, by class"),
        ("held_out_by_size_px", "Held out, by the box's longest side in pixels of the model's input"),
        ("foreign_by_renderer", "Foreign, by renderer"),
        ("foreign_by_class", "Foreign, by class"),
    ):
        lines += ["", f"## {title}", "", "| | number | accuracy | CAM peak in box |", "|---|---|---|---|"]
        lines += [
            f"| {group} | {row['scenes']} | {row['accuracy']:.2%} | {row['cam_peak_in_box']:.2%} |"
            for group, row in figures[name].items()
        ]
    return "\n".join(lines) + "\n"
