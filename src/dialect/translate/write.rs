//! Writing JSON around JSON that is copied.

use bytes::Bytes;

/// A text in the making. Punctuation is the caller's, quotes and escapes of strings are set here.
#[derive(Default)]
pub(super) struct JsonWriter(Vec<u8>);

impl JsonWriter {
    /// JSON as it is.
    pub(super) fn raw(&mut self, json: impl AsRef<[u8]>) -> &mut Self {
        self.0.extend_from_slice(json.as_ref());
        self
    }

    /// A string, in quotes.
    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        // A string goes into memory: nothing can fail.
        let _ = serde_json::to_writer(&mut self.0, text);
        self
    }

    /// Items with commas between them, in brackets.
    pub(super) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.raw("[");
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            write(self, item);
        }
        self.raw("]")
    }

    pub(super) fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }
}
