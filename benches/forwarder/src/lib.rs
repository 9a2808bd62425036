//! What the benches' own programs share: TLS as the proxy has it.

pub mod tls;
