"""Commands of `camserve models` about versions: which there are, new ones, and the end of old ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camserve_server.cli.command import DataDir, or_fail, settings_of

commands = typer.Typer()

Name = Annotated[str, typer.Argument(help="Model.")]
Version = Annotated[str, typer.Argument(help="Version.")]


@commands.command("list")
def models_list(data_dir: DataDir = None) -> None:
    """List the models of the running server: state, memory, classes, golden inputs and content of each version."""
    from camserve_server.cli.models import list_models

    for line in or_fail(list_models, settings_of(data_dir=data_dir)):
        typer.echo(line)


@commands.command("add")
def models_add(
    name: Annotated[
        str, typer.Argument(help="Model; without a file the name of a torchvision classifier, for example resnet50.")
    ],
    version: Annotated[str, typer.Option(help="Version under which it is served.")] = "1",
    weights: Annotated[
        Path | None, typer.Option(help="State dict: safetensors, or a torch file of tensors. Needs --builder.")
    ] = None,
    torchscript: Annotated[Path | None, typer.Option(help="TorchScript program. It is code: trust it first.")] = None,
    exported: Annotated[Path | None, typer.Option(help="Program of torch.export. It is code: trust it first.")] = None,
    builder: Annotated[
        str | None,
        typer.Option(
            help="Makes the network for --weights: package.module:callable, which servers must be able to import too, "
            "or torchvision:NAME."
        ),
    ] = None,
    arguments: Annotated[str | None, typer.Option(help="Arguments of the builder, as a JSON object.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Classes in the order of the outputs: a JSON list, a text with one per line (id, tab, label), or "
            "`imagenet`. Needed with a file."
        ),
    ] = None,
    labels_version: Annotated[str, typer.Option(help="Name of this list; other labels need another one.")] = "1",
    size: Annotated[
        str | None, typer.Option(help="Input in pixels, 224 or 320x240; default: that of the torchvision classifier.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="crop (default): shorter side to --resize, then the centre; pad; squash.")
    ] = None,
    resize: Annotated[int | None, typer.Option(help="Shorter side before the crop; default: the input's.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="bilinear (default) or bicubic.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Subtracted per channel, on the 0-1 scale; default: ImageNet's.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divided by per channel; default: ImageNet's.")] = None,
    pad_color: Annotated[str | None, typer.Option(help="Margin of --fit pad, 0-255; default: 128,128,128.")] = None,
    layer: Annotated[str, typer.Option(help="Layer of heatmaps; auto is the last convolutional feature map.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="float32, or bfloat16: about twice as fast where the device has it and the golden inputs agree."
        ),
    ] = "float32",
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Name that leads here, once for each; default: stable for the first version of a model."),
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="Folder of pictures that become golden inputs; default: some are drawn.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Add a version, after checks of all that can be checked. Running servers load it without a restart.

    Checked are: that it loads, its shapes, the count of its labels, its preprocessing, its answers, its heatmaps, and
    that these depend on what it has learned (Adebayo et al. 2018, arXiv:1810.03292). Where a check fails nothing is
    left behind.
    """
    from camserve_server.cli.new_models import add, new_version

    in_force = settings_of(data_dir=data_dir)
    new = or_fail(
        lambda: new_version(
            in_force,
            name,
            version,
            files={"state": weights, "torchscript": torchscript, "exported": exported},
            builder=builder,
            arguments=arguments,
            labels=labels,
            labels_version=labels_version,
            size=size,
            fit=fit,
            resize=resize,
            interpolation=interpolation,
            mean=mean,
            std=std,
            pad_color=pad_color,
            layer=layer,
            precision=precision,
            aliases=alias,
        )
    )
    typer.echo(or_fail(lambda: add(in_force, new, golden, typer.echo)))


@commands.command("calibrate")
def models_calibrate(
    name: Name,
    version: Version,
    pictures: Annotated[
        Path, typer.Argument(help="Folder with a subfolder for each class id, or CSV file with columns image, class.")
    ],
    new_version: Annotated[str | None, typer.Option("--as", help="Version to write with the new calibration.")] = None,
    calibration_version: Annotated[
        str | None, typer.Option(help="Name of the new calibration; default: the next number.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Fit a version's temperature to labelled pictures, and show how far probabilities come true before and after."""
    from camserve_server.cli.calibrate import calibrate

    in_force = settings_of(data_dir=data_dir)
    or_fail(
        lambda: calibrate(
            in_force,
            name,
            version,
            pictures,
            new_version,
            calibration_version,
            say=typer.echo,
            warn=lambda line: typer.echo(f"camserve: {line}", err=True),
        )
    )


@commands.command("verify")
def models_verify(
    name: Annotated[str | None, typer.Argument(help="Model; default: all.")] = None,
    version: Annotated[str | None, typer.Argument(help="Version; default: all that are not retired.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Send golden pictures to the running server and compare classes, probabilities and heatmaps.

    A line per version; the exit status is 1 when one of them is not as it should be.
    """
    from camserve_server.cli.verify import verify

    if not or_fail(verify, settings_of(data_dir=data_dir), name, version, typer.echo):
        raise typer.Exit(1)


@commands.command("retire")
def models_retire(
    name: Name,
    version: Version,
    force: Annotated[bool, typer.Option("--force", help="Even when routes, or a rollback, lead to it.")] = False,
    data_dir: DataDir = None,
) -> None:
    """End a version: every server that reads these folders unloads it, and calls for it get 404, for good.

    What is left of its jobs fails with model.version_not_found; answers that were given stay. Its folder stays too:
    removing the file `retired` from it brings the version back.
    """
    from camserve_server.cli.models import retire

    typer.echo(or_fail(lambda: retire(settings_of(data_dir=data_dir), name, version, force=force)))
