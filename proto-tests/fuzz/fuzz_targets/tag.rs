//! See `pgpassport::relay::fuzzing::tag`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::relay::fuzzing::tag(data));
