"""cloud-sql-python-connector with asyncpg, pg8000 and psycopg.

`open` makes a connector and connects once, so that it holds a certificate; `connect` uses the one that is open.
"""

import asyncio

import google_tokens
from google.cloud.sql.connector import Connector

SCOPE = "https://www.googleapis.com/auth/sqlservice.admin"
QUERY = "select session_user::text"

# Connectors by name. asyncpg's live on one event loop, as the library wants.
CONNECTORS = {}
LOOP = asyncio.new_event_loop()


def act(request):
    """The database user that a connection has, or what stopped it."""
    step, driver = request["act"], request["driver"]
    if step == "close":
        return closed(driver)
    if step == "open":
        closed(driver)
        CONNECTORS[driver] = opened(request)
    if driver == "asyncpg":
        return LOOP.run_until_complete(asynchronous(request))
    return synchronous(request)


def opened(request):
    chosen = {
        "credentials": google_tokens.credentials(request, [SCOPE]),
        "sqladmin_api_endpoint": request["sqladmin"],
        "enable_iam_auth": "password" not in request,
        "timeout": 20,
    }
    if request["driver"] == "asyncpg":
        return Connector(loop=LOOP, **chosen)
    return Connector(**chosen)


def login(request):
    found = {"user": request["user"], "db": request["database"]}
    if "password" in request:
        found["password"] = request["password"]
    return found


async def asynchronous(request):
    connector = CONNECTORS["asyncpg"]
    connection = await connector.connect_async(request["instance"], "asyncpg", **login(request))
    try:
        return await connection.fetchval(QUERY)
    finally:
        await connection.close()


def synchronous(request):
    driver = request["driver"]
    connection = CONNECTORS[driver].connect(request["instance"], driver, **login(request))
    try:
        cursor = connection.cursor()
        cursor.execute(QUERY)
        return cursor.fetchone()[0]
    finally:
        connection.close()


def closed(driver):
    connector = CONNECTORS.pop(driver, None)
    if connector is not None and driver == "asyncpg":
        LOOP.run_until_complete(connector.close_async())
    elif connector is not None:
        connector.close()
    return "closed"
