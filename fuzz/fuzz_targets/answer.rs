//! See `failsoft::fuzzing::answer`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| failsoft::fuzzing::answer(bytes));
