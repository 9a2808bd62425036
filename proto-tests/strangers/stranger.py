"""Unmodified Python clients, driven line by line: a JSON request on standard input, one JSON line per act back.

A request is {"client", "act", …}. The answer is {"ok": text} or {"error": "ExceptionClass: its own text"}.
What the clients say is never changed here; the test judges it.
"""

import json
import sys
import traceback

import google_tokens
import microsoft_tokens
import sql_connectors

CLIENTS = {
    "google-auth": google_tokens.act,
    "msal": microsoft_tokens.msal_act,
    "azure-identity": microsoft_tokens.azure_act,
    "connector": sql_connectors.act,
}


def answer(request):
    try:
        return {"ok": CLIENTS[request["client"]](request)}
    except Exception as error:  # noqa: BLE001 - whatever the client raises is the answer
        print("".join(traceback.format_exception(error)), file=sys.stderr)
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    # Clients may print; only answers belong on the real standard output.
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
