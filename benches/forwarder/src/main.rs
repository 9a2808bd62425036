//! A bare TLS forwarder: takes a client's `SSLRequest` and TLS, makes its own to the server, and copies bytes.
//!
//! It looks at nothing, keeps nothing and has no deadlines: what is left is what tokio, rustls and the kernel cost.
//! For benchmarks on loopback, not for use.

mod arguments;

use arguments::{Arguments, Runtime};
use forwarder::tls;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// `SSLRequest` (PostgreSQL, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What every connection needs.
struct Forwarder {
    arguments: Arguments,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forwarder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let forwarder = Forwarder {
        acceptor: tls::acceptor(&arguments.certificate, &arguments.key)?,
        connector: tls::connector(&arguments.ca)?,
        arguments,
    };
    let mut builder = match forwarder.arguments.runtime {
        Runtime::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        Runtime::MultiThread => tokio::runtime::Builder::new_multi_thread(),
    };
    Ok(builder.enable_all().build()?.block_on(serve(Arc::new(forwarder)))?)
}

async fn serve(forwarder: Arc<Forwarder>) -> io::Result<()> {
    let listener = TcpListener::bind(forwarder.arguments.listen).await?;
    // It ends by itself, so that an instrumented build writes its counts.
    let mut end = signal(SignalKind::terminate())?;
    loop {
        let (client, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = end.recv() => return Ok(()),
        };
        let forwarder = Arc::clone(&forwarder);
        tokio::spawn(async move {
            // A side that resets its connection is its own affair.
            let _ = forwarder.forward(client).await;
        });
    }
}

impl Forwarder {
    async fn forward(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut request = [0; SSL_REQUEST.len()];
        client.read_exact(&mut request).await?;
        if request != SSL_REQUEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client asks for no TLS"));
        }
        client.write_all(b"S").await?;
        let mut client = self.acceptor.accept(client).await?;

        let mut server = TcpStream::connect(self.arguments.server).await?;
        server.set_nodelay(true)?;
        server.write_all(&SSL_REQUEST).await?;
        if server.read_u8().await? != b'S' {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server has no TLS"));
        }
        let mut server = self.connector.connect(tls::server_name()?, server).await?;

        let size = self.arguments.buffer;
        copy_bidirectional_with_sizes(&mut client, &mut server, size, size).await?;
        Ok(())
    }
}
