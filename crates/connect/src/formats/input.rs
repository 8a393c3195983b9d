//! Opens a file as decoded text: decompressed, without its byte-order mark, in UTF-8.
//!
//! Text declared as UTF-8 passes unchecked: the formats check it row by row, so that one bad byte
//! costs one row. Text of another encoding is converted; what cannot be converted becomes the byte
//! 0xFF, which is never part of UTF-8, so that the same check finds it.

use std::io::{BufReader, Cursor, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use flowgate_core::{Code, ConnectorError, ErrorKind};

use super::layout::{Compression, Layout};
use super::{DataFile, read_failed};

const BUFFER_BYTES: usize = 64 * 1024;
const NOT_UTF_8: u8 = 0xFF;

/// A file's text.
pub(super) struct Input {
    pub(super) text: Box<dyn Read + Send>,
    /// What the file is taken to be written in.
    pub(super) encoding: &'static Encoding,
}

pub(super) fn open(file: &DataFile, layout: &Layout) -> Result<Input, ConnectorError> {
    let mut bytes = decompressed(file, layout.compression)?;
    let mut head = Vec::with_capacity(3);
    bytes.by_ref().take(3).read_to_end(&mut head).map_err(|error| read_failed(file, error))?;
    let encoding = encoding_of(file, layout.encoding, &head)?;
    let mark_bytes = match Encoding::for_bom(&head) {
        Some((_, length)) => length,
        None => 0,
    };
    let rest = Cursor::new(head.split_off(mark_bytes)).chain(bytes);
    let text: Box<dyn Read + Send> =
        if encoding == UTF_8 { Box::new(rest) } else { Box::new(Transcoder::new(rest, encoding)) };
    Ok(Input { text, encoding })
}

fn decompressed(file: &DataFile, compression: Option<Compression>) -> Result<Box<dyn Read + Send>, ConnectorError> {
    let handle = fs_err::File::open(&file.path).map_err(|error| read_failed(file, error))?;
    let bytes = BufReader::with_capacity(BUFFER_BYTES, handle);
    Ok(match compression.unwrap_or_else(|| compression_of(&file.shown)) {
        Compression::None => Box::new(bytes),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|error| read_failed(file, error))?;
            Box::new(decoder)
        }
    })
}

fn compression_of(name: &str) -> Compression {
    match name.to_ascii_lowercase().rsplit_once('.') {
        Some((_, "gz")) => Compression::Gzip,
        Some((_, "zst")) => Compression::Zstd,
        _ => Compression::None,
    }
}

/// The encoding by declaration and byte-order mark, which must not contradict each other.
fn encoding_of(
    file: &DataFile,
    declared: Option<&'static Encoding>,
    head: &[u8],
) -> Result<&'static Encoding, ConnectorError> {
    let is_utf_16 = |encoding| encoding == UTF_16LE || encoding == UTF_16BE;
    match (declared, Encoding::for_bom(head)) {
        (None, None) => Ok(UTF_8),
        (Some(declared), None) => Ok(declared),
        (None, Some((marked, _))) => Ok(marked),
        // The name UTF-16 leaves the byte order to the mark.
        (Some(declared), Some((marked, _))) if declared == marked || (is_utf_16(declared) && is_utf_16(marked)) => {
            Ok(marked)
        }
        (Some(declared), Some((marked, _))) => {
            let (marked, declared) = (marked.name(), declared.name());
            let message = format!("`{}` begins with the byte-order mark of {marked}, not {declared}", file.shown);
            Err(ConnectorError::new(ErrorKind::Data, Code::BAD_ENCODING, message)
                .hint(format!("leave out `encoding:`, or set it to `{}`", marked.to_ascii_lowercase())))
        }
    }
}

/// Converts text to UTF-8 while it is read.
struct Transcoder<R> {
    input: R,
    decoder: Decoder,
    raw: Box<[u8]>,
    raw_start: usize,
    raw_end: usize,
    /// The input has ended; what is left in `raw` is the last of it.
    is_last: bool,
    text: Box<[u8]>,
    text_start: usize,
    text_end: usize,
    is_done: bool,
}

impl<R: Read> Transcoder<R> {
    fn new(input: R, encoding: &'static Encoding) -> Self {
        Self {
            input,
            decoder: encoding.new_decoder_without_bom_handling(),
            raw: vec![0; BUFFER_BYTES].into_boxed_slice(),
            raw_start: 0,
            raw_end: 0,
            is_last: false,
            text: vec![0; BUFFER_BYTES].into_boxed_slice(),
            text_start: 0,
            text_end: 0,
            is_done: false,
        }
    }

    /// Converts until there is some text, or none any more.
    fn fill(&mut self) -> std::io::Result<()> {
        self.text_start = 0;
        self.text_end = 0;
        while self.text_end == 0 && !self.is_done {
            if self.raw_start == self.raw_end && !self.is_last {
                self.raw_start = 0;
                self.raw_end = self.input.read(&mut self.raw)?;
                self.is_last = self.raw_end == 0;
            }
            // One byte stays free for the mark of what cannot be converted.
            let room = self.text.len() - 1;
            let raw = &self.raw[self.raw_start..self.raw_end];
            let (result, read, written) =
                self.decoder.decode_to_utf8_without_replacement(raw, &mut self.text[..room], self.is_last);
            self.raw_start += read;
            self.text_end = written;
            match result {
                DecoderResult::InputEmpty => self.is_done = self.is_last,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    self.text[written] = NOT_UTF_8;
                    self.text_end += 1;
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.text_start == self.text_end {
            self.fill()?;
        }
        let count = buffer.len().min(self.text_end - self.text_start);
        buffer[..count].copy_from_slice(&self.text[self.text_start..self.text_start + count]);
        self.text_start += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(bytes: &[u8], encoding: &'static Encoding) -> Vec<u8> {
        let mut text = Vec::new();
        Transcoder::new(bytes, encoding).read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn text_of_another_encoding_is_converted() {
        assert_eq!(convert(b"na\xEFve", encoding_rs::WINDOWS_1252), "naïve".as_bytes());
        assert_eq!(convert(b"a\0\xDF\0", UTF_16LE), "aß".as_bytes());
        let long = "Škoda ".repeat(50_000);
        assert_eq!(convert(&encoding_rs::WINDOWS_1250.encode(&long).0, encoding_rs::WINDOWS_1250), long.as_bytes());
    }

    #[test]
    fn what_cannot_be_converted_is_marked() {
        assert_eq!(convert(b"a\0\x00\xDCb\0", UTF_16LE), b"a\xFFb");
        assert_eq!(convert(b"a\0b", UTF_16LE), b"a\xFF");
    }
}
