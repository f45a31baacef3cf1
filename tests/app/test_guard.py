"""What never reaches gradio, and what the page may load."""

import asyncio

import pytest
from latent_prior import OptionError
from latent_prior.app import server
from latent_prior.app.guard import SLACK, Guard

MOST = 1000


def answer(guard, path="/", method="GET", headers=(), body=(b"",)):
    """The status and headers of a request whose body comes in pieces."""
    said, pieces = [], list(body)

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message):
        said.append(message)

    fields = {"host": "127.0.0.1:7860", **dict(headers)}
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    asyncio.run(guard({"type": "http", "path": path, "method": method, "headers": encoded}, receive, send))
    return said[0]["status"], {name.decode(): value.decode() for name, value in said[0]["headers"]}


async def accepts(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def guard(tmp_path):
    return Guard(accepts, tmp_path, MOST, local=True)


def test_files_of_the_folder_alone(guard, tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "own").touch()
    (tmp_path / "good").symlink_to(tmp_path / "own")
    for name in ("own", "good", "a/b.png"):
        assert answer(guard, f"/gradio_api/file={tmp_path}/{name}")[0] == 200
    for name in ("/etc/passwd", f"{tmp_path}/link", f"{tmp_path}/../x", f"{tmp_path}-2/x", "own", "http://a/b", "\0"):
        assert answer(guard, f"/gradio_api/file={name}")[0] == 403
    assert answer(guard, "/gradio_api/proxy=http://a/b")[0] == 403


def test_large_bodies(guard):
    def length(count):
        return answer(guard, method="POST", headers=[("content-length", str(count))])[0]

    assert (length(MOST + SLACK), length(MOST + SLACK + 1)) == (200, 413)
    assert length("-1") == 413
    half = bytes((MOST + SLACK) // 2)
    assert answer(guard, method="POST", body=[half, half])[0] == 200  # of a length that is not said
    assert answer(guard, method="POST", body=[half, half, b"1"])[0] == 413


def test_names_of_this_machine(guard):
    hosts = {"127.0.0.1:7860": 200, "localhost": 200, "[::1]:7860": 200, "evil.example:7860": 403, "": 403}
    assert {host: answer(guard, headers=[("host", host)])[0] for host in hosts} == hosts
    guard.local = False
    assert answer(guard, headers=[("host", "gpu-box:7860")])[0] == 200


def test_the_page_loads_nothing_from_elsewhere(guard):
    policy = answer(guard)[1]["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy


def test_addresses():
    assert [server.is_local(address) for address in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(OptionError, match="--listen"):
        server.is_local("gpu-box")
