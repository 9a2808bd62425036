//! A caller's session with the proxy: TLS checked as `sslmode=verify-full` does, the token as the password.

use super::caller::Caller;
use super::{Error, Proxy};
use crate::sim::Cloud;
use crate::sim::world::DATABASE;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name that the proxy's certificate must have.
const HOST: &str = "localhost";
/// Connecting, the query and its answer together.
const DEADLINE: Duration = Duration::from_secs(30);
/// `SSLRequest` (PostgreSQL, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

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
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cloud.ca_path()).map_err(io::Error::other)?).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut stream = TcpStream::connect(proxy.address).await?;
    stream.write_all(&SSL_REQUEST).await?;
    if stream.read_u8().await? != b'S' {
        return Err(io::Error::other("the proxy declined TLS"));
    }
    let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
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
