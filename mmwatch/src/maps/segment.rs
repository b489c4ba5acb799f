//! The part that each mapping plays, told by its line of `/proc/PID/maps`, by
//! its neighbours, and by what else is known of the process.

use std::{fmt, ops::Range};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    FileKind, Vma,
    elf::{Elf, Part, Place},
};
use crate::{
    event::{Backing, Dev, Suspect, Suspects},
    flags::Prot,
    space::Line,
};

/// The part that a mapping plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A part of the program.
    Program(Part),
    /// Memory between the program's data and `brk`.
    Heap,
    /// The first thread's stack.
    Stack,
    /// Another thread's stack.
    ThreadStack,
    /// Nothing may be done here, so that what runs over its neighbour's end is caught.
    Guard,
    /// Nothing may be done here yet: addresses kept for later.
    Reserved,
    /// A part of ld.so.
    Interpreter(Part),
    /// A part of a library.
    Library(Part),
    /// The kernel's code for the program to call.
    Vdso,
    /// The kernel's data that the vDSO reads.
    Vvar,
    /// The vDSO's predecessor, at a fixed address.
    Vsyscall,
    /// Shared memory of System V, or of POSIX (`/dev/shm`).
    Shm,
    /// A file of `memfd_create`.
    Memfd,
    /// Huge pages that were asked for (`MAP_HUGETLB`, hugetlbfs).
    Hugetlb,
    /// A file, mapped as data.
    File,
    /// Anonymous memory of no other part.
    Anon,
    /// Anonymous memory that may be executed: compilers at run time put their code there.
    Jit,
    /// Memory of a device or of the kernel.
    Special,
}

impl Segment {
    /// Its name; that of all parts of libraries and of ld.so is one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Program(part) => part.name(),
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::ThreadStack => "thread-stack",
            Self::Guard => "guard",
            Self::Reserved => "reserved",
            Self::Interpreter(_) => "interpreter",
            Self::Library(_) => "library",
            Self::Vdso => "vdso",
            Self::Vvar => "vvar",
            Self::Vsyscall => "vsyscall",
            Self::Shm => "shm",
            Self::Memfd => "memfd",
            Self::Hugetlb => "hugetlb",
            Self::File => "file",
            Self::Anon => "anon",
            Self::Jit => "jit",
            Self::Special => "special",
        }
    }

    /// Which part of ld.so or of a library it is.
    pub const fn part(self) -> Option<Part> {
        match self {
            Self::Interpreter(part) | Self::Library(part) => Some(part),
            _ => None,
        }
    }
}

/// `heap`, `library:text`.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part() {
            Some(part) => f.pad(&format!("{}:{}", self.name(), part.name())),
            None => f.pad(self.name()),
        }
    }
}

/// How sure a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The kernel, the object's headers or the process itself say so.
    Known,
    /// It looks like it.
    Guessed,
}

impl Certainty {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Guessed => "guessed",
        }
    }
}

/// What a file is told by.
pub type FileId = (Dev, u64);

/// What a file is that code is mapped of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// An ELF object.
    Elf(Elf),
    /// Something else.
    Other,
    /// It could not be read.
    Unread,
}

/// What tells parts apart, beside the lines. Each may be unknown.
#[derive(Clone, Debug, Default)]
pub struct Clues {
    /// The files that code is mapped of, by [`code_files`].
    pub objects: FxHashMap<FileId, Object>,
    /// The program's path as the kernel has it.
    pub exe: Option<Vec<u8>>,
    /// Where the program starts (`AT_ENTRY`).
    pub entry: Option<u64>,
    /// Where ld.so was put (`AT_BASE`).
    pub interpreter: Option<u64>,
    /// Stack pointers of threads, in order.
    pub stack_pointers: Vec<u64>,
    /// Whether these are all threads that there are.
    pub all_threads: bool,
    /// Devices of hugetlbfs.
    pub hugetlbfs: Vec<Dev>,
    /// Bytes of a page.
    pub page_bytes: u64,
}

