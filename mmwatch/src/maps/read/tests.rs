use std::process;

use super::*;
use crate::maps::{
    Certainty, Segment,
    elf::{
        Part,
        tests::{LIBRARY, elf64},
    },
};

/// A procfs with one process, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    const PID: u32 = 10;

    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mmwatch-{}-{name}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file of the process, and returns its inode.
    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> u64 {
        let path = self.0.join(Self::PID.to_string()).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::metadata(&path).unwrap().ino()
    }

    fn take(&self) -> Result<Reading> {
        Reading::take(&Proc::at(&self.0), Self::PID, Source::Maps)
    }

    fn segments(&self) -> Vec<(Segment, Certainty)> {
        let reading = self.take().unwrap();
        let space = reading.space().unwrap();
        let vmas = space.vmas.iter();
        vmas.map(|vma| (vma.segment, vma.certainty)).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn code(inode: u64, path: &str) -> String {
    format!("7f0000002000-7f0000008000 r-xp 00002000 fe:00 {inode} {path}\n")
}

const LIBRARY_TEXT: Segment = Segment::Library(Part::Text);

#[test]
fn objects_are_read_below_the_processs_root() {
    let scratch = Scratch::new("object");
    let inode = scratch.file("root/lib/a\nb.so", elf64(&LIBRARY));
    scratch.file("maps", code(inode, r"/lib/a\012b.so"));
    assert_eq!(scratch.segments(), [(LIBRARY_TEXT, Certainty::Known)]);
    let reading = scratch.take().unwrap();
    assert_eq!(reading.space().unwrap().pid, Scratch::PID);
}

#[test]
fn objects_of_a_chroot_are_read_below_the_own_root() {
    let scratch = Scratch::new("chroot");
    let inode = scratch.file("elsewhere/a.so", elf64(&LIBRARY));
    let path = scratch.0.join("10/elsewhere/a.so");
    scratch.file("maps", code(inode, path.to_str().unwrap()));
    assert_eq!(scratch.segments(), [(LIBRARY_TEXT, Certainty::Known)]);
}

#[test]
fn another_file_of_that_path_is_not_read() {
    let scratch = Scratch::new("other");
    let inode = scratch.file("root/lib/a.so", elf64(&LIBRARY));
    scratch.file("maps", code(inode + 1, "/lib/a.so"));
    assert_eq!(scratch.segments(), [(LIBRARY_TEXT, Certainty::Guessed)]);
    // But through the mapping, if it leads to the right one.
    let inode = scratch.file("map_files/7f0000002000-7f0000008000", elf64(&LIBRARY));
    scratch.file("maps", code(inode, "/lib/a.so"));
    assert_eq!(scratch.segments(), [(LIBRARY_TEXT, Certainty::Known)]);
    // Or as the program.
    let inode = scratch.file("exe", elf64(&LIBRARY));
    scratch.file("maps", code(inode, "/lib/a.so (deleted)"));
    assert_eq!(scratch.segments(), [(LIBRARY_TEXT, Certainty::Known)]);
}

#[test]
fn what_is_not_a_file_is_not_opened() {
    let scratch = Scratch::new("directory");
    scratch.file("root/lib/a.so/x", "");
    let inode = fs::metadata(scratch.0.join("10/root/lib/a.so"))
        .unwrap()
        .ino();
    scratch.file("maps", code(inode, "/lib/a.so"));
    assert_eq!(scratch.segments(), [(LIBRARY_TEXT, Certainty::Guessed)]);
    let inode = scratch.file("root/script", "#!/bin/sh\nand more than sixteen bytes\n");
    scratch.file("maps", code(inode, "/script"));
    assert_eq!(scratch.segments(), [(Segment::File, Certainty::Known)]);
}

#[test]
fn stack_pointers_of_all_threads_are_read() {
    let scratch = Scratch::new("threads");
    scratch.file(
        "maps",
        "10000-11000 ---p 00000000 00:00 0\n11000-20000 rw-p 00000000 00:00 0\n",
    );
    let stack = |certainty| {
        [
            (Segment::Guard, certainty),
            (Segment::ThreadStack, certainty),
        ]
    };
    // Nobody knows of any thread.
    assert_eq!(scratch.segments(), stack(Certainty::Guessed));
    scratch.file(
        "task/10/syscall",
        "0 0x0 0x7 0x7 0x7 0x7 0x7 0x7ffe00001000 0x7f00\n",
    );
    assert_eq!(
        scratch.segments(),
        [
            (Segment::Guard, Certainty::Guessed),
            (Segment::Anon, Certainty::Known)
        ]
    );
    scratch.file("task/11/syscall", "running\n");
    assert_eq!(scratch.segments(), stack(Certainty::Guessed));
    scratch.file("task/11/syscall", "-1 0x1fff0 0x7f00\n");
    assert_eq!(scratch.segments(), stack(Certainty::Known));
}

#[test]
fn what_cannot_be_read_is_named() {
    let message = |scratch: &Scratch| scratch.take().unwrap_err();
    let scratch = Scratch::new("nothing");
    let error = message(&scratch);
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("process 10 ended"), "{error}");

    scratch.file("maps", "");
    scratch.file("status", "Name:\tx\nState:\tS (sleeping)\n");
    let error = message(&scratch);
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("a thread of the kernel"),
        "{error}"
    );
    scratch.file("status", "Name:\tx\nState:\tZ (zombie)\n");
    assert!(message(&scratch).to_string().contains("has ended"));

    scratch.file("maps", "1000-2000 rw-p 00000000 00:00 0\nwhat\n");
    let error = message(&scratch);
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("line 2"), "{error}");

    let denied = io::Error::from_raw_os_error(libc::EACCES);
    let denied = refused(10, Path::new("/proc/10/maps"), denied);
    assert_eq!(denied.exit_code(), 3);
    assert!(denied.to_string().contains("as root"), "{denied}");
}
