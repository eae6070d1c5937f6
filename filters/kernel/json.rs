//! Strict JSON (RFC 8259): parsed once, duplicate keys, depth and UTF-8 checked.
