from __future__ import annotations

import grpc
import pytest

from camserve.v1 import models_pb2 as pb


async def test_the_listing_has_every_version_newest_first(client):
    answer = await client.models.ListModels(pb.ListModelsRequest(), metadata=client.metadata)
    models = {model.model: model.versions for model in answer.models}
    assert [version.version for version in models["shapes"]] == ["2", "1"]
    assert answer.page.size == len(answer.models) == 2
    newest = models["shapes"][0]
    assert (newest.state, newest.golden) == (pb.ModelVersion.ready, pb.ModelVersion.passed)
    assert list(newest.aliases) == ["stable"]
    assert newest.default_layer in newest.layers
    assert newest.classes == 10
    assert not newest.labels


async def test_a_model_that_cannot_load_is_listed_with_the_reason(client):
    model = await client.models.GetModel(pb.GetModelRequest(model="broken"), metadata=client.metadata)
    assert model.versions[0].state == pb.ModelVersion.unavailable
    assert model.versions[0].reason
    assert "/" not in model.versions[0].reason


async def test_the_full_view_has_the_labels(client):
    message = pb.GetModelRequest(model="shapes", view="full")
    model = await client.models.GetModel(message, metadata=client.metadata)
    assert [label.id for label in model.versions[0].labels][:3] == ["circle", "ring", "crescent"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [({"model": "nobody"}, "model.not_found"), ({"model": "shapes", "view": "huge"}, "param.invalid")],
)
async def test_other_requests_are_refused(client, refusal, message, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.models.GetModel(pb.GetModelRequest(**message), metadata=client.metadata)
    assert refusal(caught.value).reason == reason
