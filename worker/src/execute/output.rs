//! What is kept of outputs and bodies: a bounded beginning, as text where it is UTF-8 and as base64 where it is not.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use taskmaster_openapi::limits::OUTPUT_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The beginning of an output.
#[derive(Debug, Default)]
pub(crate) struct Output {
    kept: Vec<u8>,
    truncated: bool,
}

/// An output as it stands in a result: one of the two texts.
#[derive(Debug)]
pub(crate) struct OutputText {
    pub text: Option<String>,
    pub base64: Option<String>,
    pub truncated: bool,
}

impl Output {
    /// Adds bytes, up to the limit. Whether there is room for more.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let room = OUTPUT_BYTES_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated |= bytes.len() > room;
        !self.truncated
    }

    /// Reads to the end, also beyond the limit, so that whoever writes is never blocked.
    pub async fn read_from(&mut self, mut source: impl AsyncRead + Unpin) {
        let mut buffer = [0; 8 * 1024];
        // A pipe that breaks has ended.
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            self.push(&buffer[..count]);
        }
    }

    /// The output as text, or as base64: bytes that are not UTF-8, and NUL, which PostgreSQL's texts cannot hold.
    /// A character that the limit cut in two is left out.
    pub fn into_text(self) -> OutputText {
        let Self { mut kept, truncated } = self;
        if truncated
            && let Err(error) = std::str::from_utf8(&kept)
            && error.error_len().is_none()
        {
            kept.truncate(error.valid_up_to());
        }
        match String::from_utf8(kept) {
            Ok(text) if !text.contains('\0') => OutputText { text: Some(text), base64: None, truncated },
            Ok(text) => OutputText { text: None, base64: Some(BASE64_STANDARD.encode(text)), truncated },
            Err(error) => {
                OutputText { text: None, base64: Some(BASE64_STANDARD.encode(error.into_bytes())), truncated }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(bytes: &[u8]) -> OutputText {
        let mut output = Output::default();
        output.push(bytes);
        output.into_text()
    }

    #[test]
    fn text_stays_text_and_other_bytes_become_base64() {
        assert_eq!(text_of("grüße\n".as_bytes()).text.as_deref(), Some("grüße\n"));
        assert_eq!(text_of(b"\xff\xfe").base64.as_deref(), Some("//4="));
        assert_eq!(text_of(b"a\0b").base64.as_deref(), Some("YQBi"));
        assert_eq!(text_of(b"").text.as_deref(), Some(""));
    }

    #[test]
    fn what_just_fits_is_whole_and_one_byte_more_is_marked() {
        assert!(!text_of(&vec![b'x'; OUTPUT_BYTES_MAX]).truncated);
        let longer = text_of(&vec![b'x'; OUTPUT_BYTES_MAX + 1]);
        assert!(longer.truncated && longer.text.unwrap().len() == OUTPUT_BYTES_MAX);
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let mut bytes = vec![b'x'; OUTPUT_BYTES_MAX - 1];
        bytes.extend("€".as_bytes());
        let text = text_of(&bytes);
        assert!(text.truncated && text.text.unwrap().len() == OUTPUT_BYTES_MAX - 1);
    }

    proptest! {
        #[test]
        fn any_pieces_of_bytes_come_out_within_the_limit(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30_000), 0..6)) {
            let all = pieces.concat();
            let mut output = Output::default();
            for piece in &pieces {
                output.push(piece);
            }
            let text = output.into_text();
            prop_assert_eq!(text.truncated, all.len() > OUTPUT_BYTES_MAX);
            let back = match (text.text, text.base64) {
                (Some(text), None) => text.into_bytes(),
                (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap(),
                both => panic!("{both:?}"),
            };
            prop_assert!(all.starts_with(&back) && back.len() <= OUTPUT_BYTES_MAX && back.len() + 4 > all.len().min(OUTPUT_BYTES_MAX));
        }
    }
}
