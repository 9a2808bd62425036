//! See `pgpassport::backend::fuzzing::server_login`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::backend::fuzzing::server_login(data));
