"""The emulator of the suites: one process over TLS, put back to its start for each module.

What clients get is a host and a credential. The authority to trust comes by the variables that
`requests` and `aiohttp` read, as it would on a developer's machine; `aiohttp` reads them when it is
imported, so the process is started before any suite is.
"""

import json
import os
import ssl
import subprocess
import urllib.request

import pytest
from azure.identity import ClientSecretCredential

EMULATOR = os.environ["FLOWGATE_EMULATOR"]


class Place:
    """A running emulator."""

    def __init__(self, *options):
        command = [EMULATOR, "--listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.ready = json.loads(self.process.stdout.readline())
        self.url = self.ready["url"]

    def credential(self, **changes):
        known = {key: self.ready[key] for key in ("client_id", "client_secret")}
        return ClientSecretCredential(
            self.ready["tenant"],
            **{**known, **changes},
            authority=self.url,
            disable_instance_discovery=True,
        )

    def control(self, path, body=None):
        """A control request, which is no part of the service."""
        data = None if body is None else json.dumps(body).encode()
        context = ssl.create_default_context(cafile=self.ready["ca_file"])
        with urllib.request.urlopen(f"{self.url}/__emulator/{path}", data, context=context) as answer:
            return json.load(answer)

    def skip(self, seconds):
        self.control("time", {"skip_s": seconds})

    def stop(self):
        self.process.terminate()
        assert self.process.wait(10) == 0


SHARED = Place("--tls")
os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = SHARED.ready["ca_file"]


@pytest.fixture(scope="module")
def place():
    SHARED.control("reset", {})
    return SHARED


def pytest_unconfigure(config):
    SHARED.stop()
