"""Options that several commands take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from camserve_client.client import AsyncClient
from camserve_client.options import Cam, Colormap, Method

Images = Annotated[
    list[str], typer.Argument(help="Files, folders, patterns, https:// URLs, ids of uploads, or - for the input.")
]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", envvar="CAM_MODEL", help="The model; default: the only one there is.")
]
Version = Annotated[str, typer.Option("--model-version", help="A version or an alias.")]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, max=1000, help="How many classes.")]
Layer = Annotated[str, typer.Option(help="The layer that is explained.")]
CamMethod = Annotated[Method, typer.Option(help="How the heatmap is made.")]
Target = Annotated[str | None, typer.Option(help="The class that is explained; default: the most probable.")]
Colors = Annotated[Colormap, typer.Option("--colormap", help="Its colours.")]
Overlay = Annotated[bool, typer.Option(help="Draw the heatmap over the image, or alone.")]
Npy = Annotated[bool, typer.Option("--npy", help="Numbers from 0 to 1 (NumPy's .npy) instead of pictures.")]


@dataclass(frozen=True, slots=True)
class CamOptions:
    """The options of a heatmap as they were given."""

    method: Method
    layer: str
    target: str | None
    colormap: Colormap
    overlay: bool
    npy: bool

    @property
    def cam(self) -> Cam:
        """The same for the client."""
        return Cam(
            method=self.method,
            layer=self.layer,
            target=self.target,
            colormap=self.colormap,
            format="npy" if self.npy else "png",
            overlay=self.overlay and not self.npy,
        )


async def model_of(client: AsyncClient, name: str | None) -> str:
    """Returns the model that was named, or the only one; raises ValueError where there are several."""
    if name is not None:
        return name
    names = [model.model for model in await client.models()]
    if len(names) != 1:
        raise ValueError(f"say which model: --model {' or '.join(names) or '…, of which there is none'}")
    return names[0]
