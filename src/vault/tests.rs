use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{kek::decode, *};
use crate::cli::rewrap::{Rewrapped, rewrap};

fn kek(byte: u8) -> Kek {
    Kek::new(Zeroizing::new([byte; 32]))
}

fn vault(byte: u8, previous: Option<u8>) -> VaultKeys {
    VaultKeys {
        kek: Arc::new(kek(byte)),
        previous: previous.map(|b| Arc::new(kek(b))),
        pepper: None,
    }
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn opened(
    vault: &VaultKeys,
    provider: &str,
    key_id: &str,
    sealed: &str,
) -> Result<String, UnsealError> {
    open(vault, provider, key_id, sealed).map(|secret| secret.expose_secret().to_owned())
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Test case 16 of the GCM specification: AES-256, 96-bit nonce, associated data.
#[test]
fn the_cipher_gives_the_known_answer() {
    let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let expected = hex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    );
    let cipher = Aes256Gcm::new_from_slice(&key).unwrap();
    let got = cipher.encrypt(&nonce.into(), Payload { msg: &plain, aad: &aad }).unwrap();
    assert_eq!(got, expected);
}

#[test]
fn what_is_sealed_opens_at_its_place_only() {
    let vault = vault(1, None);
    let sealed = seal(&vault.kek, "groq", "groq-1", &secret("gsk_abc")).unwrap();
    assert!(sealed.starts_with(&format!("sealed:v1:{}:", vault.kek.id())));
    assert_eq!(opened(&vault, "groq", "groq-1", &sealed).as_deref(), Ok("gsk_abc"));
    // The same letters, divided otherwise, are another place.
    for (provider, id) in [("groq", "groq-2"), ("openai", "groq-1"), ("groqg", "roq-1"), ("", "")] {
        assert_eq!(opened(&vault, provider, id, &sealed), Err(UnsealError::Refused));
    }
}

#[test]
fn no_byte_can_be_changed() {
    let vault = vault(1, None);
    let sealed = seal(&vault.kek, "groq", "groq-1", &secret("gsk_abc")).unwrap();
    let (head, data) = sealed.rsplit_once(':').unwrap();
    let data = STANDARD.decode(data).unwrap();
    for at in 0..data.len() {
        let mut changed = data.clone();
        changed[at] ^= 1;
        let text = format!("{head}:{}", STANDARD.encode(changed));
        assert_eq!(opened(&vault, "groq", "groq-1", &text), Err(UnsealError::Refused), "{at}");
    }
    for at in 0..sealed.len() {
        let mut text = sealed.clone().into_bytes();
        text[at] = if text[at] == b'b' { b'c' } else { b'b' };
        assert!(opened(&vault, "groq", "groq-1", std::str::from_utf8(&text).unwrap()).is_err());
        assert!(opened(&vault, "groq", "groq-1", &sealed[..at]).is_err());
    }
}

#[test]
fn another_kek_is_named() {
    let sealed = seal(&kek(1), "groq", "groq-1", &secret("gsk_abc")).unwrap();
    assert_eq!(opened(&vault(2, Some(1)), "groq", "groq-1", &sealed).as_deref(), Ok("gsk_abc"));
    let error = opened(&vault(2, None), "groq", "groq-1", &sealed).unwrap_err();
    let (one, two) = (kek(1), kek(2));
    assert_eq!(
        error.to_string(),
        format!("sealed under KEK {}; the vault has {}", one.id(), two.id())
    );
    let newer = sealed.replace(":v1:", ":v2:");
    assert_eq!(opened(&vault(1, None), "groq", "groq-1", &newer), Err(UnsealError::Version));
}

#[test]
fn a_nonce_is_never_used_twice() {
    let kek = kek(1);
    let nonces: std::collections::HashSet<_> = (0..2000)
        .map(|_| {
            let sealed = seal(&kek, "groq", "groq-1", &secret("gsk_abc")).unwrap();
            sealed.rsplit_once(':').unwrap().1[..16].to_owned()
        })
        .collect();
    assert_eq!(nonces.len(), 2000);
}

#[test]
fn only_what_fits_a_header_is_sealed() {
    let sealed = |text: &str| seal(&kek(1), "groq", "groq-1", &secret(text));
    assert_eq!(sealed(""), Err(SealError::Empty));
    assert_eq!(sealed("two words"), Err(SealError::Unprintable));
    assert_eq!(sealed("line\nline"), Err(SealError::Unprintable));
    assert_eq!(sealed(&"x".repeat(8193)), Err(SealError::TooLong));
}

#[test]
fn nothing_is_printed_by_debug() {
    let vault = vault(7, None);
    let text = format!("{vault:?} {:?}", pepper(&vault).unwrap());
    assert!(!text.contains("7, 7") && !text.contains("07"), "{text}");
    assert!(text.contains("***"));
}

#[test]
fn a_new_kek_file_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets/kek");
    let source = KekSource::File(path.clone());
    assert!(Kek::load(&source).unwrap_err().is_absent());
    let made = Kek::generate_file(&path).unwrap();
    assert_eq!(Kek::load(&source).unwrap().id(), made.id());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert!(matches!(Kek::generate_file(&path), Err(KekError::Exists(_))));
}

