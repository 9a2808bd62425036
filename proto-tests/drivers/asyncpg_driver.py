"""asyncpg, https://magicstack.github.io/asyncpg/current/. Its parameters are binary unless a codec says text."""

import asyncio
import ssl

import asyncpg
from acts import CURSOR_ROWS, LARGE, TEXT, digest, fact, run_async


def connect(token):
    context = ssl.create_default_context(cafile=fact("PGSSLROOTCERT"))
    return asyncpg.connect(
        host=fact("PGHOST"), port=int(fact("PGPORT")), user=fact("PGUSER"), database=fact("PGDATABASE"),
        password=token, ssl=context,
    )


async def text(connection):
    await connection.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=int, format="text")
    row = await connection.fetchrow("select $1::int + 1, $2::text, $3::int is null", 41, TEXT, None)
    await connection.reset_type_codec("int4", schema="pg_catalog")
    return row


async def binary(connection):
    row = await connection.fetchrow("select $1::int4 + 1, $2::bytea, $3::float8", 41, b"\x00\x01\xff", 0.5)
    return row[0], row[1].hex(), row[2]


async def prepared(connection):
    statement = await connection.prepare("select $1::int * 2")
    return 100, sum([await statement.fetchval(n) for n in range(100)])


async def pipeline(connection):
    # `executemany` is the one call that sends many executions before it waits ("atomic, pipelined" since 0.22).
    await connection.execute("create temp table piped (n int)")
    await connection.executemany("insert into piped values ($1)", [(1,), (2,), (3,)])
    return [row["n"] for row in await connection.fetch("select n from piped order by n")]


async def transaction(connection):
    await connection.execute("create temp table kept (n int)")

    async def insert(n):
        await connection.execute("insert into kept values ($1)", n)

    async def kept():
        return ",".join(str(row["n"]) for row in await connection.fetch("select n from kept order by n"))

    async with connection.transaction():
        await insert(1)
        savepoint = connection.transaction()
        await savepoint.start()
        await insert(2)
        await savepoint.rollback()
        await insert(3)
    before = await kept()
    rolled = connection.transaction()
    await rolled.start()
    await insert(4)
    await rolled.rollback()
    return before, await kept()


async def error(connection):
    try:
        await connection.fetch("select nope from orders where id = $1", 1)
    except asyncpg.PostgresError as error:
        return error.sqlstate, error.position
    return ("no error",)


async def copy_in(connection):
    await connection.execute("create temp table copied (n int)")
    await connection.copy_records_to_table("copied", records=[(n,) for n in range(1000)])
    return await connection.fetchrow("select count(*), sum(n) from copied")


async def copy_out(connection):
    chunks = []

    async def take(chunk):
        chunks.append(chunk)

    await connection.copy_from_query("select generate_series(0, 999)", output=take)
    lines = b"".join(chunks).split()
    return len(lines), sum(map(int, lines))


async def cancel(connection):
    # A call that runs out of time is cancelled at the server; asyncpg keeps the server's answer for itself.
    try:
        await connection.execute("select pg_sleep(30)", timeout=0.5)
        outcome = "slept"
    except asyncio.TimeoutError:
        outcome = "canceled"
    return outcome, await connection.fetchval("select 1")


async def notify(connection, another):
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("orders_changed", lambda *message: heard.done() or heard.set_result(message[3]))
    await another.execute("notify orders_changed, '42'")
    return (await asyncio.wait_for(heard, 10),)


async def large(connection):
    return digest(await connection.fetchval("select $1::text", LARGE))


async def cursor(connection):
    count = total = 0
    async with connection.transaction():
        async for row in connection.cursor("select generate_series(1, $1::int) as n", CURSOR_ROWS, prefetch=500):
            count, total = count + 1, total + row["n"]
    return count, total


async def refusal():
    try:
        await connect(fact("WRONG_TOKEN"))
    except asyncpg.PostgresError as error:
        return f"{error.sqlstate} {error} {error.detail}",
    return ("let in",)


async def session_user(connection):
    return (await connection.fetchval("select session_user"),)


async def main():
    connection, another = await connect(fact("PGPASSWORD")), await connect(fact("PGPASSWORD"))
    await run_async({
        "connect": lambda: session_user(connection),
        "parameters text": lambda: text(connection),
        "parameters binary": lambda: binary(connection),
        "prepared x100": lambda: prepared(connection),
        "pipeline": lambda: pipeline(connection),
        "transaction": lambda: transaction(connection),
        "error position": lambda: error(connection),
        "copy in": lambda: copy_in(connection),
        "copy out": lambda: copy_out(connection),
        "cancel": lambda: cancel(connection),
        "listen/notify": lambda: notify(connection, another),
        "20 MiB value": lambda: large(connection),
        "cursor 10000": lambda: cursor(connection),
        "refusal": refusal,
    })
    await connection.close()
    await another.close()


asyncio.run(main())
