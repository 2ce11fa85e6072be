//! See `failsoft::fuzzing::visitor`, which checks the properties.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| failsoft::fuzzing::visitor(bytes));