/// Files whose headers are wanted: those that code is mapped of. Each with a
/// line that maps it.
pub fn code_files<'l, 'a>(lines: &'l [Line<'a>]) -> Vec<(FileId, &'l Line<'a>)> {
    let mut met = FxHashSet::default();
    let code = lines
        .iter()
        .filter(|line| is_code(line) && met.insert(file_id(line)));
    code.map(|line| (file_id(line), line)).collect()
}

fn is_code(line: &Line<'_>) -> bool {
    line.prot.0 & EXECUTE != 0 && !line.shared && line.has_file() && line.name.starts_with(b"/")
}

const fn file_id(line: &Line<'_>) -> FileId {
    (line.dev, line.inode)
}

const EXECUTE: u32 = 4;

/// A larger area without any permission is kept for later rather than a guard.
const MAX_GUARD_BYTES: u64 = 1 << 20;

/// An object at its place: it was mapped once for each of them.
struct Image<'a> {
    span: Range<u64>,
    file: FileId,
    bias: u64,
    path: &'a [u8],
    owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Program,
    Interpreter,
    Library,
}

impl Owner {
    const fn segment(self, part: Part) -> Segment {
        match self {
            Self::Program => Segment::Program(part),
            Self::Interpreter => Segment::Interpreter(part),
            Self::Library => Segment::Library(part),
        }
    }
}

/// What was found out about a line.
struct Verdict<'a> {
    segment: Segment,
    certainty: Certainty,
    object: Option<&'a [u8]>,
}

impl Verdict<'_> {
    const fn known(segment: Segment) -> Self {
        Self {
            segment,
            certainty: Certainty::Known,
            object: None,
        }
    }

    const fn guessed(segment: Segment) -> Self {
        Self {
            segment,
            certainty: Certainty::Guessed,
            object: None,
        }
    }
}

/// Gives every line its segment and its backing. Lines are in the order of
/// their addresses.
pub fn classify<'a>(lines: Vec<Line<'a>>, clues: &Clues) -> Vec<Vma<'a>> {
    let images = images(&lines, clues);
    let verdicts: Vec<_> = (0..lines.len())
        .map(|at| verdict(&lines, at, &images, clues))
        .collect();
    let after: Vec<_> = (0..lines.len())
        .map(|at| {
            let next = lines.get(at + 1)?;
            (next.range.start == lines[at].range.end).then(|| &verdicts[at + 1])
        })
        .map(|next| next.map(|next| (next.segment, next.certainty)))
        .collect();
    let vmas = lines.into_iter().zip(verdicts).zip(after);
    vmas.map(|((line, verdict), after)| {
        let (segment, certainty) = match (verdict.segment, after) {
            // What lies directly below a stack is there for its sake.
            (Segment::Guard, Some((Segment::ThreadStack, certainty))) => {
                (Segment::Guard, certainty)
            }
            (segment, _) => (segment, verdict.certainty),
        };
        Vma {
            backing: backing(&line, segment),
            line,
            segment,
            certainty,
            object: verdict.object,
            residency: None,
            lives: Vec::new(),
        }
    })
    .collect()
}

/// Where objects are, in the order of their addresses.
fn images<'a>(lines: &[Line<'a>], clues: &Clues) -> Vec<Image<'a>> {
    let mut met = FxHashSet::default();
    let mut images = Vec::new();
    for line in lines.iter().filter(|line| is_code(line)) {
        let file = file_id(line);
        let Some(Object::Elf(elf)) = clues.objects.get(&file) else {
            continue;
        };
        let Some(bias) = elf.bias(line.range.start, line.offset) else {
            continue;
        };
        if !met.insert((file, bias)) {
            continue;
        }
        let span = elf.span();
        let span = span.start.wrapping_add(bias)..span.end.wrapping_add(bias);
        let covers = |addr: Option<u64>| addr.is_some_and(|addr| span.contains(&addr));
        let owner = if covers(clues.entry) {
            Owner::Program
        } else if covers(clues.interpreter) {
            Owner::Interpreter
        } else if clues.entry.is_none() && is_exe(line, clues) {
            Owner::Program
        } else {
            Owner::Library
        };
        images.push(Image {
            span,
            file,
            bias,
            path: line.name,
            owner,
        });
    }
    images.sort_by_key(|image| image.span.start);
    images
}

