"""Does a statement parse to the same tree with the tag in front? libpg_query, PostgreSQL's own parser, is the judge.

    same_tree.py TAG

Statements are a list of nasty ones, statements put together from pieces, and both with bytes dropped, doubled or
swapped, from a fixed seed. For each: the same tree but for locations, or the same error at the same character of the
client's text; and the same tokens behind the tag. Prints how many had a tree and how many an error, or what differs.
"""

import json
import random
import sys

from pglast import parser

SEED = 20261122
GENERATED = 4000
LOCATIONS = {"location", "stmt_len", "list_start", "list_end", "rexpr_list_start", "rexpr_list_end"}

NASTY = [
    "", " ", ";", ";;", "\n", "--", "-- x", "--\n", "/**/", "/* */;", "/* /* */ */", "/* /* */", "/*", "*/", "*", "/", "-",
    "select 1", "select 1;", "select 1; select 2", "select 1 -- tail", "select 1 /* tail", "select 1 */", "*/ select 1",
    "/*app='x',caller='ceo',oid='0',tid='0'*/ select 1", "select '*/'", "select '/*'", "select '--'", "select \"*/\"",
    "select $$*/$$", "select $a$ $$ */ $a$", "select $1", "select $1, $2", "select $$ open", "select 'open", "select \"open",
    "select E'\\'' || '*/'", "select E'\\x41\\u00fc'", "select U&'d\\0061t' UESCAPE '!'", "select U&\"d\\0061t\"", "select B'01', X'ff'",
    "select 'a'\n'b'", "select 'a' /* c */\n'b'", "select 'a' -- c\n'b'", "select 'a' 'b'", "select N'a'", "select 1e10, .5, 1_000, 0x1f",
    "select a.b.c, \"ü\".\"日本\", $ü$x$ü$", "select 'ü日本語😀' from", "select ü from (", "select \u00a01", "\ufeffselect 1",
    "copy t from stdin", "copy (select 1) to stdout with (format csv, header)", "prepare p (int) as select $1", "execute p(1)",
    "deallocate all", "begin; savepoint a; rollback to a; commit", "do $$ begin raise notice '*/'; end $$", "call f(1)",
    "create function f() returns int language sql as $f$ select 1 /* $f$", "create function f() returns int begin atomic select 1; end",
    "explain (analyze, verbose) select 1", "declare c cursor with hold for select 1", "fetch 5 from c", "listen a; notify a, 'b'",
    "with recursive a as (select 1 union all select 2) table a", "values (1, 'a'), (2, E'\\n')", "merge into t using s on a = b when matched then delete",
    "insert into t default values on conflict do nothing returning *", "select * from json_table('{}', '$' columns (a int path '$.a'))",
    "create rule r as on insert to t do also (select 1; select 2)", "set standard_conforming_strings = off", "select 'a\\'", "@", "\\", "select 1 \\g",
    "select operator(pg_catalog.+) 1", "select 1 @-- c\n 2", "select 1 */* c */ 2", "select 1 +/* c */- 2", "select 1 /*+ hint */ + 1",
    "/* c1 *//* c2 */select/* c3 */1/* c4 */", "/*/*/select 1", "/*/**/*/select 1", "--\r\nselect 1", "\tselect\v1\f", "select 1\0",
]
PIECES = [
    "select", "insert into", "update", "delete from", "from", "where", "group by", "order by", "limit 1", "values (1)", "set a = 1", "t", "a",
    "a.b", "\"q\"", "*", "1", "'s'", "E'\\''", "$1", "$$d$$", "null", "(", ")", ",", ";", "+", "-", "*/", "/*", "/* c */", "-- c\n", "--", "'", "\"",
    "$$", "::int", "as x", "join t2 on true", "union all", "case when a then b end", "count(*)", "between 1 and 2", "in (1, 2)", "like 'x%'", "ü", "日", "\n",
]
SHAPES = [
    "select {e} from {t} where {e} = {e}", "insert into {t} values ({e}, {e}) returning {e}", "update {t} set a = {e} where {e} > {e}",
    "delete from {t} using {t} u where {e} = {e}", "select {e}, {e} union select {e}, ({q})", "create table {t}2 as {q}", "{q}; {q}",
    "with w as ({q}) select * from w, {t}", "explain {q}", "prepare p as {q}", "copy ({q}) to stdout", "select case when {e} = {e} then {e} else {e} end",
]


def expression(rng, depth=0):
    plain = ["1", "a", "'it''s'", "E'\\\\'", "$1", "$x$ */ $x$", "null", "\"Q\"", "now()", "'ü日😀'", "/* c */ 2", "3 -- c\n", "U&'\\0061'", "'--'"]
    if depth > 2 or rng.random() < 0.6:
        return rng.choice(plain)
    return rng.choice(["({} + {})", "f({}, {})", "{} || {}", "({})::text = {}", "array[{}, {}]"]).format(expression(rng, depth + 1), expression(rng, depth + 1))


def query(rng, depth=0):
    return "select " + expression(rng) + (" from (" + query(rng, depth + 1) + ") s" if depth < 2 and rng.random() < 0.4 else "")


def shaped(rng):
    text = rng.choice(SHAPES)
    while "{" in text:
        text = text.replace("{e}", expression(rng), 1).replace("{t}", rng.choice(["t", "s.t", "\"T*/\""]), 1).replace("{q}", query(rng), 1)
    return text


def mutilated(rng, text):
    for _ in range(rng.randrange(1, 4)):
        at, other = rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)
        text = rng.choice([text[:at] + text[at + 1 :], text[:at] + rng.choice("'\"$*/-\\;(ü\n") + text[at:], text[:at] + text[other:], text + text[at:]])[:2000]
    return text


def statements():
    rng = random.Random(SEED)
    yield from NASTY
    for number in range(GENERATED):
        kind = number % 4
        if kind == 0:
            yield shaped(rng)
        elif kind == 1:
            yield " ".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 12)))
        else:
            yield mutilated(rng, shaped(rng) if kind == 2 else rng.choice(NASTY))


def without_locations(node):
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if key not in LOCATIONS and not key.endswith("_location")}
        return {key: without_locations(value) for key, value in kept.items()}
    return [without_locations(entry) for entry in node] if isinstance(node, list) else node


def parsed(text, shift):
    try:
        return "tree", without_locations(json.loads(parser.parse_sql_json(text)))
    except parser.ParseError as error:
        message, *place = error.args
        return "error", message, [at - shift if isinstance(at, int) else at for at in place]


def tokens(text, shift):
    try:
        return [(token.start - shift, token.end - shift, token.name) for token in parser.scan(text) if token.start >= shift]
    except parser.ParseError as error:
        return error.args[0]


def main():
    tag = sys.argv[1]
    counts = {"tree": 0, "error": 0}
    for text in statements():
        text = text.split("\0")[0]
        alone, tagged = parsed(text, 0), parsed(tag + text, len(tag))
        if alone != tagged or tokens(text, 0) != tokens(tag + text, len(tag)):
            sys.exit(f"differs: {text!r}\nalone:  {alone}\ntagged: {tagged}\n{tokens(text, 0)}\n{tokens(tag + text, len(tag))}")
        counts[alone[0]] += 1
    print(counts["tree"], counts["error"])


if __name__ == "__main__":
    main()
