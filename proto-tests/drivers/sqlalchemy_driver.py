"""SQLAlchemy's pool over psycopg 3, and over asyncpg for parameters in binary.

What SQLAlchemy has no call of its own for goes through the pooled connection's `driver_connection`, as its manual says
(https://docs.sqlalchemy.org/en/20/core/connections.html#working-with-driver-sql-and-raw-dbapi-connections).
"""

import asyncio
import ssl

import psycopg_acts
import sqlalchemy
from acts import CURSOR_ROWS, LARGE, TEXT, digest, fact, run
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = sqlalchemy.create_engine("postgresql+psycopg://", pool_size=2, max_overflow=0)


def scalar_row(statement, **parameters):
    with engine.connect() as connection:
        return connection.execute(text(statement), parameters).one()


async def binary():
    context = ssl.create_default_context(cafile=fact("PGSSLROOTCERT"))
    url = sqlalchemy.URL.create(
        "postgresql+asyncpg", fact("PGUSER"), fact("PGPASSWORD"), fact("PGHOST"), int(fact("PGPORT")), fact("PGDATABASE")
    )
    pool = create_async_engine(url, connect_args={"ssl": context})
    async with pool.connect() as connection:
        statement = text("select cast(:a as int4) + 1, cast(:b as bytea), cast(:c as float8)")
        row = (await connection.execute(statement, {"a": 41, "b": b"\x00\x01\xff", "c": 0.5})).one()
    await pool.dispose()
    return row[0], row[1].hex(), row[2]


def prepared():
    total = 0
    with engine.connect() as connection:
        for n in range(100):
            total += connection.execute(text("select cast(:n as int) * 2"), {"n": n}).scalar_one()
    return 100, total


def transaction():
    insert = text("insert into kept_sqlalchemy values (:n)")
    with engine.connect() as connection:

        def kept():
            rows = connection.execute(text("select n from kept_sqlalchemy order by n")).scalars()
            return ",".join(str(n) for n in rows)

        with connection.begin():
            connection.execute(text("create temp table kept_sqlalchemy (n int)"))
            connection.execute(insert, {"n": 1})
            savepoint = connection.begin_nested()
            connection.execute(insert, {"n": 2})
            savepoint.rollback()
            connection.execute(insert, {"n": 3})
        before = kept()
        connection.commit()
        connection.execute(insert, {"n": 4})
        connection.rollback()
        return before, kept()


def error():
    try:
        scalar_row("select nope from orders where id = :id", id=1)
    except sqlalchemy.exc.ProgrammingError as error:
        return error.orig.sqlstate, error.orig.diag.statement_position
    return ("no error",)


def lent(act):
    """The act on the driver's connection that the pool lends."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        return act(connection.connection.driver_connection)


def notify():
    return lent(lambda listener: lent(lambda another: psycopg_acts.notify(listener, another)))


def cursor():
    with engine.connect() as connection:
        statement = text("select generate_series(1, cast(:n as int))")
        rows = connection.execution_options(yield_per=500).execute(statement, {"n": CURSOR_ROWS}).scalars()
        numbers = list(rows)
    return len(numbers), sum(numbers)


def refusal():
    try:
        sqlalchemy.create_engine("postgresql+psycopg://", connect_args={"password": fact("WRONG_TOKEN")}).connect()
    except sqlalchemy.exc.OperationalError as error:
        return (str(error.orig),)
    return ("let in",)


run({
    "connect": lambda: scalar_row("select session_user"),
    "parameters text": lambda: scalar_row(
        "select cast(:a as int) + 1, cast(:b as text), cast(:c as int) is null", a=41, b=TEXT, c=None
    ),
    "parameters binary": lambda: asyncio.run(binary()),
    "prepared x100": prepared,
    "pipeline": lambda: lent(psycopg_acts.pipeline),
    "transaction": transaction,
    "error position": error,
    "copy in": lambda: lent(psycopg_acts.copy_in),
    "copy out": lambda: lent(psycopg_acts.copy_out),
    "cancel": lambda: lent(psycopg_acts.cancel),
    "listen/notify": notify,
    "20 MiB value": lambda: digest(scalar_row("select cast(:v as text)", v=LARGE)[0]),
    "cursor 10000": cursor,
    "refusal": refusal,
})
engine.dispose()