fn is_exe(line: &Line<'_>, clues: &Clues) -> bool {
    clues.exe.as_deref() == Some(line.name)
}

fn image_at<'i, 'a>(images: &'i [Image<'a>], addr: u64) -> Option<&'i Image<'a>> {
    let after = images.partition_point(|image| image.span.start <= addr);
    images[..after].last().filter(|image| addr < image.span.end)
}

fn verdict<'a>(lines: &[Line<'a>], at: usize, images: &[Image<'a>], clues: &Clues) -> Verdict<'a> {
    let line = &lines[at];
    if let Some(segment) = named_by_kernel(line) {
        return Verdict::known(segment);
    }
    if let Some(verdict) = of_image(line, images, clues) {
        return verdict;
    }
    if let Some(verdict) = of_file(line, clues) {
        return verdict;
    }
    of_memory(lines, at, clues)
}

/// Names in brackets that mean one thing.
fn named_by_kernel(line: &Line<'_>) -> Option<Segment> {
    Some(match line.name {
        b"[heap]" => Segment::Heap,
        b"[stack]" => Segment::Stack,
        b"[vdso]" => Segment::Vdso,
        b"[vsyscall]" => Segment::Vsyscall,
        name if name.starts_with(b"[vvar") => Segment::Vvar,
        name if name.starts_with(b"[anon") => return None,
        name if name.starts_with(b"[") => Segment::Special,
        _ => return None,
    })
}

/// A part of an object that is mapped to where its headers want it.
fn of_image<'a>(line: &Line<'a>, images: &[Image<'a>], clues: &Clues) -> Option<Verdict<'a>> {
    let image = image_at(images, line.range.start)?;
    let Object::Elf(elf) = clues.objects.get(&image.file)? else {
        return None;
    };
    let range = line.range.start.wrapping_sub(image.bias)..line.range.end.wrapping_sub(image.bias);
    let writable = line.prot.is_writable();
    let place = if line.has_file() {
        if file_id(line) != image.file {
            return None;
        }
        elf.place_of_file(&range, line.offset, writable)?
    } else {
        elf.place_of_memory(&range, writable)?
    };
    let (segment, certainty) = match place {
        Place::Part(part) => (image.owner.segment(part), Certainty::Known),
        Place::Begins(part) => (image.owner.segment(part), Certainty::Guessed),
        Place::Hole if line.prot == Prot(0) => (Segment::Guard, Certainty::Known),
        Place::Hole => return None,
    };
    Some(Verdict {
        segment,
        certainty,
        object: Some(image.path),
    })
}

/// A file, or what the kernel has a file for.
fn of_file<'a>(line: &Line<'a>, clues: &Clues) -> Option<Verdict<'a>> {
    let (kind, certainty) = FileKind::of(line, &clues.hugetlbfs)?;
    let segment = match kind {
        FileKind::Anonymous => return None,
        FileKind::SysvShm | FileKind::PosixShm => Segment::Shm,
        FileKind::Memfd => Segment::Memfd,
        FileKind::Hugetlb => Segment::Hugetlb,
        FileKind::Device | FileKind::Special => Segment::Special,
        FileKind::File => return Some(of_object(line, clues)),
    };
    Some(Verdict {
        segment,
        certainty,
        object: None,
    })
}

