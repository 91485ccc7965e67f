"""Which Docker daemon is meant: the one that the `docker` command asks, since that command builds the images.

DOCKER_HOST, DOCKER_CONTEXT, the context in use and its certificates are the command's to make sense of; it is
asked once, so that a campaign stays with one daemon whatever context is chosen meanwhile.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MachineError
from harness.text import readable

if TYPE_CHECKING:
    import docker
    from docker.api.client import APIClient
    from docker.tls import TLSConfig

_USUAL = "unix:///var/run/docker.sock"
_DEFAULT = "default"
"""The context that stands for the environment: DOCKER_HOST and what belongs to it."""


@dataclass(frozen=True)
class Daemon:
    """A daemon, and how to get through to it."""

    host: str
    """For example unix:///var/run/docker.sock, tcp://10.0.0.1:2376 or ssh://me@there."""
    context: str
    tls: bool = False
    verify: bool = True
    certificates: Path | None = None
    """The folder of ca.pem, cert.pem and key.pem, as far as there are such."""

    @property
    def called(self) -> str:
        """What messages call it: its address, and where that is from."""
        if self.context != _DEFAULT:
            return f"{self.host} (Docker's context {self.context!r})"
        return f"{self.host} (DOCKER_HOST)" if os.environ.get("DOCKER_HOST") else self.host

    def client(self, timeout_s: int) -> docker.DockerClient:
        """A client of the SDK's; whatever the SDK raises where it cannot be had."""
        import docker
        import urllib3

        if self.tls and not self.verify:  # the user chose this; urllib3 need not warn on every request
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        # Through `ssh` itself, as the command does, with all that the user has set up for it.
        over_ssh = self.host.startswith("ssh://")
        tls = self._tls_settings() if self.tls else False
        return docker.DockerClient(self.host, tls=tls, timeout=timeout_s, use_ssh_client=over_ssh)

    def _tls_settings(self) -> TLSConfig:
        from docker.tls import TLSConfig

        class Exactly(TLSConfig):
            """These certificates and no others: requests prefers those that REQUESTS_CA_BUNDLE names."""

            def configure_client(self, client: APIClient) -> None:
                super().configure_client(client)
                client.trust_env = False

        ca, cert, key = map(self._certificate, ("ca.pem", "cert.pem", "key.pem"))
        return Exactly(ca_cert=ca, client_cert=(cert, key) if cert and key else None, verify=self.verify)

    def environment(self) -> dict[str, str]:
        """What holds the `docker` command to this daemon."""
        return {} if os.environ.get("DOCKER_HOST") else {"DOCKER_CONTEXT": self.context}

    def _certificate(self, name: str) -> str | None:
        path = self.certificates and self.certificates / name
        return str(path) if path and path.is_file() else None


def find() -> Daemon:
    """The daemon that `docker` asks; MachineError, in its words, where it cannot tell."""
    names = (
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "HOME",
        "PATH",
    )
    return _find(tuple(os.environ.get(name) for name in names))


@functools.cache
def _find(settings: tuple[str | None, ...]) -> Daemon:
    """`settings`: all that the answer depends on."""
    try:
        told = subprocess.run(
            ["docker", "context", "inspect"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError:  # no such command; then there is nothing but the environment to go by
        return _of_environment(os.environ.get("DOCKER_HOST") or _USUAL)
    if told.returncode:
        why = " ".join(told.stderr.split()) or f"exit code {told.returncode}"
        raise MachineError(
            f"`docker` cannot tell which daemon is meant ({readable(why)}); choose a context that is there "
            "(`docker context ls`), or unset DOCKER_CONTEXT and DOCKER_HOST."
        )
    try:
        (found,) = json.loads(told.stdout)
        return _of_context(found)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise MachineError(
            f"`docker context inspect` tells no daemon that this program understands: {told.stdout[:200]!r}; "
            "use Docker's own `docker`."
        ) from error


def _of_context(told: dict[str, Any]) -> Daemon:
    endpoint = told["Endpoints"]["docker"]
    host, name = str(endpoint["Host"]), str(told["Name"])
    if name == _DEFAULT:
        return _of_environment(host)
    skip, material = bool(endpoint.get("SkipTLSVerify")), told.get("TLSMaterial") or {}
    folder = Path(told["Storage"]["TLSPath"]) / "docker" if material.get("docker") else None
    return Daemon(host, name, tls=skip or folder is not None, verify=not skip, certificates=folder)


def settings_folder() -> Path:
    """Where `docker` and the SDK keep their settings."""
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))


def _of_environment(host: str) -> Daemon:
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or settings_folder())
    return Daemon(host, _DEFAULT, verify or bool(os.environ.get("DOCKER_TLS")), verify, folder)
