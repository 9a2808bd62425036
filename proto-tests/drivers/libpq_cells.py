"""One libpq, loaded with ctypes: one connection in the way that the environment says, and cancels of its statements.

`LIBPQ` is the library, `CONNINFO` the connection, the rest of libpq's environment as ever. Prints one line an act: what
it saw, or `n/a` and libpq's own words where this version has no such option or function. libpq's manual:
https://www.postgresql.org/docs/current/libpq.html.
"""

import ctypes
import time

from acts import fact, run

SLEEP = b"select pg_sleep(60)"
# Until the statement runs, in seconds.
RUNNING = 0.5

libpq = ctypes.CDLL(fact("LIBPQ"))
for name in ("PQconnectdb", "PQgetResult", "PQexec", "PQgetCancel"):
    getattr(libpq, name).restype = ctypes.c_void_p
for name in ("PQerrorMessage", "PQresultErrorField", "PQgetvalue"):
    getattr(libpq, name).restype = ctypes.c_char_p
SQLSTATE = ord("C")
# The table's row says a version: another libpq must not fill it.
if libpq.PQlibVersion() // 10000 != int(fact("LIBPQ_VERSION")):
    raise SystemExit(f"libpq is {libpq.PQlibVersion()}, not {fact('LIBPQ_VERSION')}")
CONNECTION_OK = 0


class Absent(Exception):
    """This version of libpq has no such option or function."""


connection = ctypes.c_void_p(libpq.PQconnectdb(fact("CONNINFO").encode()))
error = libpq.PQerrorMessage(connection).decode().strip()


def connected():
    if error.startswith("invalid connection option"):
        raise Absent(error)
    if libpq.PQstatus(connection) != CONNECTION_OK:
        raise RuntimeError(error)


def connect():
    connected()
    # Before libpq 18 the minor version had no function, and was always 0.
    version = getattr(libpq, "PQfullProtocolVersion", None)
    version = version(connection) if version else 10000 * libpq.PQprotocolVersion(connection)
    tls = "TLS" if libpq.PQsslInUse(connection) else "clear text"
    return f"protocol {version // 10000}.{version % 10000}", tls


def slept(cancel):
    """Runs a long statement, cancels it, and tells how it ended and that the session lives."""
    if not libpq.PQsendQuery(connection, SLEEP):
        raise RuntimeError(libpq.PQerrorMessage(connection).decode())
    time.sleep(RUNNING)
    asked = time.monotonic()
    cancel()
    state = None
    while result := libpq.PQgetResult(connection):
        result = ctypes.c_void_p(result)
        state = libpq.PQresultErrorField(result, SQLSTATE) or state
        libpq.PQclear(result)
    took = time.monotonic() - asked
    after = ctypes.c_void_p(libpq.PQexec(connection, b"select 'alive'"))
    alive = libpq.PQgetvalue(after, 0, 0)
    return (state or b"no error").decode(), (alive or b"dead").decode(), "within 5 s" if took < 5 else f"{took:.1f} s"


def pq_cancel():
    """`PQcancel`: a plaintext connection, whatever the session's is."""
    connected()
    key = ctypes.c_void_p(libpq.PQgetCancel(connection))
    buffer = ctypes.create_string_buffer(256)

    def cancel():
        if not libpq.PQcancel(key, buffer, len(buffer)):
            raise RuntimeError(buffer.value.decode())

    return slept(cancel)


def pq_cancel_blocking():
    """`PQcancelBlocking`, since libpq 17: a connection as the session's."""
    connected()
    try:
        libpq.PQcancelCreate.restype = ctypes.c_void_p
        libpq.PQcancelErrorMessage.restype = ctypes.c_char_p
    except AttributeError as missing:
        raise Absent(str(missing).split(": ", 1)[-1]) from missing
    request = ctypes.c_void_p(libpq.PQcancelCreate(connection))

    def cancel():
        if not libpq.PQcancelBlocking(request):
            raise RuntimeError(libpq.PQcancelErrorMessage(request).decode())

    try:
        return slept(cancel)
    finally:
        libpq.PQcancelFinish(request)


def possible(act):
    def cell():
        try:
            return act()
        except Absent as why:
            return (f"n/a: {why}",)

    return cell


run({
    "connect": possible(connect),
    "PQcancel": possible(pq_cancel),
    "PQcancelBlocking": possible(pq_cancel_blocking),
})
libpq.PQfinish(connection)
