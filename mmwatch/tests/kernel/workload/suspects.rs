//! A program that makes dangerous mappings, and some that only look like it. It
//! prints one line for each of its calls that has an event, in their order: the
//! address, the protection before of a protect, and what must be flagged.

use std::{fs, os::fd::AsRawFd as _};

use serde::{Deserialize, Serialize};

use super::{ANON, Answer, PAGE, RW, SHARED_ANON, answer, brk, mmap, mprotect, munmap};

const R: i32 = libc::PROT_READ;
const RX: i32 = R | libc::PROT_EXEC;
const RWX: i32 = RW | libc::PROT_EXEC;

/// One call.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub op: String,
    pub addr: u64,
    /// Of a protect that did not fail.
    pub old_prot: Option<String>,
    pub suspects: Vec<String>,
    /// Of these, what the call's arguments alone tell.
    pub by_arguments: Vec<String>,
}

struct Teller(Vec<Told>);

impl Teller {
    fn tell(&mut self, op: &str, addr: u64, old_prot: Option<&str>, all: &str, by_arguments: &str) {
        let names = |names: &str| names.split_terminator(',').map(str::to_owned).collect();
        self.0.push(Told {
            op: op.to_owned(),
            addr,
            old_prot: old_prot.map(str::to_owned),
            suspects: names(all),
            by_arguments: names(by_arguments),
        });
    }

    /// A mapping, of which arguments tell everything.
    fn map(&mut self, len: u64, prot: i32, flags: i32, fd: i32, suspects: &str) -> u64 {
        let addr = mmap(0, len, prot, flags, fd, 0).unwrap();
        self.tell("map", addr, None, suspects, suspects);
        addr
    }

    fn protect(&mut self, addr: u64, len: u64, prot: i32, old_prot: &str, suspects: &str) {
        mprotect(addr, len, prot).unwrap();
        let write_exec = match prot & RWX {
            RWX => "write-exec",
            _ => "",
        };
        self.tell("protect", addr, Some(old_prot), suspects, write_exec);
    }

    fn failed(&mut self, op: &str, addr: u64, answer: Answer, errno: &'static str) {
        assert_eq!(answer, Err(errno));
        self.tell(op, addr, None, "", "");
    }
}

/// Makes its calls, and writes what it did to `told`.
pub fn main(told: &str, scratch: &str) {
    let mut teller = Teller(Vec::new());
    anonymous(&mut teller);
    files(&mut teller, scratch);
    stack_and_heap(&mut teller);
    implied(&mut teller);
    refused(&mut teller);
    fs::write(told, serde_json::to_vec(&teller.0).unwrap()).unwrap();
}

fn anonymous(teller: &mut Teller) {
    // Ordinary.
    teller.map(PAGE, RW, ANON, -1, "");
    teller.map(PAGE, RW, SHARED_ANON, -1, "");
    // Executable at once.
    teller.map(PAGE, RX, ANON, -1, "anon-exec");
    teller.map(PAGE, RWX, ANON, -1, "write-exec,anon-exec");
    teller.map(PAGE, RWX, SHARED_ANON, -1, "write-exec,anon-exec");
    let stack = ANON | libc::MAP_GROWSDOWN;
    teller.map(PAGE, RX, stack, -1, "anon-exec,stack-exec");

    // Written, then run; and back.
    let area = teller.map(8 * PAGE, RW, ANON, -1, "");
    teller.protect(area, 8 * PAGE, RX, "rw-", "anon-exec,write-to-exec");
    teller.protect(area, 8 * PAGE, RW, "r-x", "");
    // Both ends; then all of it, where only the middle becomes executable.
    for end in [area, area + 7 * PAGE] {
        teller.protect(end, PAGE, RWX, "rw-", "write-exec,anon-exec,write-to-exec");
    }
    teller.protect(area, 8 * PAGE, RX, "rwx", "anon-exec,write-to-exec");
    // Nothing new: it was executable.
    teller.protect(area, 4 * PAGE, libc::PROT_EXEC, "r-x", "");
    teller.protect(area, 4 * PAGE, RWX, "--x", "write-exec");
    teller.protect(area, 8 * PAGE, 0, "rwx", "");
    teller.protect(area, 8 * PAGE, R, "---", "");
    teller.protect(area, 8 * PAGE, RX, "r--", "anon-exec");
    // No page at all.
    mprotect(area, 0, RWX).unwrap();
    teller.tell("protect", area, None, "", "");

    let shared = teller.map(PAGE, RW, SHARED_ANON, -1, "");
    teller.protect(shared, PAGE, RX, "rw-", "anon-exec,write-to-exec");
}

