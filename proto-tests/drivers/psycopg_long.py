"""psycopg 3 with long texts and values: what the test looks for in the records."""

import base64
import hashlib
import hmac

import psycopg
from psycopg.types.numeric import Int4

from acts import fact, run

# 200 KB and some: characters of one to four bytes, and what PostgreSQL's log writes on lines of its own.
FILL = "".join(f" {n} grüße €{chr(0x1D11E)}\n\t'' --" for n in range(9_000))
LONG = f"select length('{FILL}')"
VALUE = "Zoë" * 2_000
BYTES = b"\x00\xff" * 100
LENGTH = len(FILL.replace("''", "'"))


def hmac_of(sent):
    """What a record must say of a value, by code that is not the proxy's."""
    with open(fact("PARAMETERS_KEY"), encoding="ascii") as file:
        key = base64.b64decode(file.read())
    return hmac.new(key, sent, hashlib.sha256).hexdigest()


def simple(connection):
    return (connection.execute(LONG).fetchone()[0] == LENGTH, len(LONG.encode()) > 200_000)


def extended(connection):
    statement = LONG + ", %t::text = %t, %t::int + 1, %t::text is null"
    row = connection.execute(statement, (VALUE, VALUE, 41, None)).fetchone()
    return (row[0] == LENGTH, *row[1:])


def binary(connection):
    row = connection.execute(LONG + ", %b::bytea, %b::int4", (BYTES, Int4(7))).fetchone()
    return (row[0] == LENGTH, row[1] == BYTES, row[2])


def prepared(connection):
    rows = [connection.execute(LONG + ", %t::text", (text,), prepare=True).fetchone() for text in ("a", "b", "a")]
    return [text for _, text in rows]


with psycopg.connect("", autocommit=True) as connection:
    run({
        "simple": lambda: simple(connection),
        "extended": lambda: extended(connection),
        "binary": lambda: binary(connection),
        "prepared": lambda: prepared(connection),
        "sha256": lambda: (hashlib.sha256(LONG.encode()).hexdigest(),),
        "base64 of bytes": lambda: (base64.b64encode(BYTES).decode(),),
        "hmac of VALUE": lambda: (hmac_of(VALUE.encode()),),
        "hmac of bytes": lambda: (hmac_of(BYTES),),
        "hmac of 7": lambda: (hmac_of(b"\x00\x00\x00\x07"),),
        "hmac of 41": lambda: (hmac_of(b"41"),),
        "hmac of a": lambda: (hmac_of(b"a"),),
        "hmac of b": lambda: (hmac_of(b"b"),),
    })
