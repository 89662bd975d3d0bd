//! The encoders of content codings: bytes in, bytes out. What comes out is never much more than what
//! went in, so that a step is bounded by its input; an encoder's own memory is bounded by its
//! settings (windows, hash tables).

use std::io::{self, Write};

use brotli::CompressorWriter;
use zlib_rs::{Deflate, DeflateError, DeflateFlush};
use zstd::stream::write::Encoder as ZstdWriter;
use zstd::zstd_safe::CParameter;

use crate::config::filter::{CompressionLibrary, ZstdParameters};

/// Room that a step of gzip is given for its output at a time.
const ROOM: usize = 4 * 1024;
/// Bytes that brotli's writer hands on at a time.
const BROTLI_BUFFER: usize = 4 * 1024;

/// Encodes one body. After an error it must not be used further.
pub enum Encoder {
    Gzip(Box<Deflate>),
    /// `None`: finished.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    Zstd(Option<Box<ZstdWriter<'static, Vec<u8>>>>),
}

impl Encoder {
    /// # Errors
    /// When there is no memory for it.
    pub fn new(library: &CompressionLibrary) -> io::Result<Self> {
        Ok(match library {
            CompressionLibrary::Gzip(config) => {
                Self::Gzip(Box::new(Deflate::new_with_config(*config)))
            }
            CompressionLibrary::Brotli(params) => {
                let writer = CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, params);
                Self::Brotli(Some(Box::new(writer)))
            }
            CompressionLibrary::Zstd(parameters) => {
                Self::Zstd(Some(Box::new(zstd_writer(parameters)?)))
            }
        })
    }

    /// Takes bytes, and gives what comes out, which may be nothing yet.
    ///
    /// # Errors
    /// When the encoder failed.
    pub fn write(&mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(deflate) => run(deflate, input, DeflateFlush::NoFlush),
            Self::Brotli(writer) => through(writer, |writer| writer.write_all(input)),
            Self::Zstd(writer) => through(writer, |writer| writer.write_all(input)),
        }
    }

    /// Gives all that was taken, so that the other side can decode it.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn flush(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(deflate) => run(deflate, &[], DeflateFlush::SyncFlush),
            Self::Brotli(writer) => through(writer, Write::flush),
            Self::Zstd(writer) => through(writer, Write::flush),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(deflate) => run(deflate, &[], DeflateFlush::Finish),
            Self::Brotli(writer) => Ok(writer.take().ok_or_else(over)?.into_inner()),
            Self::Zstd(writer) => writer.take().ok_or_else(over)?.finish(),
        }
    }
}

fn over() -> io::Error {
    io::Error::other("the encoder is finished")
}

fn zstd_writer(parameters: &ZstdParameters) -> io::Result<ZstdWriter<'static, Vec<u8>>> {
    let mut writer = ZstdWriter::new(Vec::new(), parameters.level)?;
    writer.include_checksum(parameters.checksum)?;
    if let Some(strategy) = parameters.strategy {
        writer.set_parameter(CParameter::Strategy(strategy))?;
    }
    Ok(writer)
}

/// A writer into memory.
trait MemoryWriter: Write {
    fn written(&mut self) -> &mut Vec<u8>;
}

impl MemoryWriter for CompressorWriter<Vec<u8>> {
    fn written(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

impl MemoryWriter for ZstdWriter<'static, Vec<u8>> {
    fn written(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

/// What `act` makes a writer write.
fn through<W: MemoryWriter>(
    writer: &mut Option<Box<W>>,
    act: impl FnOnce(&mut W) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let writer = writer.as_mut().ok_or_else(over)?;
    act(writer)?;
    Ok(std::mem::take(writer.written()))
}

/// zlib has taken all input, and given all output that it may give yet, once it leaves room.
fn run(deflate: &mut Deflate, input: &[u8], flush: DeflateFlush) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    let begun = deflate.total_in();
    loop {
        let read = deflate.total_in().saturating_sub(begun);
        let rest = usize::try_from(read).ok().and_then(|at| input.get(at..));
        let filled = output.len();
        output.resize(filled.saturating_add(ROOM), 0);
        let room = output.get_mut(filled..).unwrap_or_default();
        let before = deflate.total_out();
        let status = deflate.compress(rest.unwrap_or_default(), room, flush);
        status.map_err(|error: DeflateError| io::Error::other(error.as_str()))?;
        let written = deflate.total_out().saturating_sub(before);
        let written = usize::try_from(written).unwrap_or(ROOM).min(ROOM);
        output.truncate(filled.saturating_add(written));
        if written < ROOM {
            return Ok(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use zlib_rs::{DeflateConfig, Inflate, InflateFlush};

    use super::*;

    fn gunzip(coded: &[u8]) -> Vec<u8> {
        let mut inflate = Inflate::new(true, 15 + 16);
        let mut plain = vec![0; 4 << 20];
        inflate
            .decompress(coded, &mut plain, InflateFlush::NoFlush)
            .unwrap();
        plain.truncate(inflate.total_out() as usize);
        plain
    }

    fn unbrotli(mut coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        // Fails where the input is not complete, after all that could be decoded.
        let mut reader = brotli::Decompressor::new(&mut coded, 4096);
        let _ = reader.read_to_end(&mut plain);
        plain
    }

    fn unzstd(coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let _ = zstd::stream::read::Decoder::new(coded)
            .unwrap()
            .read_to_end(&mut plain);
        plain
    }

    type Decode = fn(&[u8]) -> Vec<u8>;

    fn all() -> [(CompressionLibrary, Decode); 3] {
        let gzip = DeflateConfig {
            window_bits: 12 + 16,
            mem_level: 5,
            ..DeflateConfig::new(6)
        };
        let zstd = ZstdParameters {
            level: 3,
            checksum: true,
            strategy: None,
        };
        [
            (CompressionLibrary::Gzip(gzip), gunzip),
            (CompressionLibrary::Brotli(Box::default()), unbrotli),
            (CompressionLibrary::Zstd(zstd), unzstd),
        ]
    }

    /// What was flushed can be decoded before the rest is there.
    #[test]
    fn pieces_are_decoded_as_they_are_flushed_and_whole_at_the_end() {
        let mut random = fastrand::Rng::with_seed(7);
        for (library, decode) in all() {
            let mut encoder = Encoder::new(&library).unwrap();
            let (mut plain, mut coded) = (Vec::new(), Vec::new());
            for size in [1, 100, 16 << 10, 0, 300 << 10] {
                let noise = random.alphanumeric();
                let piece: Vec<u8> = (0..size)
                    .map(|at| {
                        if at % 3 == 0 {
                            random.u8(..)
                        } else {
                            noise as u8
                        }
                    })
                    .collect();
                coded.extend(encoder.write(&piece).unwrap());
                coded.extend(encoder.flush().unwrap());
                plain.extend(piece);
                assert_eq!(decode(&coded), plain, "{:?}", library.coding());
            }
            coded.extend(encoder.finish().unwrap());
            assert_eq!(decode(&coded), plain);
        }
    }

    #[test]
    fn nothing_is_a_body_too() {
        for (library, decode) in all() {
            let mut encoder = Encoder::new(&library).unwrap();
            let coded = encoder.finish().unwrap();
            assert!(!coded.is_empty());
            assert!(decode(&coded).is_empty());
        }
    }
}
