//! The simulators driven from outside, over loopback, as the proxy and its callers will.

mod cleanup;
mod driver;
mod entra;
mod entra_codes;
mod google;
mod instance;
