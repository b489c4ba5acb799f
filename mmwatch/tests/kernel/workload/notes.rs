//! What a program of known calls notes of them: one note for each event that
//! must be reported. Taking a note allocates nothing.

use std::{ffi::CStr, fs};

use serde::{Deserialize, Serialize};

use super::{Answer, PAGE, mmap, mprotect, mremap, munmap};

/// Length of the refused mapping that begins the notes.
pub const MARK_BEGIN: u64 = 0x7701_0000;
/// Length of the refused mapping that ends them.
pub const MARK_END: u64 = 0x7702_0000;

/// One event that must be reported, as far as the program knows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Note {
    pub op: String,
    pub cause: String,
    pub errno: Option<String>,
    pub errno_reason: Option<String>,
    pub addr: Option<u64>,
    pub len_bytes: Option<u64>,
    pub requested_len_bytes: Option<u64>,
    pub prot: Option<String>,
    pub backing: Option<String>,
    pub path: Option<String>,
    pub offset_bytes: Option<u64>,
    pub old_addr: Option<u64>,
    pub old_len_bytes: Option<u64>,
    /// Lines of `/proc/self/maps` after the call.
    pub vmas: Option<u64>,
}

/// Lines of `/proc/self/maps` less `[vsyscall]`, counted without allocating.
pub fn vmas() -> u64 {
    static mut BUFFER: [u8; 1 << 16] = [0; 1 << 16];
    const MAPS: &CStr = c"/proc/self/maps";
    // SAFETY: the program has one thread here; the buffer has the length given.
    unsafe {
        let fd = libc::open(MAPS.as_ptr(), libc::O_RDONLY);
        assert!(fd >= 0);
        let buffer = &raw mut BUFFER;
        let mut lines = 0;
        let mut last_len = 0;
        loop {
            let read = libc::read(fd, buffer.cast(), 1 << 16);
            assert!(read >= 0);
            if read == 0 {
                break;
            }
            let text = &(&*buffer)[..read as usize];
            lines += text.iter().filter(|byte| **byte == b'\n').count() as u64;
            last_len = read as usize;
        }
        libc::close(fd);
        let tail = &(&*buffer)[..last_len];
        let vsyscall = tail.ends_with(b"[vsyscall]\n");
        lines - u64::from(vsyscall)
    }
}

/// The notes, in memory that is there from the beginning.
pub struct Notes {
    notes: Vec<Fixed>,
}

/// A [`Note`] without allocations.
#[derive(Clone, Copy, Default)]
pub struct Fixed {
    pub op: &'static str,
    pub cause: &'static str,
    pub errno: Option<&'static str>,
    pub addr: Option<u64>,
    pub len_bytes: Option<u64>,
    pub requested_len_bytes: Option<u64>,
    pub prot: Option<&'static str>,
    pub backing: Option<&'static str>,
    pub path: Option<Path>,
    pub offset_bytes: Option<u64>,
    pub old_addr: Option<u64>,
    pub old_len_bytes: Option<u64>,
    pub vmas: Option<u64>,
}

/// Which file is mapped.
#[derive(Clone, Copy)]
pub enum Path {
    File,
    Memfd,
}

impl Notes {
    pub fn begin() -> Self {
        let notes = Self {
            notes: Vec::with_capacity(256),
        };
        // The first use of the counting buffer may fault; faults are no events,
        // and the stack has grown by the time of the mark.
        let _ = vmas();
        assert_eq!(
            mmap(0, MARK_BEGIN, 0, libc::MAP_PRIVATE, -1, 0),
            Err("EBADF")
        );
        notes
    }

    /// Notes an event whose call succeeded.
    pub fn done(&mut self, note: Fixed) {
        assert!(self.notes.len() < self.notes.capacity());
        self.notes.push(Fixed {
            vmas: Some(vmas()),
            ..note
        });
    }

