"""psycopg 3, its own connections."""

import psycopg

import psycopg_acts as acts
from acts import run

with psycopg.connect("", autocommit=True) as connection, psycopg.connect("", autocommit=True) as another:
    run({
        "connect": lambda: connection.execute("select session_user").fetchone(),
        "parameters text": lambda: acts.parameters_text(connection),
        "parameters binary": lambda: acts.parameters_binary(connection),
        "prepared x100": lambda: acts.prepared(connection),
        "pipeline": lambda: acts.pipeline(connection),
        "transaction": lambda: acts.transaction(connection),
        "error position": lambda: acts.error(connection),
        "copy in": lambda: acts.copy_in(connection),
        "copy out": lambda: acts.copy_out(connection),
        "cancel": lambda: acts.cancel(connection),
        "listen/notify": lambda: acts.notify(connection, another),
        "20 MiB value": lambda: acts.large(connection),
        "cursor 10000": lambda: acts.cursor(connection),
        "refusal": acts.refusal,
    })
