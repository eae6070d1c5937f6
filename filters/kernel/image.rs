//! What an image costs in tokens: its size, read from its first bytes, under the rule of the model.

use super::{
    route::Dialect,
    vocabulary::{bare, starts_with},
};

/// One image of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Image {
    /// Width and height in pixels; `None` where they can't be read, or nothing but an address is there.
    pub size: Option<(u32, u32)>,
    pub detail: Detail,
}

/// OpenAI's `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    Low,
    /// `high` and `auto`, too.
    #[default]
    High,
    /// As large as it is.
    Original,
}

/// Tokens of an image whose size is not known.
const UNREADABLE: u64 = 2000;

/// How a model counts images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageTokens {
    /// So many, whatever the image.
    Fixed(u64),
    /// OpenAI's older rule: `base`, and `tile` for each square of 512 pixels.
    Tiles { base: u64, tile: u64 },
    /// OpenAI's newer rule: squares of 32 pixels, at most so many, times a factor in hundredths.
    Patches { most: u64, hundredths: u64 },
    /// A model in OpenAI's dialect of which nothing is known: the larger of both rules.
    OpenAi,
    /// Anthropic's: squares of 28 pixels, at most so many.
    Anthropic { edge: u32, most: u64 },
    /// Google's: 258 for each square of 768 pixels.
    Gemini,
}

/// OpenAI's guide "Images and vision", as of 2026: tiles by `(base, tile)`. For gpt-4o-mini both are 33 times
/// those of gpt-4o, so that an image costs the same in dollars.
const TILES: &[(&str, u64, u64)] = &[
    ("gpt-4o-mini", 2833, 5667),
    ("gpt-4o", 85, 170),
    ("chatgpt-4o", 85, 170),
    ("gpt-4.5", 85, 170),
    ("gpt-4-", 85, 170),
    ("gpt-4.1-mini", 0, 0),
    ("gpt-4.1-nano", 0, 0),
    ("gpt-4.1", 85, 170),
    ("gpt-5-mini", 0, 0),
    ("gpt-5-nano", 0, 0),
    ("gpt-5-codex-mini", 0, 0),
    ("gpt-5-", 70, 140),
    ("gpt-5.1", 70, 140),
    ("o1", 75, 150),
    ("o3", 75, 150),
    ("computer-use-preview", 65, 129),
];

/// The same guide: patches by `(most, hundredths)`. Where the guide and what was billed differ the larger
/// factor stands here.
const PATCHES: &[(&str, u64, u64)] = &[
    ("gpt-4.1-mini", 1536, 162),
    ("gpt-4.1-nano", 1536, 246),
    ("gpt-5-mini", 1536, 162),
    ("gpt-5-nano", 1536, 246),
    ("gpt-5-codex-mini", 1536, 162),
    ("o4-mini", 1536, 172),
    ("codex-mini", 1536, 172),
    ("gpt-5.4-mini", 2500, 162),
    ("gpt-5.4-nano", 2500, 246),
    ("gpt-5.", 2500, 120),
];

/// Patches of an image that is sent as large as it is (`detail: original`).
const ORIGINAL_PATCHES: u64 = 10_000;

/// Claude before Opus 4.7 takes images up to 1568 pixels and 1568 tokens, later ones up to 2576 and 4784.
/// Source: Anthropic's guide "Vision".
const OLD_CLAUDE: ImageTokens = ImageTokens::Anthropic { edge: 1568, most: 1568 };
const NEW_CLAUDE: ImageTokens = ImageTokens::Anthropic { edge: 2576, most: 4784 };

/// Gemini 3 spends up to 1120 on any image (`media_resolution` is not let through).
const GEMINI_3: ImageTokens = ImageTokens::Fixed(1120);

impl ImageTokens {
    /// The rule of a dialect for a model.
    pub fn of(dialect: Dialect, model: &str) -> Self {
        let name = bare(model);
        match dialect {
            Dialect::OpenAi => openai(name),
            Dialect::Anthropic if is_old_claude(name) => OLD_CLAUDE,
            Dialect::Anthropic => NEW_CLAUDE,
            Dialect::Gemini if starts_with(name, "gemini-1") || starts_with(name, "gemini-2") => {
                ImageTokens::Gemini
            }
            Dialect::Gemini => GEMINI_3,
        }
    }

    /// Tokens of one image.
    pub fn tokens(self, image: &Image) -> u64 {
        if let ImageTokens::Fixed(tokens) = self {
            return tokens;
        }
        let Some((width, height)) = image.size.filter(|(width, height)| *width > 0 && *height > 0)
        else {
            return self.unreadable();
        };
        let (width, height) = (f64::from(width), f64::from(height));
        match self {
            ImageTokens::Fixed(tokens) => tokens,
            ImageTokens::Tiles { base, .. } if image.detail == Detail::Low => base,
            ImageTokens::Tiles { base, tile } => base + tile * tiles(width, height),
            ImageTokens::Patches { most, hundredths } => {
                let most = if image.detail == Detail::Original { ORIGINAL_PATCHES } else { most };
                (patches(width, height, 32.0, most) * hundredths).div_ceil(100)
            }
            ImageTokens::OpenAi => {
                (85 + 170 * tiles(width, height)).max(patches(width, height, 32.0, 1536))
            }
            ImageTokens::Anthropic { edge, most } => {
                let scale = (f64::from(edge) / width.max(height)).min(1.0);
                patches(width * scale, height * scale, 28.0, most)
            }
            ImageTokens::Gemini if width <= 384.0 && height <= 384.0 => 258,
            ImageTokens::Gemini => 258 * squares(width, height, 768.0),
        }
    }

