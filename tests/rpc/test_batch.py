from __future__ import annotations

import grpc
import pytest
from tests.images import encoded, star_png

from camserve.v1 import inference_pb2 as pb

KIND = pb.StreamEvent


def entry(name, data=None, **options):
    return pb.BatchInput(id=name, image=pb.ImageInput(bytes=star_png() if data is None else data), **options)


async def events(client, inputs, **changes):
    message = pb.InferBatchRequest(**({"model": "shapes", "inputs": inputs} | changes))
    return [event async for event in client.inference.InferBatch(message, metadata=client.metadata)]


async def test_every_input_gets_an_item_and_the_last_event_is_done(client):
    seen = await events(client, [entry(f"i{n}") for n in range(40)])
    assert {event.item.id for event in seen[:-1]} == {f"i{n}" for n in range(40)}
    assert all(event.item.result.classes[0].id == "star" for event in seen[:-1])
    told = {(event.item.result.labels_version, event.item.result.calibration_version) for event in seen[:-1]}
    assert told == {("1", "1")}
    assert seen[-1].event == KIND.done
    assert (seen[-1].summary.items, seen[-1].summary.succeeded, seen[-1].summary.failed) == (40, 40, 0)


async def test_a_bad_input_fails_alone(client):
    seen = await events(client, [entry("good"), entry("bad", b"nothing"), entry("empty", b"")])
    items = {event.item.id: event.item for event in seen if event.event == KIND.item}
    assert items["good"].status == pb.BatchItem.succeeded
    assert items["bad"].error.code == "image.invalid_format"
    assert items["empty"].error.code == "image.source_required"
    assert (seen[-1].summary.succeeded, seen[-1].summary.failed) == (1, 2)


async def test_every_input_has_its_own_options(client):
    inputs = [
        entry("one", classify=pb.ClassificationOptions(top_k=1)),
        entry("map", grad_cam=pb.GradCAMOptions(enabled=True, target="heart")),
    ]
    items = {event.item.id: event.item for event in await events(client, inputs) if event.event == KIND.item}
    assert len(items["one"].result.classes) == 1
    assert not items["one"].result.HasField("heatmap")
    assert items["map"].result.heatmap.target == "heart"


@pytest.mark.parametrize(
    ("inputs", "changes", "reason"),
    [
        ([], {}, "batch.empty"),
        ([entry(f"i{n}", b"x") for n in range(257)], {}, "batch.too_large"),
        ([entry("a"), entry("a")], {}, "batch.duplicate_id"),
        ([entry("")], {}, "param.invalid"),
        ([entry("a")], {"model": "nobody"}, "model.not_found"),
        ([entry("a", grad_cam=pb.GradCAMOptions(enabled=True, layer="nowhere"))], {}, "param.layer_not_found"),
    ],
)
async def test_a_batch_that_cannot_begin_is_refused_whole(client, refusal, inputs, changes, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events(client, inputs, **changes)
    assert refusal(caught.value).reason == reason


MAP_OVER_PICTURE = pb.GradCAMOptions(enabled=True, format="npy", overlay=True)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (entry("b", grad_cam=pb.GradCAMOptions(enabled=True, layer="nowhere")), "inputs[1].grad_cam.layer"),
        (
            entry("b", grad_cam=pb.GradCAMOptions(enabled=True, format="npy", overlay=True)),
            "inputs[1].grad_cam.overlay",
        ),
        (entry("b", resize=pb.Resize(longest_side=15)), "inputs[1].resize.longest_side"),
        (pb.BatchInput(id="b"), "inputs[1]"),
        (entry(""), "inputs[1].id"),
    ],
)
async def test_a_refusal_names_the_input(client, refusal, wrong, field):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events(client, [entry("a"), wrong])
    assert refusal(caught.value).error.details["field"] == field


async def test_a_caller_who_leaves_midway_frees_the_engine(client):
    message = pb.InferBatchRequest(model="shapes", inputs=[entry(f"i{n}", encoded(64, 64)) for n in range(200)])
    call = client.inference.InferBatch(message, metadata=client.metadata)
    await call.read()
    call.cancel()
    answer = await client.inference.Infer(
        pb.InferRequest(model="shapes", image=pb.ImageInput(bytes=star_png())), metadata=client.metadata
    )
    assert answer.classes[0].id == "star"
