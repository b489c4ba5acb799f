//! The container: a preamble, then frames, each whole or not there.
//!
//! Nothing here knows what a payload says. `docs/recording.md` has the format.

use std::io::{self, Read};

use zstd::bulk::{Compressor, Decompressor};

/// What a recording begins with. No text begins so.
pub(super) const MAGIC: [u8; 8] = *b"\x89mmwatch";
/// Version of the container and of the payloads. Kinds of frames and of entries
/// may be added without a new one: readers skip what they do not know.
pub(super) const FORMAT: u32 = 1;
/// Magic, version, four bytes of zero.
pub(super) const PREAMBLE_BYTES: usize = 16;

const SYNC: [u8; 4] = *b"mmwF";
const HEAD_BYTES: usize = 20;
/// A frame that says to be larger is none: looks at a large machine have some MiB.
const MAX_PAYLOAD_BYTES: usize = 256 << 20;
/// zstd's fastest but one: the watched machine has other things to do.
const LEVEL: i32 = 1;
/// Payloads below this are as small unpacked.
const WORTH_PACKING_BYTES: usize = 128;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// What holds for the whole file.
    Header = 1,
    /// Records, and what is to be known with them.
    Events = 2,
    /// What the kernel kept at a moment.
    Look = 3,
    /// Records that were not written.
    Gap = 4,
    /// The recording ended here, on purpose.
    End = 5,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Header, Self::Events, Self::Look, Self::Gap, Self::End];

    fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a file begins with.
pub(super) fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut preamble = [0; PREAMBLE_BYTES];
    preamble[..8].copy_from_slice(&MAGIC);
    preamble[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    preamble
}

/// Packs payloads into frames.
pub(super) struct Packer {
    compressor: Compressor<'static>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(LEVEL)?,
        })
    }

    /// Appends a frame to `out`.
    pub(super) fn pack(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let packed = if payload.len() >= WORTH_PACKING_BYTES && kind != Kind::Header {
            let packed = self.compressor.compress(payload)?;
            (packed.len() < payload.len()).then_some(packed)
        } else {
            // The header is for people, too.
            None
        };
        let (packing, stored) = match &packed {
            Some(packed) => (ZSTD, packed.as_slice()),
            None => (PLAIN, payload),
        };
        let too_large = |_| io::Error::other("a frame of more than 4 GiB");
        let stored_len = u32::try_from(stored.len()).map_err(too_large)?;
        let payload_len = u32::try_from(payload.len()).map_err(too_large)?;
        let start = out.len();
        out.extend_from_slice(&SYNC);
        out.extend_from_slice(&[kind as u8, packing, 0, 0]);
        out.extend_from_slice(&stored_len.to_le_bytes());
        out.extend_from_slice(&payload_len.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(out.get(start..).unwrap_or_default());
        crc.update(stored);
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(stored);
        Ok(())
    }
}

/// Where reading came to an end that is not the file's, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Bytes from the file's start to the end of its last whole frame.
    pub at_byte: u64,
    /// What is there instead of a frame.
    pub why: &'static str,
}

/// Why a file is none that frames can be read from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotReadable {
    /// It does not begin as a recording does.
    Foreign,
    /// It is a recording of a newer format.
    Newer(u32),
}

/// Reads frames, up to the last whole one.
pub(super) struct Unpacker<R> {
    from: R,
    /// Bytes up to the end of the last whole frame.
    at_byte: u64,
    stored: Vec<u8>,
    payload: Vec<u8>,
    decompressor: Decompressor<'static>,
}

/// What comes next in a file.
pub(super) enum Next {
    /// A frame; [`Unpacker::payload`] has what it says. `None` for a kind that is
    /// not known.
    Frame(Option<Kind>),
    /// Nothing: the file ends with a whole frame.
    Nothing,
    /// No frame.
    Broken(Broken),
}

impl<R: Read> Unpacker<R> {
    /// Begins to read.
    pub(super) fn new(mut from: R) -> io::Result<Result<Self, NotReadable>> {
        let mut preamble = Vec::with_capacity(PREAMBLE_BYTES);
        fill(&mut from, PREAMBLE_BYTES, &mut preamble)?;
        let Some((start, rest)) = preamble.split_at_checked(MAGIC.len()) else {
            return Ok(Err(NotReadable::Foreign));
        };
        let version = rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        match version {
            Some(FORMAT) if start == MAGIC && preamble.len() == PREAMBLE_BYTES => {}
            Some(newer) if start == MAGIC && newer > FORMAT => {
                return Ok(Err(NotReadable::Newer(newer)));
            }
            _ => return Ok(Err(NotReadable::Foreign)),
        }
        Ok(Ok(Self {
            from,
            at_byte: PREAMBLE_BYTES as u64,
            stored: Vec::new(),
            payload: Vec::new(),
            decompressor: Decompressor::new()?,
        }))
    }

