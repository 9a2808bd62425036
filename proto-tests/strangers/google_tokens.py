"""google-auth: external-account credentials, as an application loads them from a file."""

import os
import tempfile

from google.auth import identity_pool
from google.auth.transport.requests import AuthorizedSession, Request

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def credentials(request, scopes):
    """Credentials from the JSON that `gcloud iam … create-cred-config` writes."""
    info = dict(request["credentials"])
    if "subject_token" in request:
        info["credential_source"] = {"file": written(request["subject_token"])}
    return identity_pool.Credentials.from_info(info, scopes=scopes)


def act(request):
    """A token, and what the SQL Admin API makes of it."""
    found = credentials(request, [SCOPE])
    found.refresh(Request())
    if "use" not in request:
        return kind(found.token)
    response = AuthorizedSession(found).get(request["use"])
    response.raise_for_status()
    return f"{kind(found.token)} {response.json()['kind']}"


def kind(token):
    """The part of a token that says what it is, and no more of it."""
    return ".".join(token.split(".")[:2]) + "."


def written(token):
    """A file for the credentials' `credential_source`, as a workload's platform would project it."""
    folder = os.environ["STRANGER_FOLDER"]
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, suffix=".jwt") as file:
        file.write(token)
    return file.name