    /// Notes an event whose call failed.
    pub fn failed(&mut self, answer: Answer, errno: &'static str, note: Fixed) {
        assert_eq!(answer, Err(errno));
        assert!(self.notes.len() < self.notes.capacity());
        self.notes.push(Fixed {
            errno: Some(errno),
            len_bytes: Some(0),
            ..note
        });
    }

    pub fn end(self, path: &str, file: &str) {
        assert_eq!(mmap(0, MARK_END, 0, libc::MAP_PRIVATE, -1, 0), Err("EBADF"));
        let notes: Vec<Note> = self
            .notes
            .iter()
            .map(|note| Note {
                op: note.op.to_owned(),
                cause: note.cause.to_owned(),
                errno: note.errno.map(str::to_owned),
                errno_reason: None,
                addr: note.addr,
                len_bytes: note.len_bytes,
                requested_len_bytes: note.requested_len_bytes,
                prot: note.prot.map(str::to_owned),
                backing: note.backing.map(str::to_owned),
                path: note.path.map(|path| match path {
                    Path::File => file.to_owned(),
                    Path::Memfd => "/memfd:mmwatch-test".to_owned(),
                }),
                offset_bytes: note.offset_bytes,
                old_addr: note.old_addr,
                old_len_bytes: note.old_len_bytes,
                vmas: note.vmas,
            })
            .collect();
        fs::write(path, serde_json::to_vec(&notes).unwrap()).unwrap();
    }

    /// mmap that succeeds without replacing anything.
    pub fn map(&mut self, len: u64, prot: i32, flags: i32, backing: &'static str) -> u64 {
        let addr = mmap(0, len, prot, flags, -1, 0).unwrap();
        self.done(map_note(addr, len, prot, backing));
        addr
    }

    /// munmap of `len` bytes of which `mapped` were mapped.
    pub fn unmap(&mut self, addr: u64, len: u64, mapped: u64) {
        munmap(addr, len).unwrap();
        self.done(Fixed {
            op: "unmap",
            cause: "munmap",
            addr: Some(addr),
            len_bytes: Some(mapped),
            requested_len_bytes: Some(len),
            ..Fixed::default()
        });
    }

    pub fn protect(&mut self, addr: u64, len: u64, prot: i32) {
        mprotect(addr, len, prot).unwrap();
        self.done(Fixed {
            op: "protect",
            cause: "mprotect",
            addr: Some(addr),
            len_bytes: Some(pages(len)),
            requested_len_bytes: Some(len),
            prot: Some(letters(prot)),
            ..Fixed::default()
        });
    }

    /// mremap, with `replaced` bytes of other mappings at the target.
    pub fn remap(
        &mut self,
        addr: u64,
        old_len: u64,
        new_len: u64,
        flags: i32,
        to: u64,
        replaced: u64,
    ) -> u64 {
        let now = mremap(addr, old_len, new_len, flags, to).unwrap();
        if replaced != 0 {
            self.done(Fixed {
                op: "unmap",
                cause: "mremap",
                addr: Some(now),
                len_bytes: Some(replaced),
                ..Fixed::default()
            });
        }
        self.done(Fixed {
            op: "remap",
            cause: "mremap",
            addr: Some(now),
            len_bytes: Some(pages(new_len)),
            requested_len_bytes: Some(new_len),
            old_addr: Some(addr),
            old_len_bytes: Some(pages(old_len)),
            ..Fixed::default()
        });
        now
    }
}

pub fn pages(len: u64) -> u64 {
    len.next_multiple_of(PAGE)
}

fn letters(prot: i32) -> &'static str {
    match prot {
        0 => "---",
        1 => "r--",
        2 => "-w-",
        3 => "rw-",
        5 => "r-x",
        7 => "rwx",
        _ => panic!("no letters for {prot}"),
    }
}

pub fn map_note(addr: u64, len: u64, prot: i32, backing: &'static str) -> Fixed {
    Fixed {
        op: "map",
        cause: "mmap",
        addr: Some(addr),
        len_bytes: Some(pages(len)),
        requested_len_bytes: Some(len),
        prot: Some(letters(prot)),
        backing: Some(backing),
        ..Fixed::default()
    }
}
