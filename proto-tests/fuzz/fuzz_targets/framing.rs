//! See `pgpassport::wire::fuzzing::framing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::wire::fuzzing::framing(data));