    /// An image that can't be measured costs what a common one does, and no less where images are dear.
    fn unreadable(self) -> u64 {
        match self {
            ImageTokens::Tiles { base, tile } => UNREADABLE.max(base + 4 * tile),
            _ => UNREADABLE,
        }
    }
}

fn openai(name: &str) -> ImageTokens {
    // `gpt-5` and `gpt-4o` themselves have nothing after them.
    let fits = |beginning: &str| {
        starts_with(name, beginning) || beginning.strip_suffix('-').is_some_and(|bare| bare == name)
    };
    if let Some((_, base, tile)) = TILES.iter().find(|(beginning, ..)| fits(beginning))
        && *tile > 0
    {
        return ImageTokens::Tiles { base: *base, tile: *tile };
    }
    let patches = PATCHES.iter().find(|(beginning, ..)| fits(beginning));
    patches.map_or(ImageTokens::OpenAi, |(_, most, hundredths)| ImageTokens::Patches {
        most: *most,
        hundredths: *hundredths,
    })
}

/// `claude-3-5-haiku`, `claude-sonnet-4-20250514`, `claude-opus-4-1`, up to 4-6.
fn is_old_claude(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let minor = ["opus-4", "sonnet-4", "haiku-4"].iter().find_map(|kind| {
        let after = &name[name.find(kind)? + kind.len()..];
        let digits = after.strip_prefix(['-', '.']).unwrap_or_default();
        let digits = digits.split(['-', '.', '@', ':']).next().unwrap_or_default();
        // A date is no version, and one without either is the first of its kind.
        Some(digits.parse::<u32>().ok().filter(|minor| *minor < 100).unwrap_or(0))
    });
    name.contains("claude-2") || name.contains("claude-3") || minor.is_some_and(|minor| minor < 7)
}

fn squares(width: f64, height: f64, edge: f64) -> u64 {
    ((width / edge).ceil() * (height / edge).ceil()) as u64
}

/// Scaled down to 2048 by 2048 pixels, then to a short side of 768, then cut into squares of 512.
fn tiles(width: f64, height: f64) -> u64 {
    let fit = (2048.0 / width.max(height)).min(1.0);
    let (width, height) = (width * fit, height * fit);
    let fit = (768.0 / width.min(height)).min(1.0);
    squares(width * fit, height * fit, 512.0)
}

/// Squares that cover the image; scaled down where those are too many.
fn patches(width: f64, height: f64, edge: f64, most: u64) -> u64 {
    squares(width, height, edge).clamp(1, most)
}

/// Width and height of an image: PNG, JPEG, GIF and WebP.
pub fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some((big(bytes, 16)?, big(bytes, 20)?)),
        [b'G', b'I', b'F', b'8', ..] => Some((little(bytes, 6)?, little(bytes, 8)?)),
        [b'R', b'I', b'F', b'F', ..] => webp(bytes),
        [0xFF, 0xD8, ..] => jpeg(bytes),
        _ => None,
    }
}

fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(8..16)? {
        b"WEBPVP8 " => Some((little(bytes, 26)? & 0x3FFF, little(bytes, 28)? & 0x3FFF)),
        b"WEBPVP8L" => {
            let bits = u32::from_le_bytes(bytes.get(21..25)?.try_into().ok()?);
            Some(((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1))
        }
        b"WEBPVP8X" => {
            let three = |at: usize| {
                let part = bytes.get(at..at + 3)?;
                Some(u32::from_le_bytes([part[0], part[1], part[2], 0]) + 1)
            };
            Some((three(24)?, three(27)?))
        }
        _ => None,
    }
}

/// Segment by segment up to the one that starts the frame.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        while *bytes.get(at)? != 0xFF {
            at += 1;
        }
        let kind = *bytes.get(at + 1)?;
        match kind {
            0xFF => at += 1,
            0x01 | 0xD0..=0xD8 => at += 2,
            // Huffman tables, arithmetic coding and extensions are no frames, though they look alike.
            0xC0..=0xCF if !matches!(kind, 0xC4 | 0xC8 | 0xCC) => {
                return Some((wide(bytes, at + 7)?, wide(bytes, at + 5)?));
            }
            0xD9 | 0xDA => return None,
            _ => at += 2 + wide(bytes, at + 2)? as usize,
        }
    }
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).filter(|it| *it < 1 << 20)
}

