"""From the engine's map to the heatmap of an answer: drawn, then put into the answer or stored behind a link."""

from __future__ import annotations

from camserve_server.base import tracing
from camserve_server.core.infer_options import HeatmapOptions
from camserve_server.core.infer_result import Heatmap
from camserve_server.core.links import Links
from camserve_server.engine.engine import Prediction
from camserve_server.engine.imaging import DecodedImage, ImagingPool, RenderedHeatmap, RenderRequest

INLINE_LIMIT_BYTES = 2 * 1024 * 1024
CONTENT_TYPES = {"png": "image/png", "npy": "application/x-npy"}


class Heatmaps:
    """Draws in the imaging workers, and stores."""

    def __init__(self, imaging: ImagingPool, links: Links) -> None:
        self._imaging = imaging
        self._links = links

    async def render(
        self, picture: DecodedImage, prediction: Prediction, wanted: HeatmapOptions, *, share: str, background: bool
    ) -> RenderedHeatmap:
        """Returns the file; raises what the imaging workers refuse."""
        if prediction.cam is None:
            raise RuntimeError("the engine returned no map although one was asked for")
        width, height = wanted.size or (picture.draw_width, picture.draw_height)
        with tracing.part("render", {"camserve.width": width, "camserve.height": height}):
            rendered = await self._imaging.render(
                RenderRequest(
                    cam=prediction.cam,
                    view=picture.view,
                    width=width,
                    height=height,
                    format=wanted.format,
                    colormap=wanted.colormap,
                    overlay=wanted.overlay,
                    alpha=wanted.alpha,
                    base=picture.base,
                ),
                share=share,
                background=background,
            )
            tracing.took(("imaging worker", rendered.render_ms))
        return rendered

    async def hand_over(
        self,
        tenant: str,
        rendered: RenderedHeatmap,
        wanted: HeatmapOptions,
        layer: str,
        target: str,
        *,
        inline: bool,
        keep_until: float | None,
    ) -> Heatmap:
        """Returns the answer's heatmap, which holds the file where that is wanted and small enough, else a link.

        One that is kept until a time (unix seconds) is always stored.
        """
        link = None
        if not inline or keep_until is not None or len(rendered.data) > INLINE_LIMIT_BYTES:
            link = await self._links.store(tenant, rendered.data, CONTENT_TYPES[wanted.format], keep_until=keep_until)
        return Heatmap(
            options=wanted,
            data=None if link else bytes(rendered.data),
            link=link,
            size_bytes=len(rendered.data),
            width=rendered.width,
            height=rendered.height,
            layer=layer,
            target=target,
            raw_min=rendered.raw_min,
            raw_max=rendered.raw_max,
            degenerate=rendered.degenerate,
        )
