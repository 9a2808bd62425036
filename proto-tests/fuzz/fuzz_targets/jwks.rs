//! See `pgpassport::identity::fuzzing::jwks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::identity::fuzzing::jwks(data));
