"""psycopg 3, https://www.psycopg.org/psycopg3/docs/. The acts take an open connection, so that a pool can lend it."""

import os
import threading
import time

import psycopg

from acts import CURSOR_ROWS, LARGE, TEXT, digest


def parameters_text(connection):
    row = connection.execute("select %t::int + 1, %t::text, %t::int is null", (41, TEXT, None)).fetchone()
    return row


def parameters_binary(connection):
    cursor = connection.cursor(binary=True)
    row = cursor.execute("select %b::int4 + 1, %b::bytea, %b::float8", (41, b"\x00\x01\xff", 0.5)).fetchone()
    return row[0], row[1].hex(), row[2]


def prepared(connection):
    total = 0
    for n in range(100):
        total += connection.execute("select %s::int * 2", (n,), prepare=True).fetchone()[0]
    return 100, total


def pipeline(connection):
    with connection.pipeline():
        cursors = [connection.execute("select %s::int", (n,)) for n in (1, 2, 3)]
        return [cursor.fetchone()[0] for cursor in cursors]


def transaction(connection):
    connection.execute("create temp table kept_psycopg (n int)")

    def insert(n):
        connection.execute("insert into kept_psycopg values (%s)", (n,))

    def kept():
        return ",".join(str(n) for (n,) in connection.execute("select n from kept_psycopg order by n").fetchall())

    with connection.transaction():
        insert(1)
        with connection.transaction(force_rollback=True):
            insert(2)
        insert(3)
    before = kept()
    with connection.transaction(force_rollback=True):
        insert(4)
    return before, kept()


def error(connection):
    try:
        connection.execute("select nope from orders where id = %s", (1,))
    except psycopg.Error as error:
        return error.sqlstate, error.diag.statement_position
    return ("no error",)


def copy_in(connection):
    connection.execute("create temp table copied_psycopg (n int)")
    with connection.cursor().copy("copy copied_psycopg from stdin") as copy:
        for n in range(1000):
            copy.write_row((n,))
    return connection.execute("select count(*), sum(n) from copied_psycopg").fetchone()


def copy_out(connection):
    count = total = 0
    with connection.cursor().copy("copy (select generate_series(0, 999)) to stdout") as copy:
        for row in copy.rows():
            count, total = count + 1, total + int(row[0])
    return count, total


def cancel(connection):
    def later():
        time.sleep(0.5)
        connection.cancel_safe(timeout=10)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        connection.execute("select pg_sleep(30)")
        outcome = "slept"
    except psycopg.errors.QueryCanceled:
        outcome = "canceled"
    thread.join()
    return outcome, connection.execute("select 1").fetchone()[0]


def notify(connection, another):
    connection.execute("listen orders_changed_psycopg")
    another.execute("notify orders_changed_psycopg, '42'")
    for heard in connection.notifies(timeout=10, stop_after=1):
        return (heard.payload,)
    return ("silence",)


def large(connection):
    return digest(connection.execute("select %s::text", (LARGE,)).fetchone()[0])


def cursor(connection):
    count = total = 0
    with connection.transaction(), connection.cursor(name="by_cursor") as rows:
        rows.itersize = 500
        rows.execute("select generate_series(1, %s::int)", (CURSOR_ROWS,))
        for (n,) in rows:
            count, total = count + 1, total + n
    return count, total


def refusal():
    try:
        psycopg.connect("", password=os.environ["WRONG_TOKEN"])
    except psycopg.OperationalError as error:
        return (str(error),)
    return ("let in",)
