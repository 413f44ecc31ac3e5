//! See `gantry_fuzz::TARGETS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (gantry_fuzz::target("messages").run)(data));
