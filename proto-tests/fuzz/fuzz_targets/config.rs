//! See `pgpassport::config::fuzzing::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::config::fuzzing::config(data));
