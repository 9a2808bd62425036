//! See `pgpassport::identity::fuzzing::jws`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::identity::fuzzing::jws(data));
