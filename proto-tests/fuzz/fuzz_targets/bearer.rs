//! See `pgpassport::frontend::fuzzing::bearer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::frontend::fuzzing::bearer(data));
