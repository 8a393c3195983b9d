"""The emulator of the suites, which `run.py` started; put back to its start for each module.

What clients get is a host and a credential. The authority to trust comes by the variables that
`requests` and `aiohttp` read, as it would on a developer's machine.
"""

import json
import os
import ssl
import urllib.request

import pytest
from azure.identity import ClientSecretCredential


class Place:
    """A running emulator."""

    def __init__(self):
        self.ready = json.loads(os.environ["FLOWGATE_READY"])
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
        # As Python 3.13 and later do by themselves.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with urllib.request.urlopen(f"{self.url}/__emulator/{path}", data, context=context) as answer:
            return json.load(answer)

    def skip(self, seconds):
        self.control("time", {"skip_s": seconds})


@pytest.fixture(scope="module")
def place():
    place = Place()
    place.control("reset", {})
    return place
