from __future__ import annotations

import pytest

from camserve_server.base.config import ConfigError, load, unknown_variables
from camserve_server.cli.stack import edge_settings
from camserve_server.edge.settings import ReplicaTls


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_flags_go_over_the_environment_over_the_file_over_defaults(monkeypatch, tmp_path):
    (tmp_path / "camserve.toml").write_text("edge_port = 1001\ngrpc_port = 1002\nmax_batch = 3\n")
    monkeypatch.setenv("CAMSERVE_EDGE_PORT", "2001")
    monkeypatch.setenv("CAMSERVE_GRPC_PORT", "2002")
    settings = load(edge_port=3001)
    assert (settings.edge_port, settings.grpc_port, settings.max_batch, settings.metrics_port) == (3001, 2002, 3, 9464)


@pytest.mark.parametrize(
    ("name", "value"),
    [("EDGE_PORT", "http"), ("EDGE_PORT", "0"), ("DEVICE", "tpu"), ("MAX_BATCH", "0"), ("OBJECTS_URL", "ftp://x")],
)
def test_a_bad_value_names_the_setting_and_the_value(monkeypatch, name, value):
    monkeypatch.setenv(f"CAMSERVE_{name}", value)
    with pytest.raises(ConfigError) as caught:
        load()
    assert f"CAMSERVE_{name}={value!r}" in str(caught.value)


def test_an_unknown_key_of_the_file_is_refused(tmp_path):
    (tmp_path / "camserve.toml").write_text("edge_prot = 1\n")
    with pytest.raises(ConfigError, match="EDGE_PROT"):
        load()


def test_ports_must_differ():
    with pytest.raises(ConfigError, match="must differ"):
        load(edge_port=5000, grpc_port=5000)


@pytest.mark.parametrize(("host", "tls"), [("127.0.0.1", False), ("api", True)])
def test_limiters_speak_tls_where_they_are_not_on_loopback(host, tls, tmp_path):
    settings = load(replicas="api:50051", limiters=f"{host}:50052", grpc_tls_ca=tmp_path / "ca.pem")
    assert settings.edge_limiters == ((host, 50052),)
    assert settings.edge_limiters_tls is tls
    edge = edge_settings(settings, tmp_path, tmp_path)
    assert edge.replica_tls == ReplicaTls(tmp_path / "ca.pem", "api")
    assert edge.limiter_tls == (edge.replica_tls if tls else None)


def test_the_internal_port_off_loopback_needs_a_certificate_and_speaks_tls(tmp_path):
    with pytest.raises(ConfigError, match=r"internal_host=0\.0\.0\.0 is not loopback"):
        load(internal_host="0.0.0.0")
    settings = load(internal_host="0.0.0.0", grpc_tls_cert=tmp_path / "cert", grpc_tls_key=tmp_path / "key")
    assert (settings.internal_tls, settings.internal_target) == (True, "localhost:50052")
    assert (settings.edge_limiters, settings.edge_limiters_tls) == ((("localhost", 50052),), True)


def test_grpc_off_loopback_needs_a_certificate():
    with pytest.raises(ConfigError, match="grpc_tls_cert"):
        load(grpc_host="0.0.0.0")


@pytest.mark.parametrize(
    "address", ["ftp://x", "https://", "images.example.com", "https://a.example/?b=c", "https://a b/"]
)
def test_links_begin_with_a_web_address(address):
    with pytest.raises(ConfigError, match="PUBLIC_URL"):
        load(public_url=address)


def test_an_edge_leads_to_the_replica_here_or_to_those_that_are_named():
    alone = load()
    assert (alone.edge_replicas, alone.edge_limiters) == ((("127.0.0.1", 50051),), (("127.0.0.1", 50052),))
    several = load(replicas="127.0.0.1:1, [::1]:2,images-a:3", limiters="")
    assert several.edge_replicas == (("127.0.0.1", 1), ("::1", 2), ("images-a", 3))
    assert several.edge_limiters == ()
    assert load(replicas="a:1", limiters="127.0.0.1:2").edge_limiters == (("127.0.0.1", 2),)


