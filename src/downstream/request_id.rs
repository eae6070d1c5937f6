//! Names of requests, in answers, logs and records.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use aes_gcm::{
    KeyInit as _,
    aes::{Aes128, cipher::BlockCipherEncrypt as _},
};

/// Random ids: a counter, encrypted under a key of this process, so that an id does not reveal the number
/// of requests. Cheaper than random bytes from the system.
pub struct RequestIds {
    cipher: Aes128,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        let mut key = [0u8; 16];
        if getrandom::fill(&mut key).is_err() {
            // The standard library's own seed, of the same source, read when there was one.
            use std::hash::{BuildHasher, RandomState};
            let (one, other) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
            key = (u128::from(one) << 64 | u128::from(other)).to_ne_bytes();
        }
        Self { cipher: Aes128::new(&key.into()), next: AtomicU64::new(0) }
    }
}

impl RequestIds {
    pub fn next(&self) -> Arc<str> {
        let mut block = u128::from(self.next.fetch_add(1, Relaxed)).to_ne_bytes().into();
        self.cipher.encrypt_block(&mut block);
        let mut id = *b"req_0000000000000000";
        for (digits, byte) in id[4..].chunks_exact_mut(2).zip(&block) {
            digits[0] = DIGITS[usize::from(byte >> 4)];
            digits[1] = DIGITS[usize::from(byte & 15)];
        }
        Arc::from(std::str::from_utf8(&id).unwrap_or("req_"))
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_look_alike_and_tell_no_count() {
        let ids = RequestIds::default();
        let numbers: Vec<u64> = (0..10_000)
            .map(|_| u64::from_str_radix(ids.next().strip_prefix("req_").unwrap(), 16).unwrap())
            .collect();
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
        // What gave the count away before: the differences of ids repeat, or their low bits go round.
        let steps: HashSet<u64> = numbers.windows(2).map(|two| two[0] ^ two[1]).collect();
        assert_eq!(steps.len(), numbers.len() - 1);
        let odd = numbers.iter().filter(|number| *number & 1 == 1).count();
        assert!((4_500..5_500).contains(&odd), "{odd}");
        assert_ne!(RequestIds::default().next(), RequestIds::default().next());
    }
}
