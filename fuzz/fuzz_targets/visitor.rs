//! See `failsoft::fuzzing::visitor`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| failsoft::fuzzing::visitor(bytes));
