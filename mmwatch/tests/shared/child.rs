//! Processes that share memory, until their input ends.

use std::{
    env,
    ffi::CString,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    process::{Command, Stdio},
    ptr,
};

/// A page, in bytes.
const PAGE: usize = 4096;

/// Does what the first word says, tells that it is ready and with which
/// numbers, and waits for the end of its input.
///
/// - `file PATH (PERM PAGE PAGES)…` maps parts of a file
/// - `sysv new|SHMID PERM` attaches a segment of two pages; tells its `shmid`
/// - `posix NAME` maps two pages of shared memory of this name
/// - `memfd NAME` maps a file of memfd_create(2), and starts a process that maps
///   the second page of it to be read; tells its id and the descriptor
/// - `fd NUMBER PERM PAGE PAGES` maps what is open already
/// - `fork` maps three pages of shared anonymous memory and forks; tells the id
pub fn main(words: &[String]) {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let told = match words.as_slice() {
        ["file", path, parts @ ..] => {
            let file = File::options().read(true).write(true).open(path).unwrap();
            for part in parts.chunks(3) {
                map(file.as_raw_fd(), part[0], number(part[1]), number(part[2]));
            }
            String::new()
        }
        ["sysv", id, perm] => attach(id, perm),
        ["posix", name] => {
            posix(name);
            String::new()
        }
        ["memfd", name] => return memfd(name),
        ["fd", fd, perm, page, pages] => {
            map(fd.parse().unwrap(), perm, number(page), number(pages));
            String::new()
        }
        ["fork"] => {
            map(-1, "rw-s", 0, 3);
            // SAFETY: there is one thread, so the child may do what it likes.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork");
            if child == 0 {
                wait();
                return;
            }
            format!(" {child}")
        }
        other => panic!("{other:?}"),
    };
    println!("ready{told}");
    wait();
}

fn wait() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

fn number(word: &str) -> usize {
    word.parse().unwrap()
}

/// Maps pages of a file, -1 for anonymous memory, with permissions as
/// `/proc/PID/maps` has them.
fn map(fd: RawFd, perm: &str, page: usize, pages: usize) {
    let bit = |letter, bit| if perm.contains(letter) { bit } else { 0 };
    let prot = bit('r', libc::PROT_READ) | bit('w', libc::PROT_WRITE);
    let kind = bit('s', libc::MAP_SHARED) | bit('p', libc::MAP_PRIVATE);
    let anonymous = if fd < 0 { libc::MAP_ANONYMOUS } else { 0 };
    let offset = libc::off_t::try_from(page * PAGE).unwrap();
    // Between pages without any permission, so that neighbours do not touch.
    // SAFETY: it takes unused addresses, which nothing else refers to.
    let room = unsafe {
        let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(
            ptr::null_mut(),
            (pages + 2) * PAGE,
            libc::PROT_NONE,
            none,
            -1,
            0,
        )
    };
    assert_ne!(room, libc::MAP_FAILED);
    let addr = room.wrapping_byte_add(PAGE);
    // SAFETY: the addresses are those of the room above.
    let got = unsafe {
        let flags = kind | anonymous | libc::MAP_FIXED;
        libc::mmap(addr, pages * PAGE, prot, flags, fd, offset)
    };
    assert_eq!(got, addr, "{}", io::Error::last_os_error());
}

fn attach(id: &str, perm: &str) -> String {
    let id = match id {
        // SAFETY: shmget takes numbers.
        "new" => unsafe { libc::shmget(libc::IPC_PRIVATE, 2 * PAGE, 0o600) },
        id => id.parse().unwrap(),
    };
    assert!(id >= 0, "shmget: {}", io::Error::last_os_error());
    let flags = if perm.contains('w') {
        0
    } else {
        libc::SHM_RDONLY
    };
    // SAFETY: it takes unused addresses, which nothing else refers to.
    let addr = unsafe { libc::shmat(id, ptr::null(), flags) };
    assert_ne!(addr, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    format!(" {id}")
}

/// Marks a segment to go with its last user.
pub fn remove_segment(id: i32) {
    // SAFETY: IPC_RMID takes no pointer.
    let result = unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn posix(name: &str) {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is a string of C.
    let fd = unsafe { libc::shm_open(name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600) };
    assert!(fd >= 0, "shm_open: {}", io::Error::last_os_error());
    // SAFETY: nobody else has this descriptor.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(2 * PAGE as u64).unwrap();
    map(file.as_raw_fd(), "rw-s", 0, 2);
}

fn memfd(name: &str) {
    let name = CString::new(name).unwrap();
    // Without MFD_CLOEXEC, it is passed on at exec.
    // SAFETY: the name is a string of C.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), 0) };
    assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
    // SAFETY: nobody else has this descriptor.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(2 * PAGE as u64).unwrap();
    map(fd, "rw-s", 0, 2);

    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["child", "fd", &fd.to_string(), "r--s", "1", "1"]);
    // The input is this process's own, whose end is that of both.
    let mut passed_to = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    let mut out = BufReader::new(passed_to.stdout.take().unwrap());
    assert_ne!(out.read_line(&mut ready).unwrap(), 0);
    println!("ready {} {fd}", passed_to.id());
    passed_to.wait().unwrap();
}
