//! Protocol version 3 framing and the few messages that are read, without I/O and with size limits.
//!
//! Bytes from the network are hostile: nothing here indexes, panics or allocates by a length that was not
//! checked first. Message formats: PostgreSQL documentation, "Message Formats" (protocol-message-formats).

mod error_fields;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod reader;
mod startup;

pub use error_fields::ErrorFields;
pub use frame::{FrameError, HEADER_BYTES, Header, append};
pub use reader::{Malformed, Reader};
pub use startup::{
    CANCEL_REQUEST, GSSENC_REQUEST, Initial, MAX_STARTUP_PACKET, NEWEST_MINOR, PROTOCOL_3_0, Parameters, Purpose,
    SSL_REQUEST, SSL_REQUEST_PACKET, StartupPacket, cancel_secret_bytes, negotiated_minor,
};
