//! See `failsoft::fuzzing::record`, which checks the properties.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| failsoft::fuzzing::record(bytes));
