from __future__ import annotations

from camserve_server.base.config import load
from camserve_server.base.cores import cores
from camserve_server.cli.replica import own_settings


def test_one_replica_has_the_whole_machine_and_leaves_with_its_edge():
    ports = {"grpc_port": 50051, "internal_port": 50052, "metrics_port": 9464}
    assert own_settings(load(), 0) == {"replica_count": 1, "lame_duck_s": 0} | ports


def test_replicas_divide_what_is_a_default():
    own = own_settings(load(replica_count=4), 3)
    assert own["torch_threads"] == max(1, cores() // 4)
    assert (own["imaging_workers"], own["upload_memory_mb"]) == (1, 256)
    assert "lame_duck_s" not in own


def test_what_was_set_is_meant_for_each_replica():
    own = own_settings(load(replica_count=4, torch_threads=7, imaging_workers=8, upload_memory_mb=1024), 0)
    assert not {"torch_threads", "imaging_workers", "upload_memory_mb"} & own.keys()


def test_a_share_of_the_memory_still_holds_one_image():
    own = own_settings(load(replica_count=8, max_image_bytes=900_000_000), 0)
    assert int(str(own["upload_memory_mb"])) << 20 >= 900_000_000
