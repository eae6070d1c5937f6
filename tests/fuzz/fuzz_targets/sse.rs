#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| gatekeeper_filters::meter::fuzzing::sse(input));
