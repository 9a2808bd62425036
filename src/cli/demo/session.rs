//! A caller's session with the proxy: TLS checked as `sslmode=verify-full` does, the token as the password.

use super::caller::Caller;
use super::{Error, Proxy};
use crate::agent;
use crate::sim::Cloud;
use crate::sim::world::DATABASE;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tokio_rustls::client::TlsStream;

/// The name that the proxy's certificate must have.
const HOST: &str = "localhost";
/// Connecting, the query and its answer together.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a caller got.
#[derive(Debug)]
pub(super) enum Answer {
    /// Column names and the rows' values.
    Rows(Vec<String>, Vec<Vec<String>>),
    /// The proxy's or the database's error.
    Refused(Refusal),
}

/// An error as psql would print it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) sqlstate: String,
    pub(super) message: String,
    pub(super) detail: String,
    pub(super) hint: String,
}

/// Connects as the caller and asks their query.
pub(super) async fn ask(cloud: &Cloud, proxy: &Proxy, caller: &Caller) -> Result<Answer, Error> {
    let failed = |source| Error::io("talk to the proxy", source);
    let asking = async {
        let stream = verified(cloud, proxy).await.map_err(failed)?;
        let token = caller.token()?;
        answered(stream, caller, token.expose()).await.map_err(failed)
    };
    tokio::time::timeout(DEADLINE, asking).await.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
}

async fn answered(stream: TlsStream<TcpStream>, caller: &Caller, token: &str) -> io::Result<Answer> {
    let mut config = tokio_postgres::Config::new();
    // TLS is up already; tokio-postgres need not ask for it.
    config.user(caller.user).dbname(DATABASE).password(token).ssl_mode(SslMode::Disable);
    config.application_name("pgpassport-demo");
    let (client, connection) = match config.connect_raw(stream, NoTls).await {
        Ok(connected) => connected,
        Err(error) => return refusal(error),
    };
    let connection = tokio::spawn(connection);
    let answer = match client.simple_query(caller.query).await {
        Ok(messages) => Ok(rows(&messages)),
        Err(error) => refusal(error),
    };
    drop(client);
    // The session ends in order, so that its end is on record.
    let _ = connection.await;
    answer
}

/// TLS with the proxy, its chain and name verified against the CA file that psql is given too.
async fn verified(cloud: &Cloud, proxy: &Proxy) -> io::Result<TlsStream<TcpStream>> {
    let proxy = agent::Proxy { host: HOST.to_owned(), port: proxy.address.port(), ca: cloud.ca_path().to_owned() };
    proxy.connect().await.map_err(io::Error::other)
}

fn rows(messages: &[SimpleQueryMessage]) -> Answer {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            names = row.columns().iter().map(|column| column.name().to_owned()).collect();
            values.push((0..row.len()).map(|index| row.get(index).unwrap_or("NULL").to_owned()).collect());
        }
    }
    Answer::Rows(names, values)
}

fn refusal(error: tokio_postgres::Error) -> io::Result<Answer> {
    let Some(fields) = error.as_db_error() else { return Err(io::Error::other(error)) };
    Ok(Answer::Refused(Refusal {
        sqlstate: fields.code().code().to_owned(),
        message: fields.message().to_owned(),
        detail: fields.detail().unwrap_or_default().to_owned(),
        hint: fields.hint().unwrap_or_default().to_owned(),
    }))
}
