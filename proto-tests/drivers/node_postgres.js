// node-postgres, https://node-postgres.com. Prints `ACT<TAB>VALUE`; the test knows which value is right.
'use strict'
const crypto = require('node:crypto')
const fs = require('node:fs')
const { once } = require('node:events')
const { createRequire } = require('node:module')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
// Installed elsewhere: this folder stays as it was checked out.
const load = createRequire(process.env.DRIVER_MODULES + '/')
const pg = load('pg')
const Cursor = load('pg-cursor')
const copy = load('pg-copy-streams')

const LARGE = 'abcdefghijklmnop'.repeat((20 * 1024 * 1024) / 16)
const TEXT = "grüße '*/ --"
const CURSOR_ROWS = 10000
const CURSOR_BATCH = 500

function client(options = {}) {
  const { PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD, PGSSLROOTCERT } = process.env
  return new pg.Client({
    host: PGHOST,
    port: Number(PGPORT),
    user: PGUSER,
    database: PGDATABASE,
    password: PGPASSWORD,
    ssl: { ca: fs.readFileSync(PGSSLROOTCERT), rejectUnauthorized: true },
    ...options,
  })
}

async function connected(options) {
  const session = client(options)
  await session.connect()
  return session
}

async function parametersText(session) {
  const text = 'select $1::int + 1 as a, $2::text as b, $3::int is null as c'
  return Object.values((await session.query(text, ['41', TEXT, null])).rows[0])
}

// A Buffer travels in binary. Results stay in text: the driver decodes every field as UTF-8 first (pg-protocol,
// `parseDataRowMessage`), which no binary value survives.
async function parametersBinary(session) {
  const four = Buffer.alloc(4)
  four.writeInt32BE(41)
  const eight = Buffer.alloc(8)
  eight.writeDoubleBE(0.5)
  const text = 'select $1::int4 + 1 as a, $2::bytea as b, $3::float8 as c'
  const { rows } = await session.query({ text, values: [four, Buffer.from([0, 1, 255]), eight] })
  return [rows[0].a, rows[0].b.toString('hex'), rows[0].c]
}

async function prepared(session) {
  let total = 0
  for (let n = 0; n < 100; n++) {
    const { rows } = await session.query({ name: 'doubled', text: 'select $1::int * 2 as d', values: [n] })
    total += rows[0].d
  }
  return [100, total]
}

async function pipelined() {
  const session = await connected({ pipeline: true })
  const results = await Promise.all([1, 2, 3].map((n) => session.query('select $1::int as n', [n])))
  await session.end()
  return results.map((result) => result.rows[0].n)
}

async function transaction(session) {
  const insert = (n) => session.query('insert into kept values ($1)', [n])
  const kept = async () => (await session.query('select n from kept order by n')).rows.map((row) => row.n).join(',')
  await session.query('create temp table kept (n int)')
  await session.query('begin')
  await insert(1)
  await session.query('savepoint s')
  await insert(2)
  await session.query('rollback to savepoint s')
  await insert(3)
  await session.query('commit')
  const before = await kept()
  await session.query('begin')
  await insert(4)
  await session.query('rollback')
  return [before, await kept()]
}

async function errorPosition(session) {
  try {
    await session.query('select nope from orders where id = $1', [1])
  } catch (error) {
    return [error.code, error.position]
  }
  return ['no error']
}

async function copyIn(session) {
  await session.query('create temp table copied (n int)')
  const lines = Array.from({ length: 1000 }, (_, n) => `${n}\n`)
  await pipeline(Readable.from(lines), session.query(copy.from('copy copied from stdin')))
  return Object.values((await session.query('select count(*), sum(n) from copied')).rows[0])
}

async function copyOut(session) {
  const stream = session.query(copy.to('copy (select generate_series(0, 999)) to stdout'))
  let text = ''
  for await (const chunk of stream) text += chunk
  const numbers = text.trim().split('\n').map(Number)
  return [numbers.length, numbers.reduce((a, b) => a + b, 0)]
}

async function cancel(session) {
  const query = new pg.Query('select pg_sleep(30)')
  const failed = new Promise((resolve) => {
    query.on('error', (error) => resolve(error.code === '57014' ? 'canceled' : error.code))
    query.on('end', () => resolve('slept'))
  })
  session.query(query)
  await new Promise((resolve) => setTimeout(resolve, 500))
  // `cancel` has no TLS of its own: a plain connection carries the key, as PostgreSQL's servers allow.
  client({ ssl: false }).cancel(session, query)
  const outcome = await failed
  return [outcome, (await session.query('select 1 as one')).rows[0].one]
}

async function notify(session, another) {
  await session.query('listen orders_changed')
  const heard = once(session, 'notification', { signal: AbortSignal.timeout(10000) })
  await another.query("notify orders_changed, '42'")
  return [(await heard)[0].payload]
}

async function large(session) {
  const value = (await session.query('select $1::text as v', [LARGE])).rows[0].v
  return [value.length, crypto.createHash('md5').update(value).digest('hex')]
}

async function cursor(session) {
  await session.query('begin')
  const rows = session.query(new Cursor('select generate_series(1, $1::int) as n', [CURSOR_ROWS]))
  let [count, total] = [0, 0]
  for (let batch = await rows.read(CURSOR_BATCH); batch.length > 0; batch = await rows.read(CURSOR_BATCH)) {
    count += batch.length
    total = batch.reduce((sum, row) => sum + row.n, total)
  }
  await rows.close()
  await session.query('commit')
  return [count, total]
}

async function refusal() {
  try {
    await connected({ password: process.env.WRONG_TOKEN })
  } catch (error) {
    return [`${error.code} ${error.message} ${error.detail}`]
  }
  return ['let in']
}

async function main() {
  const [session, another] = [await connected(), await connected()]
  const acts = {
    connect: async () => [(await session.query('select session_user as u')).rows[0].u],
    'parameters text': () => parametersText(session),
    'parameters binary': () => parametersBinary(session),
    'prepared x100': () => prepared(session),
    pipeline: pipelined,
    transaction: () => transaction(session),
    'error position': () => errorPosition(session),
    'copy in': () => copyIn(session),
    'copy out': () => copyOut(session),
    cancel: () => cancel(session),
    'listen/notify': () => notify(session, another),
    '20 MiB value': () => large(session),
    'cursor 10000': () => cursor(session),
    refusal,
  }
  for (const [act, work] of Object.entries(acts)) {
    try {
      console.log(`${act}\t${(await work()).join('|')}`)
    } catch (error) {
      console.error(error)
      console.log(`${act}\t!${String(error).replaceAll('\n', ' ').slice(0, 300)}`)
    }
  }
  await session.end()
  await another.end()
}

main()
