//! See `pgpassport::frontend::fuzzing::claims`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::frontend::fuzzing::claims(data));