fn wide(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(dialect: Dialect, model: &str, width: u32, height: u32) -> u64 {
        let image = Image { size: Some((width, height)), ..Image::default() };
        ImageTokens::of(dialect, model).tokens(&image)
    }

    #[test]
    fn an_image_costs_what_its_model_asks_for_it() {
        let openai = |model, width, height| tokens(Dialect::OpenAi, model, width, height);
        assert_eq!(openai("gpt-4o-mini", 1024, 1024), 25_501);
        assert_eq!(openai("gpt-4o-mini-2024-07-18", 1024, 1024), 25_501);
        assert_eq!(openai("gpt-4o", 1024, 1024), 765);
        assert_eq!(openai("gpt-4o", 2048, 4096), 1105);
        assert_eq!(openai("openai/gpt-4o", 100, 100), 255);
        assert_eq!(openai("gpt-4.1", 1024, 1024), 765);
        assert_eq!(openai("gpt-4.1-mini", 1024, 1024), 1659);
        assert_eq!(openai("gpt-4.1-nano", 4000, 4000), 3779);
        assert_eq!(openai("gpt-5", 1024, 1024), 630);
        assert_eq!(openai("gpt-5-mini", 640, 480), 486);
        assert_eq!(openai("gpt-5.4", 3200, 3200), 3000);
        assert_eq!(openai("o1", 1024, 1024), 675);
        assert_eq!(openai("llama-4-scout", 1024, 1024), 1024);
        let claude = |model, width, height| tokens(Dialect::Anthropic, model, width, height);
        assert_eq!(claude("claude-sonnet-4-5", 1000, 1000), 1296);
        assert_eq!(claude("claude-sonnet-4-20250514", 4000, 4000), 1568);
        assert_eq!(claude("claude-3-5-haiku-latest", 4000, 3000), 1568);
        assert_eq!(claude("claude-opus-4-7", 4000, 4000), 4784);
        assert_eq!(claude("claude-opus-5", 200, 200), 64);
        let gemini = |model, width, height| tokens(Dialect::Gemini, model, width, height);
        assert_eq!(gemini("gemini-2.5-flash", 384, 384), 258);
        assert_eq!(gemini("gemini-2.5-flash", 1024, 1024), 4 * 258);
        assert_eq!(gemini("gemini-3-pro", 64, 64), 1120);
    }

    #[test]
    fn detail_changes_what_it_costs() {
        let of = |model, detail, size| {
            ImageTokens::of(Dialect::OpenAi, model).tokens(&Image { size, detail })
        };
        let large = Some((2000, 2000));
        assert_eq!(of("gpt-4o", Detail::Low, large), 85);
        assert_eq!(of("gpt-4o-mini", Detail::Low, large), 2833);
        assert_eq!(of("gpt-5.4", Detail::Original, large), 4763);
        assert_eq!(of("gpt-4o", Detail::High, None), 2000);
        assert_eq!(of("gpt-4o-mini", Detail::High, None), 25_501, "never below its own rule");
        assert_eq!(ImageTokens::Fixed(7).tokens(&Image::default()), 7);
        let flat = Image { size: Some((0, 10)), ..Image::default() };
        assert_eq!(ImageTokens::Gemini.tokens(&flat), 2000);
    }

    #[test]
    fn sizes_are_read_from_the_first_bytes() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x04\0\0\0\x03\0\x08\x06";
        assert_eq!(size(png), Some((1024, 768)));
        assert_eq!(size(b"GIF89a\x40\x01\xf0\0\xf7\0"), Some((320, 240)));
        let lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x20\x03\x58\x02";
        assert_eq!(size(lossy), Some((800, 600)));
        let lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x1f\xc3\x95\0";
        assert_eq!(size(lossless), Some((800, 600)));
        let extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x1f\x03\0\x57\x02\0";
        assert_eq!(size(extended), Some((800, 600)));
        let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1, 0x10, 0x02];
        jpeg.extend([0xC0; 0x1000]);
        jpeg.extend([0xFF, 0xC4, 0, 4, 1, 2, 0xFF, 0xC2, 0, 17, 8, 2, 0x58, 3, 0x20, 3]);
        assert_eq!(size(&jpeg), Some((800, 600)), "behind metadata and tables");
        assert_eq!(size(&jpeg[..2000]), None);
        for broken in [&b""[..], b"\x89PNG", b"GIF8", b"RIFF1234WEBPVP8X", b"\xff\xd8\xff", b"BM"] {
            assert_eq!(size(broken), None, "{broken:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_cost_more_than_is_possible(
            head in proptest::sample::select(vec![
                &b""[..], b"\x89PNG", b"GIF8", b"RIFF....WEBPVP8X", b"RIFF....WEBPVP8L", b"\xff\xd8",
            ]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
        ) {
            let size = size(&[head, &rest].concat());
            let image = Image { size, ..Image::default() };
            for rule in [
                ImageTokens::of(Dialect::OpenAi, "gpt-4o-mini"), ImageTokens::OpenAi,
                ImageTokens::of(Dialect::OpenAi, "gpt-5.4"), OLD_CLAUDE, NEW_CLAUDE,
            ] {
                proptest::prop_assert!((1..=65_536).contains(&rule.tokens(&image)), "{rule:?} {size:?}");
            }
        }
    }
}