def test_several_replicas_here_have_ports_of_their_own_and_the_edge_leads_to_all():
    two = load(replica_count=2, grpc_port=4001, internal_port=4002, metrics_port=4003)
    assert two.replica_ports(1) == {"grpc_port": 4011, "internal_port": 4012, "metrics_port": 4013}
    assert two.edge_replicas == (("127.0.0.1", 4001), ("127.0.0.1", 4011))
    assert two.edge_limiters == (("127.0.0.1", 4002), ("127.0.0.1", 4012))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"replica_count": 2, "grpc_port": 5000, "internal_port": 5010}, "must differ"),
        ({"replica_count": 2, "edge_port": 50061}, "must differ"),
        ({"replica_count": 2, "grpc_port": 65530}, "above 65535"),
        ({"replica_count": 2, "replicas": "a:1"}, "exclude each other"),
    ],
)
def test_replicas_here_without_room_for_their_ports_are_refused(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        load(**settings)


@pytest.mark.parametrize("listener", ["127.0.0.1", "a:0", "a:65536", "http://a:1", "a b:1", ":1"])
def test_replicas_are_hosts_with_ports(listener):
    with pytest.raises(ConfigError, match="REPLICAS"):
        load(replicas=listener)


def test_an_unknown_variable_is_found(monkeypatch):
    monkeypatch.setenv("CAMSERVE_EGDE_PORT", "1")
    assert unknown_variables() == ["CAMSERVE_EGDE_PORT"]


def test_a_child_process_loads_the_same_settings(monkeypatch):
    settings = load(edge_port=4001, cors_origins="https://a.example,https://b.example")
    for name, value in settings.environment().items():
        if name.startswith("CAMSERVE_"):
            monkeypatch.setenv(name, value)
    assert load() == settings


def test_secrets_are_masked(monkeypatch):
    monkeypatch.setenv("CAMSERVE_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in repr(load())


ISSUER = {"jwt_external_issuer": "https://id.example.com"}


@pytest.mark.parametrize(
    "settings",
    [
        ISSUER,
        {"jwt_jwks_url": "https://id.example.com/jwks"},
        {"jwt_jwks_file": "jwks.json"},
        {**ISSUER, "jwt_jwks_url": "https://id.example.com/jwks", "jwt_jwks_file": "jwks.json"},
    ],
)
def test_another_issuer_has_its_keys_in_one_place(settings):
    with pytest.raises(ConfigError, match="either jwt_jwks_file or jwt_jwks_url"):
        load(**settings)


def test_another_issuer_is_not_this_one():
    with pytest.raises(ConfigError, match="must not be jwt_issuer"):
        load(jwt_external_issuer="https://camserve.local", jwt_jwks_file="jwks.json")


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example.com",
        "https://id.example.com:8443/realms/a/certs?p=policy",
        "https://[2001:db8::1]/jwks",
        "http://127.0.0.1:9000/jwks",
        "http://[::1]:9000/jwks",
        "http://localhost/jwks",
    ],
)
def test_keys_are_fetched_by_https_or_from_this_machine(url):
    assert load(**ISSUER, jwt_jwks_url=url).jwt_jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/jwks",
        "http://10.0.0.1/jwks",
        "http://localhost.example.com/jwks",
        "http://127.0.0.1@example.com/jwks",
        "http://127.0.0.1.example.com/jwks",
        "https://user:secret@id.example.com/jwks",
        "https://id.example.com/jwks#keys",
        "https://id.example.com/a b",
        "https:///jwks",
        "file:///etc/passwd",
    ],
)
def test_keys_are_fetched_from_nowhere_else(url):
    with pytest.raises(ConfigError, match="JWT_JWKS_URL"):
        load(**ISSUER, jwt_jwks_url=url)


def test_an_image_must_fit_into_the_memory_for_images():
    assert load(max_image_bytes=128 << 20, upload_memory_mb=128).max_image_bytes == 128 << 20
    with pytest.raises(ConfigError, match=r"max_image_bytes=134217729 .* upload_memory_mb=128"):
        load(max_image_bytes=(128 << 20) + 1, upload_memory_mb=128)


def test_dates_of_methods_are_days_or_times_and_reach_a_child_process(monkeypatch):
    dates = '{"InferenceService.Infer": {"deprecated_at": "2027-01-01", "sunset_at": "2027-07-01T12:00:00+02:00"}}'
    monkeypatch.setenv("CAMSERVE_DEPRECATED_METHODS", dates)
    settings = load()
    ends = settings.deprecated_methods["InferenceService.Infer"]
    assert ends.deprecated_at.timestamp() == 1_798_761_600
    assert ends.sunset_at.timestamp() == 1_814_436_000
    monkeypatch.setenv("CAMSERVE_DEPRECATED_METHODS", settings.environment()["CAMSERVE_DEPRECATED_METHODS"])
    assert load() == settings


@pytest.mark.parametrize("link", ["ftp://x", 'https://x/">', "https://x/ y", "https://x/\r\nset-cookie:a"])
def test_a_link_that_would_break_its_header_is_refused(link):
    with pytest.raises(ConfigError, match="DEPRECATED_METHODS"):
        load(deprecated_methods={"InferenceService.Infer": {"deprecated_at": "2027-01-01", "link": link}})