/// A file that is where no headers want it, or whose headers are not known.
fn of_object<'a>(line: &Line<'a>, clues: &Clues) -> Verdict<'a> {
    match clues.objects.get(&file_id(line)) {
        Some(Object::Unread) if !line.shared => {
            let part = match (line.prot.0 & EXECUTE != 0, line.prot.is_writable()) {
                (true, _) => Part::Text,
                (false, true) => Part::Data,
                (false, false) => Part::Rodata,
            };
            let covers = |addr: Option<u64>| addr.is_some_and(|addr| line.range.contains(&addr));
            let owner = if is_exe(line, clues) || covers(clues.entry) {
                Owner::Program
            } else if covers(clues.interpreter) {
                Owner::Interpreter
            } else {
                Owner::Library
            };
            Verdict {
                segment: owner.segment(part),
                certainty: Certainty::Guessed,
                object: Some(line.name),
            }
        }
        Some(_) | None => Verdict::known(Segment::File),
    }
}

/// Anonymous memory, by its permissions and its neighbours.
fn of_memory<'a>(lines: &[Line<'a>], at: usize, clues: &Clues) -> Verdict<'a> {
    let line = &lines[at];
    if is_named_stack(line.name) {
        return Verdict::known(Segment::ThreadStack);
    }
    if line.prot == Prot(0) {
        return if line.shared || line.size_bytes() > MAX_GUARD_BYTES {
            Verdict::guessed(Segment::Reserved)
        } else {
            Verdict::guessed(Segment::Guard)
        };
    }
    let below = at.checked_sub(1).map(|below| &lines[below]);
    let below = below.filter(|below| {
        below.range.end == line.range.start
            && below.prot == Prot(0)
            && !below.shared
            && !below.has_file()
    });
    if !line.shared && line.prot.is_writable() {
        match (has_stack_pointer(&line.range, clues), below) {
            (true, Some(_)) => return Verdict::known(Segment::ThreadStack),
            (true, None) => return Verdict::guessed(Segment::ThreadStack),
            (false, Some(below)) if !clues.all_threads && below.size_bytes() <= MAX_GUARD_BYTES => {
                return Verdict::guessed(Segment::ThreadStack);
            }
            (false, _) => {}
        }
    }
    if line.prot.0 & EXECUTE != 0 {
        return Verdict::guessed(Segment::Jit);
    }
    Verdict::known(Segment::Anon)
}

/// Names that C libraries give to stacks of threads, where they are told to:
/// glibc (`glibc.mem.decorate_maps`) and bionic.
fn is_named_stack(name: &[u8]) -> bool {
    name.starts_with(b"[anon: glibc: thread stack") || name.starts_with(b"[anon:stack_and_tls")
}

fn has_stack_pointer(range: &Range<u64>, clues: &Clues) -> bool {
    let pointers = &clues.stack_pointers;
    let at = pointers.partition_point(|&pointer| pointer < range.start);
    pointers.get(at).is_some_and(|&pointer| pointer < range.end)
}

/// What to say of what is behind a mapping where it is executable.
pub(super) fn behind(line: &Line<'_>) -> Suspects {
    if FileKind::is_anonymous(line) {
        return Suspects::only(Suspect::AnonExec);
    }
    match FileKind::of(line, &[]) {
        Some((FileKind::Memfd, _)) => Suspects::only(Suspect::MemfdExec),
        _ => Suspects::when(line.name.ends_with(b" (deleted)"), Suspect::DeletedExec),
    }
}

/// What a line's pages come from, told without a look at the process: the same
/// as [`classify`] says, but for huge pages mounted among the devices.
pub fn backing_of(line: &Line<'_>) -> Backing {
    let of_file = || match FileKind::of(line, &[])?.0 {
        FileKind::Device | FileKind::Special => Some(Segment::Special),
        _ => None,
    };
    let segment = named_by_kernel(line).or_else(of_file);
    backing(line, segment.unwrap_or(Segment::Anon))
}

fn backing(line: &Line<'_>, segment: Segment) -> Backing {
    match segment {
        Segment::Vdso | Segment::Vvar | Segment::Vsyscall | Segment::Special => Backing::Special,
        _ => Backing::of(line.shared, FileKind::is_anonymous(line)),
    }
}

#[cfg(test)]
mod tests;
