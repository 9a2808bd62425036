//! tokio-postgres, <https://docs.rs/tokio-postgres>.

use super::{CURSOR_BATCH, CURSOR_ROWS, Error, LARGE_REPEATS, LARGE_UNIT, TEXT, hex, joined};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, TryStreamExt, pin_mut, stream};
use md5::{Digest, Md5};
use proto_tests::chain::Chain;
use proto_tests::drivers::Acts;
use proto_tests::psql::Login;
use std::time::Duration;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// Every act.
pub async fn run(chain: &Chain, login: &Login, wrong: &str) -> Acts {
    let mut client = chain.connect(login).await.client;
    let mut acts = Acts::new();
    let mut add = |act: &str, value: Result<String, Error>| {
        acts.insert(act.to_owned(), value.unwrap_or_else(|error| format!("!{error}")));
    };
    add("connect", connect(&client).await);
    add("parameters text", text(&client).await);
    add("parameters binary", binary(&client).await);
    add("prepared x100", prepared(&client).await);
    add("pipeline", pipeline(&client).await);
    add("transaction", transaction(&mut client).await);
    add("error position", error(&client).await);
    add("copy in", copy_in(&client).await);
    add("copy out", copy_out(&client).await);
    add("cancel", cancel(chain, &client).await);
    add("listen/notify", notify(chain, login, &client).await);
    add("20 MiB value", large(&client).await);
    add("cursor 10000", cursor(&mut client).await);
    add("refusal", refusal(chain, login, wrong).await);
    acts
}

async fn connect(client: &Client) -> Result<String, Error> {
    Ok(client.query_one("select session_user::text", &[]).await?.get(0))
}

