"""azure-identity against the token endpoint, by the discovery documents it reads itself."""

import json
import ssl
import urllib.request

import pytest
from azure.core.exceptions import ClientAuthenticationError


def fetch(place, path, token=None):
    context = ssl.create_default_context(cafile=place.ready["ca_file"])
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{place.url}/{path}", headers=headers)
    with urllib.request.urlopen(request, context=context) as answer:
        return json.load(answer)


def test_a_client_secret_gets_a_token_the_service_takes(place):
    token = place.credential().get_token(f"{place.url}/.default")
    who = fetch(place, "api/data/v9.2/WhoAmI", token.token)
    assert who["OrganizationId"] == place.ready["organization"]


def test_a_token_for_another_environment_is_refused(place):
    token = place.credential().get_token("https://contoso.crm.dynamics.com/.default")
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(place, "api/data/v9.2/WhoAmI", token.token)
    assert refused.value.code == 401
    assert "authorization_uri=" in refused.value.headers["WWW-Authenticate"]


def test_tokens_are_kept_until_they_are_about_to_expire(place):
    credential = place.credential()
    scope = f"{place.url}/.default"
    first, second = credential.get_token(scope), credential.get_token(scope)
    assert first.token == second.token
    assert 3000 < first.expires_on - __import__("time").time() <= 3600


def test_a_wrong_secret_is_an_authentication_error(place):
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        place.credential(client_secret="wrong").get_token(f"{place.url}/.default")


def test_an_unknown_tenant_is_an_authentication_error(place):
    from azure.identity import ClientSecretCredential

    ready = place.ready
    credential = ClientSecretCredential(
        "00000000-0000-0000-0000-000000000001", ready["client_id"], ready["client_secret"],
        authority=place.url, disable_instance_discovery=True,
    )
    with pytest.raises((ClientAuthenticationError, ValueError)):
        credential.get_token(f"{place.url}/.default")


def test_instance_discovery_names_this_host(place):
    document = fetch(place, "common/discovery/instance?api-version=1.1&authorization_endpoint=x")
    host = place.url.removeprefix("https://")
    assert document["metadata"] == [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}]
    configuration = fetch(place, document["tenant_discovery_endpoint"].removeprefix(place.url + "/"))
    assert configuration["token_endpoint"] == place.ready["token_url"]
    assert fetch(place, configuration["jwks_uri"].removeprefix(place.url + "/")) == {"keys": []}
