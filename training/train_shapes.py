"""Trains one version of the bundled model `shapes`, measures it and writes its model directory."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from camserve_server.engine.architectures.shapes import ShapesNet
from training.dataset import Dataset, build
from training.fitting import Recipe, Round, fit
from training.foreign_scenes import draw_foreign_scene
from training.publishing import publish
from training.report import measure

RECIPES = {
    "1": Recipe(
        version="1",
        side=160,
        network={"widths": [16, 24, 48, 64], "blocks": [1, 1, 1], "features": 48},
        train_count=56_000,
        rounds=(Round(4_500, 1_800, 3e-3), Round(0, 2_400, 1.5e-3)),
    ),
    "2": Recipe(
        version="2",
        side=160,
        network={"widths": [16, 32, 64, 96], "blocks": [1, 1, 2], "features": 64},
        train_count=56_000,
        rounds=(Round(4_000, 1_400, 3e-3), Round(0, 2_000, 1.5e-3)),
    ),
}

_POLISH_RATE = 1e-3
ROOT = Path(__file__).resolve().parents[1]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.train_shapes", description=__doc__)
    parser.add_argument("--version", choices=sorted(RECIPES), default="2")
    parser.add_argument("--seed", type=int, default=0, help="initial weights, order and augmentation")
    parser.add_argument("--train-seed", type=int, default=6, help="series of the scenes to learn from")
    parser.add_argument("--calibration-seed", type=int, default=2003, help="series that fits the temperature")
    parser.add_argument("--held-out-seed", type=int, default=1003, help="series of the scenes that are only measured")
    parser.add_argument("--foreign-seed", type=int, default=3003, help="series of the foreign scenes")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the scenes and steps, for a quick trial")
    parser.add_argument("--polish", type=int, default=0, metavar="STEPS", help="go on from the weights that are there")
    parser.add_argument("--train-count", type=int, default=0, metavar="N", help="scenes to learn from")
    parser.add_argument("--measure-only", action="store_true", help="keep the weights that are there")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and processes that draw")
    parser.add_argument("--cache", type=Path, default=Path(".camserve/training"), help="where drawn scenes are kept")
    parser.add_argument("--out", type=Path, default=None, help="model directory; default models/shapes/VERSION")
    return parser.parse_args()


def _trained(options: argparse.Namespace, recipe: Recipe, out: Path) -> tuple[ShapesNet, int]:
    """Returns the network and the seconds it took; 0 where the weights were there already."""
    network: ShapesNet | None = None
    if options.measure_only or options.polish:
        network = ShapesNet(**recipe.network)
        network.load_state_dict(load_file(out / "weights.safetensors"))
    if options.measure_only:
        assert network is not None
        return network.eval(), 0
    scenes = build(options.cache, options.train_seed, recipe.train_count, recipe.side, processes=options.threads)
    started = time.monotonic()
    for number, plan in enumerate(recipe.rounds):
        network = fit(recipe, plan, scenes, options.seed + number, start=network)
    assert network is not None
    return network, round(time.monotonic() - started)


def main() -> None:
    """Runs the whole way from drawing to the files of the version, and prints the figures."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.version]
    if options.train_count:
        recipe = replace(recipe, train_count=options.train_count)
    if options.polish:
        recipe = replace(recipe, rounds=(Round(0, options.polish, _POLISH_RATE),))
    if options.scale != 1.0:
        recipe = replace(
            recipe,
            train_count=round(recipe.train_count * options.scale),
            rounds=tuple(
                Round(round(plan.close_steps * options.scale), round(plan.full_steps * options.scale), plan.peak_rate)
                for plan in recipe.rounds
            ),
        )
    out = options.out or ROOT / "models" / "shapes" / options.version
    network, seconds = _trained(options, recipe, out)

    def scenes(seed: int, count: int, *, foreign: bool = False) -> Dataset:
        if foreign:
            return build(options.cache, seed, count, recipe.side, processes=options.threads, draw=draw_foreign_scene)
        return build(options.cache, seed, count, recipe.side, processes=options.threads)

    figures = measure(
        network,
        held_out=scenes(options.held_out_seed, 4_000),
        calibration=scenes(options.calibration_seed, 3_000),
        foreign=scenes(options.foreign_seed, 2_000, foreign=True),
    )
    figures["training"] = {
        "command": " ".join(["python -m training.train_shapes", *sys.argv[1:]]),
        "seeds": {
            "weights": options.seed,
            "train": options.train_seed,
            "calibration": options.calibration_seed,
            "held_out": options.held_out_seed,
            "foreign": options.foreign_seed,
        },
        "scenes": recipe.train_count,
        "close_steps": sum(plan.close_steps for plan in recipe.rounds),
        "full_steps": sum(plan.full_steps for plan in recipe.rounds),
        "fit_s": seconds,
    }
    publish(out, recipe, network, figures, scenes(options.held_out_seed, 4_000))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