/// Sent in text format.
#[derive(Debug)]
struct AsText(&'static str);

impl ToSql for AsText {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

async fn text(client: &Client) -> Result<String, Error> {
    let query = "select $1::int + 1, $2::text, $3::int is null";
    let row = client.query_one(query, &[&AsText("41"), &AsText(TEXT), &None::<i32>]).await?;
    Ok(format!("{}|{}|{}", row.get::<_, i32>(0), row.get::<_, &str>(1), row.get::<_, bool>(2)))
}

async fn binary(client: &Client) -> Result<String, Error> {
    let parameters: &[&(dyn ToSql + Sync)] = &[&41_i32, &[0_u8, 1, 255].as_slice(), &0.5_f64];
    let row = client.query_one("select $1::int4 + 1, $2::bytea, $3::float8", parameters).await?;
    Ok(format!("{}|{}|{}", row.get::<_, i32>(0), hex(row.get(1)), row.get::<_, f64>(2)))
}

async fn prepared(client: &Client) -> Result<String, Error> {
    let statement = client.prepare("select $1::int * 2").await?;
    let mut total = 0;
    for n in 0..100_i32 {
        total += client.query_one(&statement, &[&n]).await?.get::<_, i32>(0);
    }
    Ok(format!("100|{total}"))
}

/// Requests that are polled together are sent together (its documentation, "Pipelining").
async fn pipeline(client: &Client) -> Result<String, Error> {
    let one = |n: i32| async move {
        let row = client.query_one("select $1::int", &[&n]).await?;
        Ok::<_, Error>(row.get::<_, i32>(0).to_string())
    };
    let (a, b, c) = tokio::join!(one(1), one(2), one(3));
    Ok(joined([a?, b?, c?]))
}

async fn transaction(client: &mut Client) -> Result<String, Error> {
    const INSERT: &str = "insert into kept values ($1)";
    client.batch_execute("create temp table kept (n int)").await?;
    let mut transaction = client.transaction().await?;
    transaction.execute(INSERT, &[&1]).await?;
    let savepoint = transaction.savepoint("s").await?;
    savepoint.execute(INSERT, &[&2]).await?;
    savepoint.rollback().await?;
    transaction.execute(INSERT, &[&3]).await?;
    transaction.commit().await?;
    let before = kept(client).await?;
    let transaction = client.transaction().await?;
    transaction.execute(INSERT, &[&4]).await?;
    transaction.rollback().await?;
    Ok(format!("{before}|{}", kept(client).await?))
}

async fn kept(client: &Client) -> Result<String, Error> {
    Ok(client.query_one("select string_agg(n::text, ',' order by n) from kept", &[]).await?.get(0))
}

async fn error(client: &Client) -> Result<String, Error> {
    let error = client.query("select nope from orders where id = $1", &[&1]).await.err().ok_or("no error")?;
    let error = error.as_db_error().ok_or("no error of the database")?;
    match error.position() {
        Some(ErrorPosition::Original(position)) => Ok(format!("{}|{position}", error.code().code())),
        other => Err(format!("{other:?}").into()),
    }
}

async fn copy_in(client: &Client) -> Result<String, Error> {
    client.batch_execute("create temp table copied (n int)").await?;
    let sink = client.copy_in("copy copied from stdin").await?;
    pin_mut!(sink);
    let mut lines = stream::iter((0..1000).map(|n| Ok(Bytes::from(format!("{n}\n")))));
    sink.send_all(&mut lines).await?;
    sink.finish().await?;
    let row = client.query_one("select count(*), sum(n) from copied", &[]).await?;
    Ok(format!("{}|{}", row.get::<_, i64>(0), row.get::<_, i64>(1)))
}

async fn copy_out(client: &Client) -> Result<String, Error> {
    let chunks: Vec<Bytes> =
        client.copy_out("copy (select generate_series(0, 999)) to stdout").await?.try_collect().await?;
    let text = String::from_utf8(chunks.concat())?;
    let numbers = text.lines().map(str::parse).collect::<Result<Vec<i64>, _>>()?;
    Ok(format!("{}|{}", numbers.len(), numbers.iter().sum::<i64>()))
}

async fn cancel(chain: &Chain, client: &Client) -> Result<String, Error> {
    let token = client.cancel_token();
    let later = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel_query_raw(chain.tls().await?, NoTls).await?;
        Ok::<_, Error>(())
    };
    let (slept, cancelled) = tokio::join!(client.batch_execute("select pg_sleep(30)"), later);
    cancelled?;
    let code = slept.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
    let outcome = if code.as_deref() == Some("57014") { "canceled" } else { "slept" };
    Ok(format!("{outcome}|{}", client.query_one("select 1", &[]).await?.get::<_, i32>(0)))
}

async fn notify(chain: &Chain, login: &Login, another: &Client) -> Result<String, Error> {
    let mut config = tokio_postgres::Config::new();
    config.user(&login.user).dbname(&login.database).password(&login.password);
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (listener, mut connection) = config.connect_raw(chain.tls().await?, NoTls).await?;
    let (heard, mut payloads) = tokio::sync::mpsc::unbounded_channel();
    let polling = tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(message) = message {
                let _ = heard.send(message.payload().to_owned());
            }
        }
    });
    listener.batch_execute("listen orders_changed").await?;
    another.batch_execute("notify orders_changed, '42'").await?;
    let payload =
        tokio::time::timeout(Duration::from_secs(10), payloads.recv()).await?.ok_or("the connection ended")?;
    drop(listener);
    polling.await?;
    Ok(payload)
}

async fn large(client: &Client) -> Result<String, Error> {
    let value = LARGE_UNIT.repeat(LARGE_REPEATS);
    let row = client.query_one("select $1::text", &[&value]).await?;
    let back: &str = row.get(0);
    Ok(format!("{}|{:x}", back.len(), Md5::digest(back)))
}

async fn cursor(client: &mut Client) -> Result<String, Error> {
    let transaction = client.transaction().await?;
    let portal = transaction.bind("select generate_series(1, $1::int)", &[&CURSOR_ROWS]).await?;
    let (mut count, mut total) = (0_i64, 0_i64);
    loop {
        let rows = transaction.query_portal(&portal, CURSOR_BATCH).await?;
        if rows.is_empty() {
            break;
        }
        count += i64::try_from(rows.len())?;
        total += rows.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum::<i64>();
    }
    transaction.commit().await?;
    Ok(format!("{count}|{total}"))
}

async fn refusal(chain: &Chain, login: &Login, wrong: &str) -> Result<String, Error> {
    let login = Login { password: wrong.to_owned(), ..login.clone() };
    let error = chain.try_connect(&login).await.err().ok_or("let in")?;
    let error = error.as_db_error().ok_or("no error of the server")?;
    Ok(format!("{} {} {}", error.code().code(), error.message(), error.detail().unwrap_or_default()))
}