fn files(teller: &mut Teller, scratch: &str) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(scratch)
        .unwrap();
    file.set_len(4 * PAGE).unwrap();
    let fd = file.as_raw_fd();
    let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
    // As the loader maps programs.
    let code = teller.map(PAGE, RX, private, fd, "");
    teller.protect(code, PAGE, RW, "r-x", "");
    teller.protect(code, PAGE, RX, "rw-", "write-to-exec");
    teller.map(PAGE, RWX, shared, fd, "write-exec");
    let data = teller.map(PAGE, RW, private, fd, "");
    fs::remove_file(scratch).unwrap();
    teller.map(PAGE, R, private, fd, "");
    teller.map(PAGE, RX, private, fd, "deleted-exec");
    teller.protect(data, PAGE, RX, "rw-", "write-to-exec,deleted-exec");

    // A file of a disk is no memfd, whatever it was called.
    let (directory, _) = scratch.rsplit_once('/').unwrap();
    let path = format!("{directory}/memfd:{}", std::process::id());
    let file = fs::File::create_new(&path).unwrap();
    file.set_len(PAGE).unwrap();
    drop(file);
    let file = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    teller.map(PAGE, RX, private, file.as_raw_fd(), "deleted-exec");

    // SAFETY: a NUL-terminated name.
    let memfd = unsafe { libc::memfd_create(c"mmwatch".as_ptr(), 0) };
    // SAFETY: a descriptor of our own.
    assert_eq!(unsafe { libc::ftruncate(memfd, 4 * PAGE as i64) }, 0);
    let data = teller.map(PAGE, RW, shared, memfd, "");
    teller.map(PAGE, RX, shared, memfd, "memfd-exec");
    teller.protect(data, PAGE, RX, "rw-", "write-to-exec,memfd-exec");

    shm(teller);
}

fn shm(teller: &mut Teller) {
    // SAFETY: no memory is handed over.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE as usize, 0o700) };
    assert!(id >= 0);
    for (flags, suspects) in [
        (0, ""),
        (libc::SHM_EXEC, "write-exec,deleted-exec"),
        (libc::SHM_EXEC | libc::SHM_RDONLY, "deleted-exec"),
    ] {
        // SAFETY: the kernel chooses the address.
        let addr = answer(unsafe { libc::syscall(libc::SYS_shmat, id, 0, flags) }).unwrap();
        teller.tell("map", addr, None, suspects, suspects);
    }
    // SAFETY: the segment made above.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
}

fn stack_and_heap(teller: &mut Teller) {
    let local = 0_u8;
    let page = (&raw const local as u64) & !(PAGE - 1);
    teller.protect(
        page,
        PAGE,
        RWX,
        "rw-",
        "write-exec,anon-exec,write-to-exec,stack-exec",
    );
    teller.protect(page, PAGE, RW, "rwx", "");

    let end = brk(0).next_multiple_of(PAGE);
    assert_eq!(brk(end + PAGE), end + PAGE);
    teller.tell("brk", end, None, "", "");
    teller.protect(end, PAGE, RX, "rw-", "anon-exec,write-to-exec,heap-exec");
    teller.protect(end, PAGE, RW, "r-x", "");
}

/// What may be read may be run, for programs of old: the arguments do not say so.
fn implied(teller: &mut Teller) {
    let area = teller.map(PAGE, RW, ANON, -1, "");
    // SAFETY: of this process alone, and nothing is allocated until it is undone.
    let before = unsafe { libc::personality(0xffff_ffff) };
    // SAFETY: as above.
    unsafe { libc::personality(libc::READ_IMPLIES_EXEC as libc::c_ulong) };
    let code = mmap(0, PAGE, R, ANON, -1, 0).unwrap();
    mprotect(area, PAGE, R).unwrap();
    // SAFETY: as above.
    unsafe { libc::personality(before as libc::c_ulong) };
    teller.tell("map", code, None, "anon-exec", "");
    let made = "anon-exec,write-to-exec";
    teller.tell("protect", area, Some("rw-"), made, "");
}

/// What failed made nothing.
fn refused(teller: &mut Teller) {
    let area = teller.map(2 * PAGE, RW, ANON, -1, "");
    let answer = mmap(area, PAGE, RWX, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0);
    teller.failed("map", area, answer, "EEXIST");
    munmap(area, 2 * PAGE).unwrap();
    teller.tell("unmap", area, None, "", "");
    teller.failed("protect", area, mprotect(area, PAGE, RWX), "ENOMEM");
}
