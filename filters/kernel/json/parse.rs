//! The one pass over the text.

pub(super) use super::escapes::{hex, low_surrogate};
use super::{
    duplicate_names::Seen,
    node::{MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, ParseError, ParseErrorKind, Tag},
};

pub(super) fn parse(
    source: &[u8],
    nodes: &mut Vec<Node>,
    names: &mut Vec<(u64, u32)>,
    strict: bool,
) -> Result<(), ParseError> {
    let mut parser = Parser { source, at: 0, nodes, names, strict };
    if source.len() > MAX_BYTES {
        return parser.fail(ParseErrorKind::TooLong);
    }
    if source.starts_with(b"\xEF\xBB\xBF") {
        return parser.fail(ParseErrorKind::ByteOrderMark);
    }
    if parser.peek().is_none() {
        return parser.fail(ParseErrorKind::Empty);
    }
    parser.value(0)?;
    match parser.peek() {
        None => Ok(()),
        Some(_) => parser.fail(ParseErrorKind::TrailingBytes),
    }
}

struct Parser<'a> {
    source: &'a [u8],
    at: usize,
    nodes: &'a mut Vec<Node>,
    names: &'a mut Vec<(u64, u32)>,
    strict: bool,
}

impl Parser<'_> {
    #[cold]
    fn fail<T>(&self, why: ParseErrorKind) -> Result<T, ParseError> {
        Err(ParseError { offset: self.at, why })
    }

    #[cold]
    fn unexpected<T>(&self) -> Result<T, ParseError> {
        self.fail(if self.at < self.source.len() {
            ParseErrorKind::Unexpected
        } else {
            ParseErrorKind::EndsEarly
        })
    }

    fn byte(&self) -> Option<u8> {
        self.source.get(self.at).copied()
    }

    /// The next byte that is no white space; it is not consumed.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    fn push(&mut self, tag: Tag, start: usize, end: usize) -> Result<(), ParseError> {
        let index = self.nodes.len();
        if index >= MAX_NODES {
            return Err(ParseError { offset: start, why: ParseErrorKind::TooManyValues });
        }
        self.nodes.push(Node::new(tag, start, end, index + 1));
        Ok(())
    }

    /// `depth` is the number of arrays and objects around this value; it bounds the recursion.
    fn value(&mut self, depth: usize) -> Result<(), ParseError> {
        let start = self.at;
        match self.byte() {
            Some(b'"') => {
                let tag = self.string()?;
                self.push(tag, start, self.at)
            }
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                self.push(Tag::Number, start, self.at)
            }
            Some(b'n') => self.word(b"null", Tag::Null),
            Some(b't') => self.word(b"true", Tag::True),
            Some(b'f') => self.word(b"false", Tag::False),
            _ => self.unexpected(),
        }
    }

    fn word(&mut self, word: &[u8], tag: Tag) -> Result<(), ParseError> {
        let start = self.at;
        for letter in word {
            if self.byte() != Some(*letter) {
                return self.unexpected();
            }
            self.at += 1;
        }
        self.push(tag, start, self.at)
    }

    /// Enters an array or object; the index of its node.
    fn open(&mut self, tag: Tag, depth: usize) -> Result<usize, ParseError> {
        if depth >= MAX_DEPTH {
            return self.fail(ParseErrorKind::TooDeep);
        }
        self.push(tag, self.at, self.at)?;
        self.at += 1;
        Ok(self.nodes.len() - 1)
    }

    fn close(&mut self, index: usize, tag: Tag) {
        self.at += 1;
        let next = self.nodes.len();
        if let Some(node) = self.nodes.get_mut(index) {
            *node = Node::new(tag, node.start as usize, self.at, next);
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), ParseError> {
        let index = self.open(Tag::Array, depth)?;
        match self.peek() {
            Some(b']') => {
                self.close(index, Tag::Array);
                return Ok(());
            }
            Some(b'-' | b'0'..=b'9') => {
                let first = self.at;
                if self.numbers()? {
                    self.close(index, Tag::Numbers);
                    return Ok(());
                }
                // Something else is among them: each is read once more, as a node of its own.
                self.at = first;
            }
            _ => {}
        }
        loop {
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.unexpected(),
            }
            self.peek();
        }
        self.close(index, Tag::Array);
        Ok(())
    }

    /// Whether all items up to the closing bracket are numbers.
    fn numbers(&mut self) -> Result<bool, ParseError> {
        loop {
            self.number()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return Ok(true),
                _ => return self.unexpected(),
            }
            if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
                return Ok(false);
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), ParseError> {
        let index = self.open(Tag::Object, depth)?;
        if self.peek() == Some(b'}') {
            self.close(index, Tag::Object);
            return Ok(());
        }
        let mut seen = Seen::default();
        loop {
            self.name(&mut seen)?;
            if self.peek() != Some(b':') {
                return self.unexpected();
            }
            self.at += 1;
            self.peek();
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.unexpected(),
            }
            self.peek();
        }
        self.close(index, Tag::Object);
        if self.strict
            && let Some(offset) = seen.double(self.source, &self.nodes[index + 1..], self.names)
        {
            return Err(ParseError { offset, why: ParseErrorKind::DuplicateKey });
        }
        Ok(())
    }

    fn name(&mut self, seen: &mut Seen) -> Result<(), ParseError> {
        if self.byte() != Some(b'"') {
            return self.unexpected();
        }
        let start = self.at + 1;
        let tag = self.string()?;
        let end = self.at - 1;
        seen.add(&self.source[start..end], tag == Tag::Escaped);
        self.push(tag, start, end)
    }

    fn number(&mut self) -> Result<(), ParseError> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => {
                self.at += 1;
                if matches!(self.byte(), Some(b'0'..=b'9')) {
                    return self.fail(ParseErrorKind::Number);
                }
            }
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        match self.byte() {
            None if self.at == start => self.fail(ParseErrorKind::EndsEarly),
            Some(_) if self.at == start => self.fail(ParseErrorKind::Number),
            _ => Ok(()),
        }
    }

    /// From the opening quote to behind the closing one.
    fn string(&mut self) -> Result<Tag, ParseError> {
        self.at += 1;
        let start = self.at;
        let mut high = false;
        let mut tag = Tag::Plain;
        loop {
            high |= self.skip_ordinary();
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    tag = Tag::Escaped;
                    self.escape()?;
                }
                Some(_) => return self.fail(ParseErrorKind::ControlCharacter),
                None => return self.fail(ParseErrorKind::EndsEarly),
            }
        }
        if high
            && self.strict
            && let Err(error) = simdutf8::compat::from_utf8(&self.source[start..self.at])
        {
            return Err(ParseError {
                offset: start + error.valid_up_to(),
                why: ParseErrorKind::Utf8,
            });
        }
        self.at += 1;
        Ok(tag)
    }

    /// Advances to the next quote, backslash or control character, eight bytes at a time; whether there may
    /// have been bytes beyond ASCII before it.
    #[inline]
    fn skip_ordinary(&mut self) -> bool {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        // The lowest mark is exact: a borrow can only disturb bytes after a true hit.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let mut high = 0;
        while let Some(eight) = self.source[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let quote = zero(word ^ (ONES * u64::from(b'"')));
            let backslash = zero(word ^ (ONES * u64::from(b'\\')));
            let marks = (control | quote | backslash) & HIGHS;
            high |= word & HIGHS;
            if marks != 0 {
                self.at += (marks.trailing_zeros() / 8) as usize;
                return high != 0;
            }
            self.at += 8;
        }
        while let Some(byte) = self.byte() {
            if byte < 0x20 || byte == b'"' || byte == b'\\' {
                break;
            }
            high |= u64::from(byte & 0x80);
            self.at += 1;
        }
        high != 0
    }

    fn escape(&mut self) -> Result<(), ParseError> {
        match self.source.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => self.unicode_escape(),
            Some(_) => self.fail(ParseErrorKind::Escape),
            None => {
                self.at += 1;
                self.fail(ParseErrorKind::EndsEarly)
            }
        }
    }

    fn unicode_escape(&mut self) -> Result<(), ParseError> {
        let Some(unit) = hex(self.source, self.at + 2) else {
            return self.fail(ParseErrorKind::Escape);
        };
        let pair = match unit {
            0xD800..0xDC00 => low_surrogate(self.source, self.at + 6).is_some(),
            0xDC00..0xE000 => false,
            _ => {
                self.at += 6;
                return Ok(());
            }
        };
        if !pair && self.strict {
            return self.fail(ParseErrorKind::LoneSurrogate);
        }
        self.at += if pair { 12 } else { 6 };
        Ok(())
    }
}
