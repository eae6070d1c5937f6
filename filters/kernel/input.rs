//! What a request brings along: its text, images and files, as tokens of a target and as bytes.

use super::estimate::Estimate;
use super::{image::Image, image::ImageTokens, route::Dialect, vocabulary::Vocabulary};

/// Tokens that templates, tools and the like may add to what was sent.
const WRAPPING: u64 = 4096;

/// No image is more tokens than this at any provider.
const IMAGE: u64 = 65_536;

/// What is fetched from an address may fill the largest context there is.
const REMOTE: u64 = 1 << 20;

/// Reserved for what is fetched from an address: a dozen pages.
const REMOTE_ESTIMATE: u64 = 2000;

/// How a target counts its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counting {
    pub vocabulary: Vocabulary,
    pub images: ImageTokens,
    /// Of a KiB of a file, such as a PDF.
    pub file_tokens: u64,
    /// Of a KiB of audio.
    pub audio_tokens: u64,
}

impl Counting {
    /// A page of a PDF is 1,500 to 3,000 tokens of text and as many again as an image (Anthropic's guide
    /// "PDF support"); pages of 30 to 100 KiB are common, so 64 is the dear end of text and the cheap end
    /// of scans.
    pub const FILE_TOKENS: u64 = 64;
    /// 32 tokens a second (Google's guide "Audio understanding"); speech as MP3 is 8 KiB a second.
    pub const AUDIO_TOKENS: u64 = 4;

    /// By what is known of a model from its name.
    pub fn of(dialect: Dialect, model: &str) -> Self {
        Self {
            vocabulary: Vocabulary::of_model(model),
            images: ImageTokens::of(dialect, model),
            file_tokens: Self::FILE_TOKENS,
            audio_tokens: Self::AUDIO_TOKENS,
        }
    }
}

impl Default for Counting {
    fn default() -> Self {
        Self::of(Dialect::OpenAi, "")
    }
}

/// What a request brings along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// Of all text, with what wraps the messages.
    pub text: Estimate,
    /// UTF-8 bytes of all text.
    pub bytes: u64,
    pub images: Vec<Image>,
    /// Decoded bytes of files and video.
    pub files: u64,
    /// Decoded bytes of audio.
    pub audio: u64,
    /// Parts that the provider fetches from an address, images aside.
    pub remote: u64,
}

impl Input {
    /// Estimated tokens at a target.
    pub fn tokens(&self, counting: &Counting) -> u64 {
        let images: u64 = self.images.iter().map(|image| counting.images.tokens(image)).sum();
        // A byte is never more than a token.
        let of = |bytes: u64, each: u64| bytes.min(bytes.saturating_mul(each).div_ceil(1024));
        self.text
            .tokens(counting.vocabulary)
            .saturating_add(images)
            .saturating_add(of(self.files, counting.file_tokens))
            .saturating_add(of(self.audio, counting.audio_tokens))
            .saturating_add(self.remote * REMOTE_ESTIMATE)
    }

    /// More input tokens than this no provider can have counted.
    pub fn most(&self) -> u64 {
        self.bytes
            .saturating_add(self.images.len() as u64 * IMAGE)
            .saturating_add(self.files)
            .saturating_add(self.audio)
            .saturating_add(self.remote * REMOTE)
            .saturating_add(WRAPPING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_audio_count_by_their_bytes_and_never_above_them() {
        let input = Input { files: 100 << 10, audio: 10 << 10, ..Input::default() };
        let counting = Counting::default();
        assert_eq!(input.tokens(&counting), 6_400 + 40);
        let dear = Counting { file_tokens: 1_000_000, audio_tokens: u64::MAX, ..counting };
        assert_eq!(input.tokens(&dear), 110 << 10);
        assert_eq!(input.most(), (110 << 10) + WRAPPING);
    }

    #[test]
    fn what_is_physical_grows_with_what_was_sent() {
        let image = Image::default();
        let input = Input { bytes: 500, images: vec![image, image], remote: 1, ..Input::default() };
        assert_eq!(input.most(), 500 + 2 * 65_536 + (1 << 20) + 4096);
        assert_eq!(input.tokens(&Counting::default()), 2 * 2000 + 2000);
    }
}
