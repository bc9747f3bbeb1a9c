from __future__ import annotations

from camserve.v1 import inference_pb2 as pb
from camserve.v1 import jobs_pb2, uploads_pb2
from camserve_server.rpc.audit import about

OURS = "img_0123456789abcdefghijkl"


def job(*storage_ids):
    entries = [
        pb.BatchInput(id=f"patient-{n}", image=pb.ImageInput(storage_id=id_)) for n, id_ in enumerate(storage_ids)
    ]
    return jobs_pb2.CreateJobRequest(model="shapes", inputs=entries)


def test_an_image_is_named_by_its_upload():
    assert about(pb.InferRequest(image=pb.ImageInput(storage_id=OURS))) == {"storage_id": OURS}
    assert about(pb.InferRequest(image=pb.ImageInput(bytes=b"x"))) == {}
    assert about(pb.InferUploadRequest(model="shapes")) == {}


def test_a_job_names_every_upload_it_uses():
    other = OURS[:-1] + "0"
    assert about(job(OURS, other)) == {"storage_ids": [OURS, other]}
    assert about(pb.InferBatchRequest(inputs=[pb.BatchInput(image=pb.ImageInput(url="https://x.example/a"))])) == {}


def test_text_of_a_caller_is_no_id():
    for text in ("img_Jane Doe born in 1970", "patient_JaneDoeBornIn1970x", "img_short", f"{OURS}{OURS}"):
        assert about(pb.InferRequest(image=pb.ImageInput(storage_id=text))) == {}
        assert about(job(text, OURS)) == {"storage_ids": [OURS]}
        assert about(uploads_pb2.GetUploadRequest(storage_id=text)) == {}


def test_no_line_grows_with_what_a_caller_sends():
    assert len(about(job(*[OURS] * 5000))["storage_ids"]) == 256
