"""The key, Host and Origin."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from openai import AuthenticationError
from starlette.datastructures import Headers
from tiny_servers import KEY, Running, serving

from acorn.checkpoint.load import LoadedModel
from acorn.serve.access import Access, is_loopback
from acorn.serve.request_errors import RequestError

OPEN = {"/health", "/ready"}


@pytest.fixture(scope="module")
def locked(tiny: LoadedModel) -> Iterator[Running]:
    with serving(tiny, key=KEY) as running:
        yield running


def status_of(access: Access, path: str = "/v1/models", **headers: str) -> int:
    try:
        access.check(path, Headers({name.replace("_", "-"): value for name, value in headers.items()}))
    except RequestError as error:
        return error.status
    return 200


def test_every_route_but_two_needs_the_key(locked: Running) -> None:
    _, _, description = locked.request("GET", "/openapi.json", headers={"Authorization": f"Bearer {KEY}"})
    import json

    paths = {
        path.replace("{name}", "x"): method.upper()
        for path, methods in json.loads(description)["paths"].items()
        for method in methods
    }
    assert set(paths) > OPEN
    for path, method in {**paths, "/": "GET", "/nothing": "POST"}.items():
        status, headers, body = locked.request(method, path)
        assert status == (200 if path in OPEN else 401), path
        if path not in OPEN:
            assert headers["www-authenticate"] == 'Basic realm="acorn", charset="UTF-8"'  # one scheme alone
            assert b"invalid_api_key" in body


def test_the_client_with_the_key_is_let_in(locked: Running) -> None:
    assert locked.client(KEY).models.list().data
    with pytest.raises(AuthenticationError):
        locked.client(f"{KEY}x").models.list()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY}", 200),
        ("Basic " + base64.b64encode(f"anyone:{KEY}".encode()).decode(), 200),
        ("Basic " + base64.b64encode(f":{KEY}".encode()).decode(), 200),
        ("Basic " + base64.b64encode(KEY.encode()).decode(), 401),
        ("Basic !!!", 401),
        ("Basic //79", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (KEY, 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Bearer {KEY.upper()}", 401),
        ("Bearer \xff", 401),
        ("", 401),
    ],
)
def test_forms_of_the_key(authorization: str, status: int) -> None:
    access = Access(key=KEY)
    assert status_of(access, host="localhost", authorization=authorization) == status
    assert status_of(Access(), host="localhost", authorization=authorization) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("name.example", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example@localhost", 403),
        ("localhost/evil", 403),
        ("10.0.0.1", 403),
        ("", 403),
        ("[", 403),
        ("localhost:x", 403),
    ],
)
def test_foreign_hosts_are_refused(host: str, status: int) -> None:
    access = Access.of("127.0.0.1", ["Name.example"], None)
    assert status_of(access, host=host) == status
    assert status_of(access, "/health", host=host) == status


def test_a_server_of_all_addresses_is_called_by_any_address() -> None:
    access = Access.of("0.0.0.0", [], KEY)
    assert status_of(access, "/health", host="10.0.0.1:8000") == 200
    assert status_of(access, "/health", host="evil.example") == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("http://localhost:3000", 403),
        ("http://localhost", 403),
        ("https://localhost:8000", 200),
        ("https://name.example", 200),
        ("http://evil.example", 403),
        ("http://evil.example:8000", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_sites_are_refused(origin: str, status: int) -> None:
    access = Access.of("127.0.0.1", ["name.example"], None)
    assert status_of(access, host="localhost:8000", origin=origin) == status


def test_no_response_lets_other_sites_read_it(faked: Running) -> None:
    for headers in ({}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        for path in ("/health", "/v1/models", "/nothing"):
            _, found, _ = faked.request("GET", path, headers=headers)
            assert not [name for name in found if name.startswith("access-control-")]
            assert found["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in found["content-security-policy"]
            assert found["referrer-policy"] == "no-referrer"


def test_addresses_of_this_machine_alone() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.org", ""]))
