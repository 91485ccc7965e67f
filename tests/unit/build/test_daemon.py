"""The daemon that is meant is the one that the `docker` command asks, whatever told it which that is."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from harness import doctor
from harness.build import daemon, engine
from harness.errors import MachineError

Tell = Callable[..., None]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """A `docker` command, in an environment without settings, that answers `context inspect` with this."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "settings"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle")
    daemon._find.cache_clear()

    def tell(out: object, *, error: str = "", code: int = 0) -> None:
        (tmp_path / "out").write_text(out if isinstance(out, str) else json.dumps(out), encoding="utf-8")
        (tmp_path / "error").write_text(error, encoding="utf-8")
        script = f'[ "$*" = "context inspect" ] || exit 9\ncat {tmp_path}/out; cat {tmp_path}/error >&2'
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\nexit {code}\n", encoding="utf-8")
        (tmp_path / "docker").chmod(0o755)

    return tell


def context(host: str, name: str = "there", **more: Any) -> list[dict[str, Any]]:
    endpoint = {"Host": host, "SkipTLSVerify": more.pop("skip", False)}
    return [{"Name": name, "Endpoints": {"docker": endpoint}, "TLSMaterial": {}, **more}]


class Answering(http.server.BaseHTTPRequestHandler):
    """As much of a daemon as is needed to say that there is one."""

    def do_GET(self) -> None:
        body = json.dumps({"Version": "99.9", "ApiVersion": "1.47"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def address_string(self) -> str:
        return "a client"

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[str]:
    """The address of a daemon."""
    path = tmp_path / "there.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


def test_the_context_in_use(tell: Tell, answering: str) -> None:
    tell(context(answering))
    with engine.connection() as client:
        assert client.version()["Version"] == "99.9"
    (found, *_) = doctor.examine()
    assert (found.ok, found.what) == (True, "Docker Engine 99.9")
    assert daemon.find().environment() == {"DOCKER_CONTEXT": "there"}


def test_it_is_asked_once(tell: Tell) -> None:
    """A campaign stays with its daemon where another context is chosen meanwhile."""
    tell(context("unix:///a"))
    assert daemon.find().host == "unix:///a"
    tell(context("unix:///b"))
    assert daemon.find().host == "unix:///a"


def test_no_daemon_is_said_with_its_address_and_the_reason(tell: Tell, tmp_path: Path) -> None:
    tell(context(f"unix://{tmp_path}/no.sock"))
    told = rf"at unix://{tmp_path}/no.sock \(Docker's context 'there'\): No such file or directory; install"
    with pytest.raises(MachineError, match=told), engine.connection():
        pass
    (found, *_) = doctor.examine()
    assert not found.ok
    assert found.what.endswith("(Docker's context 'there'): No such file or directory")
    assert "docker context ls" in found.remedy


def test_docker_host(tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    tell(context(f"unix://{tmp_path}/no.sock", "default"))
    with pytest.raises(MachineError, match=r"no\.sock \(DOCKER_HOST\): No such file"), engine.connection():
        pass
    assert daemon.find().environment() == {}


def test_an_address_that_is_none(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:99999")
    tell(context("tcp://127.0.0.1:99999", "default"))
    said = r"127\.0\.0\.1:99999 \(DOCKER_HOST\): is no address of a Docker daemon \(Port out of range"
    with pytest.raises(MachineError, match=said), engine.connection():
        pass


def test_the_reasons_of_the_sdk(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a missing package, most of all: the SDK says which."""
    told = "Install paramiko package to enable ssh:// support"

    def refuse(*_: object, **__: object) -> None:
        try:
            raise NameError("SSHHTTPAdapter")
        except NameError as error:
            raise docker.errors.DockerException(told) from error

    monkeypatch.setattr(docker, "DockerClient", refuse)
    tell(context("ssh://me@there"))
    with pytest.raises(MachineError, match=rf"at ssh://me@there .*: {told}; "), engine.connection():
        pass

    def stumble(*_: object, **__: object) -> None:
        raise AttributeError("'list' object has no attribute 'get'")

    monkeypatch.setattr(docker, "DockerClient", stumble)
    said = r"settings/config\.json: is not what Docker's Python package expects \('list' object"
    with pytest.raises(MachineError, match=said), engine.connection():
        pass


def test_settings_that_no_daemon_follows_from(tell: Tell) -> None:
    tell("[]", error='context "x": context not found:\nopen meta.json: no such file\n', code=1)
    said = r"`docker` cannot tell which daemon is meant \(context \"x\": context not found: open meta.json"
    with pytest.raises(MachineError, match=said):
        daemon.find()


@pytest.mark.parametrize(
    "out", ["", "no JSON", "[]", "{}", "[1]", '[{"Name": "x", "Endpoints": {}}]', "[[]]"]
)
def test_a_command_that_is_not_docker_s(tell: Tell, out: str) -> None:
    tell(out)
    with pytest.raises(MachineError, match="tells no daemon that this program understands"):
        daemon.find()


def test_a_warning_beside_the_answer(tell: Tell) -> None:
    """As of a config.json that is none, which the command does without."""
    tell(context("unix:///a", "default"), error="WARNING: Error parsing config file: unexpected EOF\n")
    assert daemon.find().host == "unix:///a"


def test_without_the_command(tell: Tell, answering: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/folder")
    assert daemon.find() == daemon.Daemon(
        "unix:///var/run/docker.sock", "default", False, False, daemon.settings_folder()
    )
    monkeypatch.setenv("DOCKER_HOST", answering)
    with engine.connection() as client:
        assert client.version()["Version"] == "99.9"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the SDK is told."""
    seen: dict[str, Any] = {}

    def note(host: str, **options: object) -> None:
        seen.update(options, host=host)

    monkeypatch.setattr(docker, "DockerClient", note)
    return seen


def certificates(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.pem").touch()
    return folder


@pytest.mark.parametrize(
    ("names", "skip", "expected"),
    [
        (("ca", "cert", "key"), False, ("ca.pem", ("cert.pem", "key.pem"), True)),
        (("ca", "cert", "key"), True, ("ca.pem", ("cert.pem", "key.pem"), False)),
        (("ca",), False, ("ca.pem", None, True)),
        ((), True, (None, None, False)),
        ((), False, None),
    ],
)
def test_certificates_of_a_context(
    tell: Tell,
    given: dict[str, Any],
    tmp_path: Path,
    names: tuple[str, ...],
    skip: bool,
    expected: tuple[Any, ...] | None,
) -> None:
    folder = certificates(tmp_path / "tls" / "docker", *names)
    material = {"docker": [f"{name}.pem" for name in names]} if names else {}
    storage = {"TLSPath": str(tmp_path / "tls")}
    tell(context("tcp://there:2376", skip=skip, TLSMaterial=material, Storage=storage))
    daemon.find().client(5)
    assert (given["host"], given["timeout"], given["use_ssh_client"]) == ("tcp://there:2376", 5, False)
    tls = given["tls"]
    if expected is None:
        assert tls is False
        return
    ca, cert, verify = expected
    assert tls.ca_cert == (ca and str(folder / ca))
    assert tls.cert == (cert and tuple(str(folder / name) for name in cert))
    assert tls.verify == verify


def test_certificates_of_the_environment(
    tell: Tell, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = certificates(tmp_path / "env", "ca", "cert", "key")
    tell(context("tcp://there:2376", "default"))
    monkeypatch.setenv("DOCKER_CERT_PATH", str(folder))
    daemon.find().client(5)
    assert given["tls"] is False, "a folder alone asks for nothing"
    for name, verify in (("DOCKER_TLS", False), ("DOCKER_TLS_VERIFY", True)):
        monkeypatch.setenv(name, "1")
        daemon.find().client(5)
        tls: Any = given["tls"]
        assert tls.ca_cert == str(folder / "ca.pem")
        assert tls.verify == verify


def test_a_context_s_certificates_are_not_replaced_by_those_of_the_environment(
    tell: Tell, given: dict[str, Any], tmp_path: Path
) -> None:
    """REQUESTS_CA_BUNDLE, where it is set, would win over what a session is told."""
    certificates(tmp_path / "tls" / "docker", "ca")
    tell(
        context(
            "tcp://there:2376", TLSMaterial={"docker": ["ca.pem"]}, Storage={"TLSPath": str(tmp_path / "tls")}
        )
    )
    daemon.find().client(5)
    client = docker.APIClient("tcp://there:2376", tls=given["tls"], version="1.47")
    settings = client.merge_environment_settings("https://there:2376", {}, None, None, None)
    assert settings["verify"] == str(tmp_path / "tls" / "docker" / "ca.pem")
    client.close()


def test_ssh_goes_through_ssh(tell: Tell, given: dict[str, Any]) -> None:
    tell(context("ssh://me@there"))
    daemon.find().client(5)
    assert (given["host"], given["use_ssh_client"]) == ("ssh://me@there", True)
