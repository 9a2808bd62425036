//! See `pgpassport::identity::fuzzing::token_claims`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::identity::fuzzing::token_claims(data));