    /// What the last frame says.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Takes what the last frame says, and gives room for the next one's.
    pub(super) fn swap_payload(&mut self, room: &mut Vec<u8>) {
        std::mem::swap(&mut self.payload, room);
    }

    /// Reads the next frame. To be called no more once there was none.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        fill(&mut self.from, HEAD_BYTES, &mut head)?;
        if head.is_empty() {
            return Ok(Next::Nothing);
        }
        let Some(head) = head.first_chunk::<HEAD_BYTES>() else {
            return Ok(self.broken("a frame that is cut off"));
        };
        let (sync, fields) = head.split_at(SYNC.len());
        let number = |at: usize| {
            let bytes = head.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let (stored_len, payload_len, crc) = (number(8), number(12), number(16));
        if sync != SYNC {
            return Ok(self.broken("bytes that are no frame"));
        }
        if stored_len as usize > MAX_PAYLOAD_BYTES || payload_len as usize > MAX_PAYLOAD_BYTES {
            return Ok(self.broken("a frame of an impossible length"));
        }
        self.stored.clear();
        fill(&mut self.from, stored_len as usize, &mut self.stored)?;
        if self.stored.len() != stored_len as usize {
            return Ok(self.broken("a frame that is cut off"));
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(head.get(..HEAD_BYTES - 4).unwrap_or_default());
        hasher.update(&self.stored);
        if hasher.finalize() != crc {
            return Ok(self.broken("a frame whose checksum is wrong"));
        }
        let [kind, packing, ..] = fields else {
            return Ok(self.broken("bytes that are no frame"));
        };
        let is_unpacked = match *packing {
            PLAIN => {
                std::mem::swap(&mut self.payload, &mut self.stored);
                true
            }
            ZSTD => {
                self.payload.clear();
                self.payload.reserve(payload_len as usize);
                let unpacked = self
                    .decompressor
                    .decompress_to_buffer(&self.stored, &mut self.payload);
                unpacked.is_ok()
            }
            _ => false,
        };
        if !is_unpacked || self.payload.len() != payload_len as usize {
            return Ok(self.broken("a frame that cannot be unpacked"));
        }
        self.at_byte += HEAD_BYTES as u64 + u64::from(stored_len);
        Ok(Next::Frame(Kind::from_wire(*kind)))
    }

    /// The last frame is whole, but does not say what it should.
    pub(super) fn malformed(&self) -> Broken {
        Broken {
            at_byte: self.at_byte,
            why: "a frame before it that says nothing known",
        }
    }

    fn broken(&self, why: &'static str) -> Next {
        Next::Broken(Broken {
            at_byte: self.at_byte,
            why,
        })
    }
}

/// Reads so many bytes, or what there is. Takes no more memory than that.
fn fill(from: &mut impl Read, len: usize, to: &mut Vec<u8>) -> io::Result<()> {
    from.take(len as u64).read_to_end(to).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut packer = Packer::new().unwrap();
        let mut file = preamble().to_vec();
        let long: Vec<u8> = (0..2000_u32).map(|n| (n / 50) as u8).collect();
        for (kind, payload) in [
            (Kind::Header, &b"{}"[..]),
            (Kind::Events, &long),
            (Kind::Gap, &[]),
            (Kind::End, &[1, 2, 3]),
        ] {
            packer.pack(kind, payload, &mut file).unwrap();
        }
        file
    }

    /// Kinds and payloads.
    type Frames = Vec<(Kind, Vec<u8>)>;

