//! sqlx, <https://docs.rs/sqlx>: through its pool.
//!
//! It has no parameters in text (`PgArguments` are encoded in binary only), no pipeline and no cancel: none among
//! `PgConnection`'s calls (<https://docs.rs/sqlx/latest/sqlx/struct.PgConnection.html>).

use super::{CURSOR_BATCH, CURSOR_ROWS, Error, LARGE_REPEATS, LARGE_UNIT, TEXT, hex};
use futures_util::TryStreamExt;
use md5::{Digest, Md5};
use proto_tests::chain::Chain;
use proto_tests::drivers::{ABSENT, Acts};
use proto_tests::psql::Login;
use sqlx::postgres::{
    PgConnectOptions, PgDatabaseError, PgErrorPosition, PgListener, PgPoolCopyExt, PgPoolOptions, PgSslMode,
};
use sqlx::{Acquire, ConnectOptions, Connection, PgConnection, PgPool};
use std::time::Duration;

/// Every act.
pub async fn run(chain: &Chain, login: &Login, wrong: &str) -> Acts {
    let options = PgConnectOptions::new()
        .host(&login.host)
        .port(login.port)
        .username(&login.user)
        .database(&login.database)
        .password(&login.password)
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(chain.cloud.ca_path());
    // One session for what makes temporary tables, one for the listener.
    let pool = PgPoolOptions::new().max_connections(2).connect_with(options.clone()).await.expect("sqlx connects");
    let mut acts = Acts::new();
    let mut add = |act: &str, value: Result<String, Error>| {
        acts.insert(act.to_owned(), value.unwrap_or_else(|error| format!("!{error}")));
    };
    for absent in ["parameters text", "pipeline", "cancel"] {
        add(absent, Ok(ABSENT.to_owned()));
    }
    add("connect", connect(&pool).await);
    add("parameters binary", binary(&pool).await);
    add("prepared x100", prepared(&pool).await);
    add("transaction", transaction(&pool).await);
    add("error position", error(&pool).await);
    add("copy in", copy_in(&pool).await);
    add("copy out", copy_out(&pool).await);
    add("listen/notify", notify(&pool).await);
    add("20 MiB value", large(&pool).await);
    add("cursor 10000", cursor(&pool).await);
    add("refusal", refusal(options.password(wrong)).await);
    pool.close().await;
    acts
}

async fn connect(pool: &PgPool) -> Result<String, Error> {
    Ok(sqlx::query_scalar("select session_user::text").fetch_one(pool).await?)
}

async fn binary(pool: &PgPool) -> Result<String, Error> {
    let query = sqlx::query_as("select $1::int4 + 1, $2::bytea, $3::float8, $4::text");
    let row: (i32, Vec<u8>, f64, String) =
        query.bind(41).bind([0_u8, 1, 255].as_slice()).bind(0.5_f64).bind(TEXT).fetch_one(pool).await?;
    if row.3 != TEXT {
        return Err("another text came back".into());
    }
    Ok(format!("{}|{}|{}", row.0, hex(&row.1), row.2))
}

async fn prepared(pool: &PgPool) -> Result<String, Error> {
    let mut connection = pool.acquire().await?;
    let mut total = 0;
    for n in 0..100_i32 {
        total += sqlx::query_scalar::<_, i32>("select $1::int * 2").bind(n).fetch_one(&mut *connection).await?;
    }
    Ok(format!("100|{total}"))
}

async fn insert(connection: &mut PgConnection, n: i32) -> Result<(), Error> {
    sqlx::query("insert into kept values ($1)").bind(n).execute(connection).await?;
    Ok(())
}

async fn kept(connection: &mut PgConnection) -> Result<String, Error> {
    let query = sqlx::query_scalar("select string_agg(n::text, ',' order by n) from kept");
    Ok(query.fetch_one(connection).await?)
}

