//! See `failsoft::fuzzing::completion`, which checks the properties.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| failsoft::fuzzing::completion(bytes));