    /// Whole frames, and what stopped the reading.
    fn read(bytes: &[u8]) -> Result<(Frames, Option<Broken>), NotReadable> {
        let mut unpacker = Unpacker::new(bytes).unwrap()?;
        let mut frames = Vec::new();
        loop {
            match unpacker.next().unwrap() {
                Next::Frame(kind) => frames.push((kind.unwrap(), unpacker.payload().to_vec())),
                Next::Nothing => return Ok((frames, None)),
                Next::Broken(broken) => return Ok((frames, Some(broken))),
            }
        }
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let file = file();
        // Packed: it is not worth its length.
        assert!(file.len() < 400, "{}", file.len());
        let (frames, broken) = read(&file).unwrap();
        let kinds: Vec<_> = frames.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Header, Kind::Events, Kind::Gap, Kind::End]);
        assert_eq!(frames[1].1.len(), 2000);
        assert_eq!(frames[1].1[1999], 39);
        assert_eq!(frames[3].1, [1, 2, 3]);
        assert_eq!(broken, None);
    }

    /// Ends of the frames.
    fn ends(file: &[u8]) -> Vec<usize> {
        let mut ends = vec![PREAMBLE_BYTES];
        while let Some(head) = file[*ends.last().unwrap()..].first_chunk::<HEAD_BYTES>() {
            let stored = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
            ends.push(ends.last().unwrap() + HEAD_BYTES + stored);
        }
        ends
    }

    #[test]
    fn a_file_that_is_cut_off_reads_to_its_last_whole_frame() {
        let file = file();
        let (all, ends) = (read(&file).unwrap().0, ends(&file));
        for len in 0..file.len() {
            if len < PREAMBLE_BYTES {
                assert_eq!(read(&file[..len]), Err(NotReadable::Foreign), "{len}");
                continue;
            }
            let (frames, broken) = read(&file[..len]).unwrap();
            let whole = ends.iter().filter(|end| **end <= len).count() - 1;
            assert_eq!(frames, all[..whole], "{len}");
            assert_eq!(broken.is_none(), ends.contains(&len), "{len}");
            if let Some(broken) = broken {
                assert_eq!(broken.at_byte, ends[whole] as u64, "{len}");
            }
        }
    }

    #[test]
    fn no_changed_byte_goes_unnoticed() {
        let file = file();
        let (all, ends) = (read(&file).unwrap().0, ends(&file));
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                let Ok((frames, broken)) = read(&damaged) else {
                    assert!(at < PREAMBLE_BYTES - 4, "{at}");
                    continue;
                };
                if (PREAMBLE_BYTES - 4..PREAMBLE_BYTES).contains(&at) {
                    // Kept for later.
                    assert_eq!(broken, None);
                    continue;
                }
                let before = ends.iter().filter(|end| **end <= at).count() - 1;
                assert_eq!(frames, all[..before], "byte {at}, bit {bit}");
                let broken = broken.unwrap();
                assert_eq!(broken.at_byte, ends[before] as u64, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_newer_or_foreign_is_told_apart() {
        let mut newer = file();
        newer[8] = 2;
        assert_eq!(read(&newer), Err(NotReadable::Newer(2)));
        newer[8] = 0;
        assert_eq!(read(&newer), Err(NotReadable::Foreign));
        assert_eq!(read(b"#!/bin/sh\necho hello\n"), Err(NotReadable::Foreign));
        assert_eq!(read(b""), Err(NotReadable::Foreign));
    }

    #[test]
    fn kinds_that_come_later_are_skipped() {
        let mut file = preamble().to_vec();
        let mut packer = Packer::new().unwrap();
        packer.pack(Kind::Gap, &[7], &mut file).unwrap();
        let at = PREAMBLE_BYTES;
        file[at + 4] = 99;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&file[at..at + 16]);
        crc.update(&[7]);
        file[at + 16..at + 20].copy_from_slice(&crc.finalize().to_le_bytes());
        packer.pack(Kind::End, &[], &mut file).unwrap();
        let mut unpacker = Unpacker::new(&*file).unwrap().unwrap();
        assert!(matches!(unpacker.next().unwrap(), Next::Frame(None)));
        let next = unpacker.next().unwrap();
        assert!(matches!(next, Next::Frame(Some(Kind::End))));
    }

    #[test]
    fn no_memory_is_taken_for_what_is_not_there() {
        let mut file = preamble().to_vec();
        file.extend_from_slice(&SYNC);
        file.extend_from_slice(&[Kind::Events as u8, PLAIN, 0, 0]);
        file.extend_from_slice(&(MAX_PAYLOAD_BYTES as u32).to_le_bytes());
        file.extend_from_slice(&(MAX_PAYLOAD_BYTES as u32).to_le_bytes());
        file.extend_from_slice(&[0; 14]);
        let mut unpacker = Unpacker::new(&*file).unwrap().unwrap();
        assert!(matches!(unpacker.next().unwrap(), Next::Broken(_)));
        assert!(unpacker.stored.capacity() < 1 << 20);
    }
}
