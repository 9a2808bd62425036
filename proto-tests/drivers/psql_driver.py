"""psql, the program that `PSQL` names, one run an act. `PSQL_VERSION` 18 has the meta-commands of the extended protocol.

Its manual: https://www.postgresql.org/docs/current/app-psql.html. psql 15 has no `\\bind` (added in 16), no psql has
parameters in binary.
"""

import os
import pty
import re
import signal
import subprocess
import time

from acts import CURSOR_ROWS, LARGE, TEXT, digest, fact, run, say

NEW = fact("PSQL_VERSION") == "18"

# The table's row says a version: another psql must not fill it.
VERSION = subprocess.run([fact("PSQL"), "--version"], capture_output=True, text=True, check=True).stdout
if not VERSION.startswith(f"psql (PostgreSQL) {fact('PSQL_VERSION')}"):
    raise SystemExit(f"{fact('PSQL')} is {VERSION.strip()}, not {fact('PSQL_VERSION')}")


def start(arguments=(), **environment):
    return subprocess.Popen(
        [fact("PSQL"), "--no-psqlrc", "--no-password", "-qAt", *arguments],
        env={**os.environ, **environment}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )


def psql(script, arguments=()):
    process = start(arguments)
    out, err = process.communicate(script, timeout=120)
    if process.returncode != 0 or err:
        raise RuntimeError(err or f"exit code {process.returncode}")
    return out.strip()


def rows(script, arguments=()):
    return psql(script, arguments).split("\n")


def parameters_text():
    line = psql("select $1::int + 1, $2::text, ($3::text = '')\n\\bind 41 :text '' \\g\n", ["-v", f"text={TEXT}"])
    number, text, empty = line.split("|")
    return number, text, empty == "t"


def prepared():
    if NEW:
        script = "select $1::int * 2 \\parse doubled\n" + "".join(f"\\bind_named doubled {n} \\g\n" for n in range(100))
    else:
        script = "prepare doubled(int) as select $1 * 2;\n" + "".join(f"execute doubled({n});\n" for n in range(100))
    numbers = [int(line) for line in rows(script)]
    return len(numbers), sum(numbers)


def pipeline():
    selects = "".join(f"select $1::int \\bind {n} \\sendpipeline\n" for n in (1, 2, 3))
    return rows(f"\\startpipeline\n{selects}\\endpipeline\n")


def transaction():
    kept = "select string_agg(n::text, ',' order by n) from kept;\n"
    return rows(
        "create temp table kept (n int);\nbegin;\ninsert into kept values (1);\nsavepoint s;\n"
        "insert into kept values (2);\nrollback to s;\ninsert into kept values (3);\ncommit;\n" + kept
        + "begin;\ninsert into kept values (4);\nrollback;\n" + kept
    )


def error():
    process = start(["-v", "VERBOSITY=verbose"])
    _, err = process.communicate("select nope from orders where id = 1;\n", timeout=60)
    code = re.search(r"ERROR:  (\w{5}):", err)
    caret = re.search(r"^(LINE 1: ).*\n( *)\^", err, re.MULTILINE)
    return code.group(1), len(caret.group(2)) - len(caret.group(1)) + 1


def copy_in():
    lines = "".join(f"{n}\n" for n in range(1000))
    line = psql(
        f"create temp table copied (n int);\n\\copy copied from stdin\n{lines}\\.\nselect count(*), sum(n) from copied;\n"
    )
    return (line,)


def copy_out():
    numbers = [int(line) for line in rows("\\copy (select generate_series(0, 999)) to stdout\n")]
    return len(numbers), sum(numbers)


def cancel():
    """At a terminal: a script would end with the cancelled statement."""
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [fact("PSQL"), "--no-psqlrc", "--no-readline", "-qAt", "-v", "VERBOSITY=verbose"],
        stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, start_new_session=True, text=True,
    )
    os.close(terminal)
    os.write(ours, b"select pg_sleep(30);\n")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    os.write(ours, b"select 'al' || 'ive';\n\\q\n")
    _, err = process.communicate(timeout=60)
    out = os.read(ours, 65536).decode()
    os.close(ours)
    return "canceled" if "57014" in err else err, 1 if "alive" in out else out


def notify():
    line = psql("listen orders_changed;\nnotify orders_changed, '42';\n")
    return re.search(r'with payload "(.*)" received', line).groups()


def large():
    return digest(psql(f"select '{LARGE}'::text;\n"))


def cursor():
    fetches = "fetch 500 from by_cursor;\n" * (CURSOR_ROWS // 500 + 1)
    declared = f"declare by_cursor cursor for select generate_series(1, {CURSOR_ROWS});\n"
    numbers = [int(line) for line in rows(f"begin;\n{declared}{fetches}commit;\n")]
    return len(numbers), sum(numbers)


def refusal():
    process = start(["-c", "select 'let in'"], PGPASSWORD=fact("WRONG_TOKEN"))
    out, err = process.communicate(timeout=60)
    return (out + err,)


acts = {
    "connect": lambda: rows("select session_user;\n"),
    "parameters text": parameters_text,
    "prepared x100": prepared,
    "pipeline": pipeline,
    "transaction": transaction,
    "error position": error,
    "copy in": copy_in,
    "copy out": copy_out,
    "cancel": cancel,
    "listen/notify": notify,
    "20 MiB value": large,
    "cursor 10000": cursor,
    "refusal": refusal,
}
absent = ["parameters binary"] + ([] if NEW else ["parameters text", "pipeline"])
run({act: work for act, work in acts.items() if act not in absent})
for act in absent:
    say(act, "n/a")
