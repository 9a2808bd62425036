//! See `pgpassport::wire::fuzzing::startup`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpassport::wire::fuzzing::startup(data));