#[test]
fn a_kek_that_others_can_read_or_swap_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kek");
    Kek::generate_file(&path).unwrap();
    let load = |path: &PathBuf| Kek::load(&KekSource::File(path.clone()));
    for mode in [0o640, 0o604, 0o660, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("run: chmod 600 {}", path.display())), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(load(&path).is_ok());
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(load(&link), Err(KekError::Link(_))));
    assert!(matches!(load(&directory.path().into()), Err(KekError::NotAFile(_))));
    // Only root can give a file away, and root's tests run in containers.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345"), "{error}");
    }
}

#[test]
fn a_malformed_kek_is_told_without_showing_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kek");
    for text in ["", "hunter2", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33]), "\u{e9}"] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Kek::load(&KekSource::File(path.clone())).unwrap_err().to_string();
        assert!(error.contains("32 bytes in base64") && !error.contains("hunter2"), "{error}");
    }
    assert!(decode(&format!(" {}\n", STANDARD.encode([1; 32]))).is_some());
}

#[test]
fn the_pepper_stays_while_the_kek_changes() {
    let before = pepper(&vault(1, None)).unwrap();
    let during = pepper(&vault(2, Some(1))).unwrap();
    assert_eq!(before.expose(), during.expose());
    assert_ne!(before.expose(), pepper(&vault(2, None)).unwrap().expose());
    let text = secret(&STANDARD.encode([9; 32]));
    let configured = VaultKeys { pepper: Some(text), ..vault(2, Some(1)) };
    assert_eq!(pepper(&configured).unwrap().expose(), &[9; 32]);
}

/// RFC 5869 with SHA-256, no salt, the contract's label: other programs must get the same pepper.
#[test]
fn the_pepper_is_hkdf_of_the_kek() {
    use hmac::{Hmac, KeyInit, Mac};
    let mac = |key: &[u8], data: &[u8]| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
        mac.update(data);
        mac.finalize().into_bytes()
    };
    let extracted = mac(&[0; 32], &[1; 32]);
    let expected = mac(&extracted, b"licence-pepper-v1\x01");
    assert_eq!(pepper(&vault(1, None)).unwrap().expose()[..], expected[..]);
}

/// A configuration in a directory with two KEKs, one key sealed under the old one.
struct Rotation {
    directory: tempfile::TempDir,
    old: Kek,
    new: Kek,
}

impl Rotation {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let old = Kek::generate_file(&directory.path().join("old")).unwrap();
        let new = Kek::generate_file(&directory.path().join("new")).unwrap();
        Self { directory, old, new }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("gatekeeper.yaml")
    }

    /// `@old` and `@new` are the KEK's sources, `@a` and `@b` sealed secrets.
    fn write(&self, text: &str) -> String {
        let at = |name: &str| format!("file:{}", self.directory.path().join(name).display());
        let a = seal(&self.old, "groq", "a", &secret("gsk_a")).unwrap();
        let b = seal(&self.new, "groq", "b", &secret("gsk_b")).unwrap();
        let text = text.replace("@old", &at("old")).replace("@new", &at("new"));
        let text = text.replace("@a", &a).replace("@b", &b);
        fs::write(self.file(), &text).unwrap();
        text
    }

    fn read(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Everything sealed in the file, in file order.
    fn sealed(text: &str) -> Vec<&str> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && !":+/=".contains(c))
            .filter(|word| word.starts_with("sealed:v1:"))
            .collect()
    }
}

const BLOCK: &str = "# Gr\u{fc}\u{df}e \u{2014} \u{1f511}
vault:   # opens the keys
    kek: @new
    previous: @old    # until rewrap
