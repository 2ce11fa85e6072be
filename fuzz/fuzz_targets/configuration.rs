//! See `failsoft::fuzzing::configuration`, which checks the properties.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| failsoft::fuzzing::configuration(bytes));
