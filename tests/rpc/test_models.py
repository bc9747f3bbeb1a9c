from __future__ import annotations

import grpc
import pytest

from camserve.v1 import models_pb2 as pb


async def test_the_listing_has_every_version_newest_first(client):
    answer = await client.models.ListModels(pb.ListModelsRequest(), metadata=client.metadata)
    models = {model.model: model.versions for model in answer.models}
    assert [version.version for version in models["shapes"]] == ["2", "1"]
    assert answer.page.size == len(answer.models) == 3
    newest = models["shapes"][0]
    assert (newest.state, newest.golden) == (pb.ModelVersion.ready, pb.ModelVersion.passed)
    assert newest.precision == "float32"
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


async def mapping(client, model, before, after):
    message = pb.GetLabelMappingRequest(model=model, to=after, **{"from": before})
    return await client.models.GetLabelMapping(message, metadata=client.metadata)


async def test_labels_versions_of_versions_that_are_not_loaded_are_mapped(client):
    answer = await mapping(client, "relabelled", "2026-01", "2026-02")
    assert (answer.model, getattr(answer, "from"), answer.to) == ("relabelled", "2026-01", "2026-02")
    change = pb.MappedClass.Change
    assert [(mapped.id, [change.Name(each) for each in mapped.changes]) for mapped in answer.classes] == [
        ("ant", ["kept"]),
        ("bee", ["renamed"]),
        ("fox", ["added"]),
        ("cat", ["moved"]),
        ("dog", ["moved", "renamed"]),
        ("emu", ["removed"]),
    ]
    assert answer.counts == pb.LabelChanges(kept=1, moved=2, renamed=2, added=1, removed=1)
    dog, emu = answer.classes[4:]
    assert getattr(dog, "from") == pb.LabelPlace(index=3, label="dog")
    assert dog.to == pb.LabelPlace(index=4, label="domestic dog")
    assert not emu.HasField("to")


async def test_labels_of_loaded_versions_are_mapped(client):
    answer = await mapping(client, "shapes", "1", "1")
    assert answer.counts == pb.LabelChanges(kept=10)
    assert [mapped.to.index for mapped in answer.classes] == list(range(10))


@pytest.mark.parametrize(
    ("asked", "reason", "field"),
    [
        (("nobody", "1", "1"), "model.not_found", None),
        (("shapes", "1", "9"), "model.version_not_found", "to"),
        (("shapes", "9", "1"), "model.version_not_found", "from"),
        (("relabelled", "9", "2026-01"), "model.version_not_found", "from"),
        (("shapes", "", "1"), "param.invalid", "from"),
        (("shapes", "1", ""), "param.invalid", "to"),
        (("shapes", "1", "1" * 129), "param.invalid", "to"),
        (("../shapes", "1", "1"), "model.not_found", None),
    ],
)
async def test_mappings_that_there_are_not_are_refused(client, refusal, asked, reason, field):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mapping(client, *asked)
    refused = refusal(caught.value)
    assert refused.reason == reason
    assert dict(refused.error.details).get("field") == field