providers:
  groq:
    base_url: https://api.groq.com/openai/v1
    keys:
      - { id: a, secret:   \"@a\", weight: 2 }   # the first
      -   id:   b
          secret: '@b'
";

#[test]
fn rewrap_changes_the_sealed_strings_and_nothing_else() {
    let rotation = Rotation::new();
    let before = rotation.write(BLOCK);
    fs::set_permissions(rotation.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let done = rewrap(&rotation.file()).unwrap();
    assert_eq!(done, Rewrapped { secrets: 1, kept: 1, pepper_written: true });

    let after = rotation.read();
    let [sealed_pepper, a, b] = Rotation::sealed(&after)[..] else { panic!("{after}") };
    let old = Rotation::sealed(&before);
    assert_eq!(b, old[1], "what is under the new KEK already stays");
    let expected = before
        .replace("    kek:", &format!("    pepper: \"{sealed_pepper}\"\n    kek:"))
        .replace(old[0], a);
    assert_eq!(after, expected);
    let mode = fs::metadata(rotation.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    // `previous` can go now: everything opens under the new KEK, and the pepper is the old one.
    let new = [&rotation.new];
    assert_eq!(open_with(&new, "groq", "a", a).unwrap().expose_secret(), "gsk_a");
    let text = open_with(&new, "vault", "pepper", sealed_pepper).unwrap();
    let in_use = Pepper::derived(&rotation.old, None);
    assert_eq!(Pepper::decode(&text).unwrap().expose(), in_use.expose());
}

#[test]
fn a_second_rewrap_changes_nothing() {
    let rotation = Rotation::new();
    rotation.write(BLOCK);
    rewrap(&rotation.file()).unwrap();
    let once = rotation.read();
    let done = rewrap(&rotation.file()).unwrap();
    assert_eq!(done, Rewrapped { secrets: 0, kept: 3, pepper_written: false });
    assert_eq!(rotation.read(), once);
    let names = fs::read_dir(rotation.directory.path()).unwrap().count();
    assert_eq!(names, 3, "no temporary file stays");
}

#[test]
fn rewrap_keeps_flow_style_line_ends_and_a_configured_pepper() {
    let rotation = Rotation::new();
    let flow = "vault: { kek: \"@new\", previous: \"@old\" } # x\r\nproviders: {groq: {keys: [{id: a, secret: \"@a\"}]}}\r\n";
    let before = rotation.write(flow);
    rewrap(&rotation.file()).unwrap();
    let after = rotation.read();
    let sealed = Rotation::sealed(&after);
    let expected = before
        .replace("{ kek", &format!("{{ \"pepper\": \"{}\", kek", sealed[0]))
        .replace(Rotation::sealed(&before)[0], sealed[1]);
    assert_eq!(after, expected);

    let block = rotation.write(&BLOCK.replace("    kek", "    pepper: env:PEPPER\n    kek"));
    rewrap(&rotation.file()).unwrap();
    let after = rotation.read();
    assert_eq!(after, block.replace(Rotation::sealed(&block)[0], Rotation::sealed(&after)[0]));

    let crlf = rotation.write(&BLOCK.replace('\n', "\r\n"));
    rewrap(&rotation.file()).unwrap();
    let after = rotation.read();
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
    assert_eq!(after.lines().count(), crlf.lines().count() + 1);
}

#[test]
fn a_rewrap_that_fails_leaves_the_file() {
    let rotation = Rotation::new();
    let refused = |text: &str| {
        let before = rotation.write(text);
        let error = rewrap(&rotation.file()).unwrap_err().to_string();
        assert_eq!(rotation.read(), before);
        error
    };
    let error = refused(&BLOCK.replace("    previous: @old    # until rewrap\n", ""));
    assert!(error.contains(":8: providers.groq.keys[0].secret: sealed under KEK"), "{error}");
    let error = refused(&BLOCK.replace("id: a", "id: c"));
    assert!(error.contains("sealed for another provider or key id"), "{error}");
    assert!(refused("providers: {}").contains("has no `vault.kek`"));
    assert!(refused("vault: { kek: hello }").contains("vault.kek: expected"));
    assert!(refused("vault: [").contains("is never closed"));
    assert!(refused("vault: { kek: @new }\nvault: { kek: @old }").contains("duplicate key"));
}

/// A killed rewrap leaves the old file or the new one: a concurrent reader never sees anything else, and a
/// temporary file left behind has no effect.
#[test]
fn a_reader_never_sees_half_a_rewrap() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let rotation = Rotation::new();
    let text = rotation.write(BLOCK);
    let left = format!(".gatekeeper.yaml.rewrap-{}", std::process::id());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let keks = [&rotation.old, &rotation.new];
            while !done.load(Ordering::Relaxed) {
                let text = rotation.read();
                let a = *Rotation::sealed(&text).iter().rev().nth(1).unwrap();
                assert_eq!(open_with(&keks, "groq", "a", a).unwrap().expose_secret(), "gsk_a");
                assert!(text.ends_with("'\n"));
            }
        });
        for round in 0..30 {
            fs::write(rotation.directory.path().join(&left), "half").unwrap();
            assert_eq!(rewrap(&rotation.file()).unwrap().secrets, 1, "{round}");
            // Back to the old text, in one step as well.
            let back = rotation.directory.path().join("back");
            fs::write(&back, &text).unwrap();
            fs::rename(&back, rotation.file()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}
