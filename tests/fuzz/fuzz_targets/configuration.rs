#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| gatekeeper::fuzz_targets::configuration(input));
