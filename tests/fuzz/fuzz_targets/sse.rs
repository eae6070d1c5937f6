#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| gatekeeper_filters::meter::fuzz_targets::sse(input));