async fn transaction(pool: &PgPool) -> Result<String, Error> {
    let mut connection = pool.acquire().await?;
    sqlx::query("create temp table kept (n int)").execute(&mut *connection).await?;
    let mut transaction = connection.begin().await?;
    insert(&mut transaction, 1).await?;
    let mut savepoint = transaction.begin().await?;
    insert(&mut savepoint, 2).await?;
    savepoint.rollback().await?;
    insert(&mut transaction, 3).await?;
    transaction.commit().await?;
    let before = kept(&mut connection).await?;
    let mut transaction = connection.begin().await?;
    insert(&mut transaction, 4).await?;
    transaction.rollback().await?;
    Ok(format!("{before}|{}", kept(&mut connection).await?))
}

async fn error(pool: &PgPool) -> Result<String, Error> {
    let failed = sqlx::query("select nope from orders where id = $1").bind(1).execute(pool).await;
    let error = failed.err().ok_or("no error")?.into_database_error().ok_or("no error of the database")?;
    let error = error.downcast_ref::<PgDatabaseError>();
    match error.position() {
        Some(PgErrorPosition::Original(position)) => Ok(format!("{}|{position}", error.code())),
        _ => Err("no position".into()),
    }
}

async fn copy_in(pool: &PgPool) -> Result<String, Error> {
    let mut connection = pool.acquire().await?;
    sqlx::query("create temp table copied (n int)").execute(&mut *connection).await?;
    let mut copy = connection.copy_in_raw("copy copied from stdin").await?;
    for n in 0..1000 {
        copy.send(format!("{n}\n").as_bytes()).await?;
    }
    copy.finish().await?;
    let row: (i64, i64) = sqlx::query_as("select count(*), sum(n) from copied").fetch_one(&mut *connection).await?;
    Ok(format!("{}|{}", row.0, row.1))
}

async fn copy_out(pool: &PgPool) -> Result<String, Error> {
    let chunks = pool.copy_out_raw("copy (select generate_series(0, 999)) to stdout").await?;
    let chunks: Vec<_> = chunks.try_collect().await?;
    let text = String::from_utf8(chunks.concat())?;
    let numbers = text.lines().map(str::parse).collect::<Result<Vec<i64>, _>>()?;
    Ok(format!("{}|{}", numbers.len(), numbers.iter().sum::<i64>()))
}

async fn notify(pool: &PgPool) -> Result<String, Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("orders_changed").await?;
    sqlx::query("notify orders_changed, '42'").execute(pool).await?;
    let heard = tokio::time::timeout(Duration::from_secs(10), listener.recv()).await??;
    Ok(heard.payload().to_owned())
}

async fn large(pool: &PgPool) -> Result<String, Error> {
    let value = LARGE_UNIT.repeat(LARGE_REPEATS);
    let back: String = sqlx::query_scalar("select $1::text").bind(value).fetch_one(pool).await?;
    Ok(format!("{}|{:x}", back.len(), Md5::digest(&back)))
}

/// sqlx has no cursor of its own: the server's, in SQL.
async fn cursor(pool: &PgPool) -> Result<String, Error> {
    let mut transaction = pool.begin().await?;
    let declare = format!("declare by_cursor cursor for select generate_series(1, {CURSOR_ROWS})");
    sqlx::query(&declare).execute(&mut *transaction).await?;
    let fetch = format!("fetch {CURSOR_BATCH} from by_cursor");
    let (mut count, mut total) = (0_i64, 0_i64);
    loop {
        let rows: Vec<i32> = sqlx::query_scalar(&fetch).fetch_all(&mut *transaction).await?;
        if rows.is_empty() {
            break;
        }
        count += i64::try_from(rows.len())?;
        total += rows.iter().map(|n| i64::from(*n)).sum::<i64>();
    }
    transaction.commit().await?;
    Ok(format!("{count}|{total}"))
}

async fn refusal(options: PgConnectOptions) -> Result<String, Error> {
    let refused = options.connect().await;
    let error = match refused {
        Ok(connection) => {
            connection.close().await?;
            return Err("let in".into());
        }
        Err(error) => error.into_database_error().ok_or("no error of the server")?,
    };
    let error = error.downcast_ref::<PgDatabaseError>();
    Ok(format!("{} {} {}", error.code(), error.message(), error.detail().unwrap_or_default()))
}
