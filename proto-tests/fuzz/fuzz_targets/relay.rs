//! See `pgpassport::relay::fuzzing::relay`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::relay::fuzzing::relay(data));
