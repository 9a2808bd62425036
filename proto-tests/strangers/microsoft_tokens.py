"""msal and azure-identity: every way of theirs to get an Entra token that the simulator has."""

import base64
import json
import os
import threading
from urllib.parse import parse_qsl, urlsplit

import azure.identity
import msal
import requests


class Refused(Exception):
    """msal returns its errors; this is one, word for word."""


def msal_act(request):
    """One of the functions below, by the request's `act`; a dictionary with an error is raised."""
    result = globals()["msal_" + request["act"]](request)
    if "access_token" not in result:
        raise Refused(f"{result['error']}: {result.get('error_description')}")
    return claims(result["access_token"])


def msal_secret(request):
    app = confidential(request, request["secret"])
    return app.acquire_token_for_client(scopes=[request["scope"]])


def msal_assertion(request):
    app = confidential(request, {"client_assertion": request["assertion"]})
    return app.acquire_token_for_client(scopes=[request["scope"]])


def msal_device(request):
    app = public(request)
    flow = app.initiate_device_flow(scopes=[request["scope"]])
    if "device_code" not in flow:
        return flow
    browse(flow["verification_uri"], flow["user_code"], request)
    return app.acquire_token_by_device_flow(flow)


def msal_code(request):
    """Authorization code with PKCE. `spoil` changes what the browser brings back or what msal will redeem."""
    app, flow, brought = msal_code_flow(request)
    spoil = request.get("spoil")
    if spoil == "verifier":
        flow["code_verifier"] = "x" * 43
    if spoil == "redirect":
        flow["redirect_uri"] = "http://localhost:2"
    if spoil == "code":
        brought["code"] = "1.unknown"
    if spoil == "twice":
        assert "access_token" in app.acquire_token_by_auth_code_flow(dict(flow), dict(brought))
    return app.acquire_token_by_auth_code_flow(flow, brought)


def msal_refresh(request):
    """The refresh token of a sign-in by code, which msal keeps and uses when it is forced to."""
    app, flow, brought = msal_code_flow(request)
    first = app.acquire_token_by_auth_code_flow(flow, brought)
    assert "access_token" in first, first
    if request.get("spoil") == "token":
        return app.acquire_token_by_refresh_token("1.unknown", scopes=[request["scope"]])
    [account] = app.get_accounts()
    second = app.acquire_token_silent_with_error(
        [request.get("later_scope", request["scope"])], account, force_refresh=True
    )
    assert second.get("access_token") != first["access_token"]
    return second


def msal_managed_identity(request):
    with platform(request):
        client = msal.ManagedIdentityClient(identity(request), http_client=requests.Session())
        return client.acquire_token_for_client(resource=request["resource"])


def msal_code_flow(request):
    app = public(request)
    flow = app.initiate_auth_code_flow(
        [request["scope"]], redirect_uri=request.get("redirect", "http://localhost:1"), login_hint=request["login"]
    )
    return app, flow, redirected(flow["auth_uri"], request)


def azure_act(request):
    """One of the credentials below, by the request's `act`."""
    with platform(request):
        credential = globals()["azure_" + request["act"]](request)
        return claims(credential.get_token(request["scope"]).token)


def azure_secret(request):
    return azure.identity.ClientSecretCredential(
        request["tenant"], request["client_id"], request["secret"], **azure_authority(request)
    )


def azure_assertion(request):
    return azure.identity.ClientAssertionCredential(
        request["tenant"], request["client_id"], lambda: request["assertion"], **azure_authority(request)
    )


def azure_workload(request):
    """AKS workload identity: the assertion is a file that the platform projects."""
    import google_tokens

    path = google_tokens.written(request["assertion"])
    return azure.identity.WorkloadIdentityCredential(
        tenant_id=request["tenant"], client_id=request["client_id"], token_file_path=path, **azure_authority(request)
    )


def azure_device(request):
    return azure.identity.DeviceCodeCredential(
        client_id=request["client_id"],
        tenant_id=request["tenant"],
        prompt_callback=lambda uri, code, _expires: browse(uri, code, request),
        **azure_authority(request),
    )


def azure_code(request):
    """A code that a web server got from the browser for the API `consented`; the credential has no PKCE."""
    brought = redirected(
        f"{request['authority']}/{request['tenant']}/oauth2/v2.0/authorize?client_id={request['client_id']}"
        f"&response_type=code&redirect_uri=http://localhost:1&scope={request['consented']}"
        f"&login_hint={request['login']}",
        request,
    )
    return azure.identity.AuthorizationCodeCredential(
        request["tenant"],
        request["client_id"],
        authorization_code=request.get("code", brought["code"]),
        redirect_uri=request.get("redirect", "http://localhost:1"),
        **azure_authority(request),
    )


def azure_browser(request):
    """Authorization code with PKCE over the library's own loopback server; `browser.py` stands for the person."""
    return azure.identity.InteractiveBrowserCredential(
        client_id=request["client_id"],
        tenant_id=request["tenant"],
        login_hint=request["login"],
        timeout=30,
        **azure_authority(request),
    )


def azure_managed_identity(request):
    chosen = {"client_id": request["identity"]} if "identity" in request else {}
    return azure.identity.ManagedIdentityCredential(**chosen)


def azure_authority(request):
    return {"authority": request["authority"], "disable_instance_discovery": True}


def public(request):
    return msal.PublicClientApplication(
        request["client_id"], authority=f"{request['authority']}/{request['tenant']}", instance_discovery=False
    )


def confidential(request, credential):
    return msal.ConfidentialClientApplication(
        request["client_id"],
        client_credential=credential,
        authority=f"{request['authority']}/{request['tenant']}",
        instance_discovery=False,
    )


def identity(request):
    if "identity" in request:
        return msal.UserAssignedManagedIdentity(client_id=request["identity"])
    return msal.SystemAssignedManagedIdentity()


class platform:
    """Environment variables for one act: App Service's, or what the person does in the browser."""

    def __init__(self, request):
        self.variables = request.get("platform", {})

    def __enter__(self):
        os.environ.update(self.variables)

    def __exit__(self, *_):
        for name in self.variables:
            del os.environ[name]


def browse(page, code, request):
    """What the person does on the device login page, from another thread: the client polls meanwhile."""
    form = {"otc": code, "login": request["login"], "decision": request.get("decision", "approve")}
    threading.Thread(target=lambda: requests.post(page, data=form, timeout=30).raise_for_status()).start()


def redirected(url, request):
    """What the browser brings back to the redirect URI; an error page of Entra's own is raised."""
    if "decision" in request:
        url += f"&decision={request['decision']}"
    response = requests.get(url, allow_redirects=False, timeout=30)
    if response.status_code != 302:
        raise Refused(response.text)
    return dict(parse_qsl(urlsplit(response.headers["Location"]).query))


def claims(token):
    """Who a token is for and from, unchecked, without the token."""
    body = token.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return " ".join(str(found.get(name)) for name in ("aud", "oid", "ver"))
