//! A key, an order, a device: known by its HMAC under the pepper, and by nothing else.

use gatekeeper_filters::kernel::LicenseId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Turns keys into ids under the pepper.
#[derive(Clone)]
pub struct KeyedHash(Hmac<Sha256>);

impl KeyedHash {
    pub fn new(pepper: &[u8; 32]) -> Self {
        // HMAC takes keys of any length (RFC 2104 section 2), so this arm is never reached.
        Self(Hmac::new_from_slice(pepper).unwrap_or_else(|_| unreachable!()))
    }

    /// Trimmed and upper-cased, then HMAC-SHA256: all 256 bits.
    pub fn id(&self, key: &str) -> LicenseId {
        let mut normal = Zeroizing::new(key.trim().to_owned());
        normal.make_ascii_uppercase();
        LicenseId(self.mac(normal.as_bytes()))
    }

    /// A key as typed, except for blanks around it. Some shops distinguish case, so a refusal applies to
    /// one spelling only. The line feed separates these hashes from those of licence keys, which contain
    /// none.
    pub fn spelling(&self, key: &str) -> LicenseId {
        let text = Zeroizing::new(format!("spelling\n{}", key.trim()));
        LicenseId(self.mac(text.as_bytes()))
    }

    /// The owner of signed licences, as they name it: a token that is issued again is the same licence.
    pub fn signed(&self, source: &str, id: &str) -> LicenseId {
        LicenseId(self.mac(format!("{source}\n{id}").as_bytes()))
    }

    /// An order (or sale) of a shop, 128 bits in hex: enough to find its licences again.
    pub fn order(&self, shop: &str, order: &str) -> String {
        self.short(&format!("order\n{shop}\n{order}"))
    }

    /// The key of the record that an order was refunded.
    pub fn refund(&self, order: &str) -> LicenseId {
        LicenseId(self.mac(format!("refund\n{order}").as_bytes()))
    }

    /// The key of the record that a licence, by its reference at the new shop, continues another one.
    pub fn moved(&self, reference: &str) -> LicenseId {
        LicenseId(self.mac(format!("moved\n{reference}").as_bytes()))
    }

    /// A device of a licence, 128 bits in hex.
    pub fn device(&self, license: &LicenseId, instance: &str) -> String {
        self.short(&format!("device\n{}\n{instance}", license.to_hex()))
    }

    /// The public name of a licence, 128 bits in hex: what a buyer may send to support. Neither the key nor
    /// the licence's id follows from it.
    pub fn public_id(&self, license: &LicenseId) -> String {
        self.short(&format!("public\n{}", license.to_hex()))
    }

    /// A message of a licence by the id that its app gave it, 128 bits in hex.
    pub fn message(&self, license: &LicenseId, id: &str) -> String {
        self.short(&format!("message\n{}\n{id}", license.to_hex()))
    }

    /// A conversation of a licence by the id that its app gave it.
    pub fn conversation(&self, license: &LicenseId, id: &str) -> u64 {
        let mac = self.mac(format!("conversation\n{}\n{id}", license.to_hex()).as_bytes());
        mac.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// A request of a licence: message, address and body, each ended by its length.
    pub fn request(&self, license: &LicenseId, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.0.clone();
        mac.update(b"request\n");
        mac.update(&license.0);
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// The content of one turn of a licence's conversation.
    pub fn turn(&self, license: &LicenseId, said: &[u8]) -> u32 {
        let mac = self.mac(&[b"turn\n", license.to_hex().as_bytes(), b"\n", said].concat());
        mac.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// A master key, 128 bits in hex: gateways that share a store use it to report keys in back-off.
    pub fn secret(&self, provider: &str, secret: &str) -> String {
        self.short(&Zeroizing::new(format!("secret\n{provider}\n{secret}")))
    }

    /// The line feeds inside keep these apart from licence keys, which have none.
    fn short(&self, text: &str) -> String {
        let mut hex = LicenseId(self.mac(text.as_bytes())).to_hex();
        hex.truncate(32);
        hex
    }

    fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_key_is_one_licence() {
        let hasher = KeyedHash::new(&[7; 32]);
        let id = hasher.id("JSTAR-DEMO-0001");
        for spelling in [" jstar-demo-0001", "JStar-Demo-0001\t"] {
            assert_eq!(hasher.id(spelling), id);
        }
        assert_ne!(hasher.id("JSTAR-DEMO-0002"), id);
        assert_eq!(hasher.spelling(" Ab-1\t"), hasher.spelling("Ab-1"));
        assert_ne!(hasher.spelling("Ab-1"), hasher.spelling("AB-1"));
        assert_ne!(KeyedHash::new(&[8; 32]).id("JSTAR-DEMO-0001"), id);
    }

    #[test]
    fn orders_and_devices_are_told_apart() {
        let hasher = KeyedHash::new(&[7; 32]);
        assert_ne!(hasher.order("lemonsqueezy", "7"), hasher.order("gumroad", "7"));
        assert_ne!(hasher.device(&hasher.id("A"), "7"), hasher.device(&hasher.id("B"), "7"));
    }
}
