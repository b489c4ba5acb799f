//! The decoded event: what churn and the sinks see.
//!
//! A value that no hook saw is `None`. Bytes are bytes (never pages), times are
//! nanoseconds of the boot clock.

use std::{fmt, num::NonZeroU64, sync::Arc};

use mmwatch_common::{event::COMM_LEN, sums::made_and_removed};
pub use mmwatch_common::{
    event::{Backing, Cause, Op},
    suspect::{Suspect, Suspects},
};

use crate::{
    explain::Reason,
    flags::{Errno, MapFlags, Prot, RemapFlags, vm},
    identity::Who,
    text::Escaped,
};

/// One operation on one address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was done.
    pub boot_ns: u64,
    /// What brought it about.
    pub cause: Cause,
    /// Why it failed; `None` for success.
    pub errno: Option<Errno>,
    /// What is dangerous about what was made.
    pub suspects: Suspects,
    /// What is behind `errno`, where that can be told; filled in after decoding,
    /// which knows records only.
    pub reason: Option<Reason>,
    /// Whether the call's return was missed: then what it did is known, but not
    /// what it was asked to do and whether it failed.
    pub unreturned: bool,
    /// Whether another event of the same section follows.
    pub more: bool,
    /// Bytes of mappings that the process was allowed (`RLIMIT_AS`, its soft
    /// limit) when the call failed with `ENOMEM`; `u64::MAX` for no limit.
    pub rlimit_as_bytes: Option<u64>,
    /// Who did it.
    pub actor: Actor,
    /// Whose the process is; filled in after decoding, as `reason`.
    pub who: Option<Arc<Who>>,
    /// The address space afterwards.
    pub space: Space,
    /// What was done.
    pub what: What,
}

/// Who did it, as the kernel knew them at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Process, in the root namespace.
    pub tgid: u32,
    /// Thread, in the root namespace.
    pub tid: u32,
    /// Start of the process, ns of the boot clock.
    pub start_boot_ns: u64,
    /// Id of its cgroup in the hierarchy that counts; 0 where it is not known.
    pub cgroup_id: u64,
    /// Real user id in the root user namespace.
    pub uid: u32,
    /// Process that owns the address space; not `tgid` where processes share one.
    pub owner_tgid: u32,
    /// Name of the thread.
    pub comm: Comm,
}

/// Which address space: processes that share one share its id, and a process
/// that becomes another program gets another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId {
    /// Address of the `mm_struct`, which another address space may have later.
    pub mm: u64,
    /// When the kernel programs first met it, ns of the boot clock.
    pub born_boot_ns: u64,
}

/// The address space after the section that the operation was part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Which; `None` for an event without a section.
    pub id: Option<SpaceId>,
    /// Number of the section in this address space, from 1.
    pub section: Option<NonZeroU64>,
    /// Whether the values were read under the lock, hence are exact.
    pub settled: bool,
    /// Number of VMAs.
    pub vmas: Option<u32>,
    /// Bytes of all mappings.
    pub total_bytes: Option<u64>,
    /// Net change of `vmas` by the section.
    pub vmas_delta: Option<i32>,
    /// VMAs that the section removed, pieces after splitting counted.
    pub vmas_removed: Option<u32>,
    /// Net change of `total_bytes` by the section.
    pub total_delta_bytes: Option<i64>,
    /// How long the section held the lock for writing.
    pub held_ns: Option<u64>,
    /// Whether the address space changed without a section since the one before.
    pub drifted: bool,
}

impl Space {
    /// VMAs that the section made, and that it merged into others, where both
    /// its net change and what it removed are known.
    pub fn vmas_made_and_merged(&self) -> Option<(u64, u64)> {
        let removed = self.vmas_removed?;
        let (made, gone) = made_and_removed(self.vmas_delta?, removed);
        Some((made, gone - u64::from(removed)))
    }
}

/// The operation and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A mapping was made, or asked for and refused.
    Map(Map),
    /// Mappings were removed from a range.
    Unmap(Unmap),
    /// A range got another protection.
    Protect(Protect),
    /// A mapping was grown, shrunk or moved.
    Remap(Remap),
    /// The heap's end moved.
    Brk(Brk),
    /// A stack grew by a page fault.
    Grow(Grow),
    /// VMAs were split, merged or changed in place.
    Advise(Advise),
    /// A process was made; the actor is its parent.
    Fork(Fork),
    /// A process became another program.
    Exec(Exec),
    /// An address space ended; the actor is its owner.
    Exit(Exit),
}

/// Where an operation was, and how far it reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Start: the kernel's, or the caller's wish when the call failed.
    pub addr: Option<u64>,
    /// Bytes that the kernel really covered; 0 when the call failed.
    pub len_bytes: Option<u64>,
    /// Bytes that the caller asked for.
    pub requested_len_bytes: Option<u64>,
}

/// [`What::Map`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Where.
    pub range: Range,
    /// Protection.
    pub prot: Option<Prot>,
    /// Flags of the call.
    pub flags: Option<MapFlags>,
    /// `vm_flags_t` of the mapping.
    pub vm_flags: Option<u64>,
    /// What is mapped, and from which byte on.
    pub file: Option<(FileRef, u64)>,
}

/// [`What::Unmap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmap {
    /// Where; `len_bytes` is what was mapped there and no longer is.
    pub range: Range,
    /// Length of the range, whole pages, within which the kernel removed all
    /// that was mapped, and outside of which nothing; `None` when that is not
    /// known, or were several ranges.
    pub span_bytes: Option<u64>,
    /// VMAs removed, pieces after splitting counted.
    pub vmas_removed: Option<u32>,
}

/// [`What::Protect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protect {
    /// Where.
    pub range: Range,
    /// The new protection.
    pub prot: Option<Prot>,
    /// `rwx` before, of each VMA in the range.
    pub old_prot: Option<Prot>,
}

/// [`What::Remap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remap {
    /// Where the mapping is now.
    pub range: Range,
    /// Where it was.
    pub old_addr: Option<u64>,
    /// Its old length as asked for, whole pages.
    pub old_len_bytes: Option<u64>,
    /// Flags of the call.
    pub flags: Option<RemapFlags>,
}

/// [`What::Brk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brk {
    /// The range that was added or removed; see [`Space::total_delta_bytes`] for which.
    pub range: Range,
    /// The heap's end as asked for, an address.
    pub requested_addr: Option<u64>,
}

/// [`What::Grow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grow {
    /// Bytes by which the address space grew.
    pub len_bytes: u64,
}

/// [`What::Advise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advise {
    /// Where.
    pub range: Range,
    /// Third argument of the call: for [`Cause::Madvise`], a `MADV_*` value.
    pub advice: Option<u64>,
}

/// [`What::Fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Process id of the child in the root namespace.
    pub child_tgid: u32,
    /// Start of the child, ns of the boot clock.
    pub child_start_boot_ns: u64,
    /// Whether the child uses its parent's address space (vfork, `CLONE_VM`).
    pub shared: bool,
}

/// [`What::Exec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program.
    pub file: Option<FileRef>,
}

/// [`What::Exit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Bytes that were still mapped.
    pub len_bytes: u64,
    /// VMAs that were still there.
    pub vmas_removed: u32,
}

impl Event {
    /// Which operation it is.
    pub const fn op(&self) -> Op {
        match self.what {
            What::Map(_) => Op::Map,
            What::Unmap(_) => Op::Unmap,
            What::Protect(_) => Op::Protect,
            What::Remap(_) => Op::Remap,
            What::Brk(_) => Op::Brk,
            What::Grow(_) => Op::Grow,
            What::Advise(_) => Op::Advise,
            What::Fork(_) => Op::Fork,
            What::Exec(_) => Op::Exec,
            What::Exit(_) => Op::Exit,
        }
    }

    /// Where it was, for operations on a range.
    pub const fn range(&self) -> Range {
        match &self.what {
            What::Map(map) => map.range,
            What::Unmap(unmap) => unmap.range,
            What::Protect(protect) => protect.range,
            What::Remap(remap) => remap.range,
            What::Brk(brk) => brk.range,
            What::Advise(advise) => advise.range,
            What::Grow(Grow { len_bytes }) | What::Exit(Exit { len_bytes, .. }) => Range {
                addr: None,
                len_bytes: Some(*len_bytes),
                requested_len_bytes: None,
            },
            What::Fork(_) | What::Exec(_) => Range {
                addr: None,
                len_bytes: None,
                requested_len_bytes: None,
            },
        }
    }

    /// Bytes that it covered. Where no hook saw the range, the net change of
    /// the address space stands in for mappings made, removed or resized.
    pub fn covered_bytes(&self) -> Option<u64> {
        let net = self.space.total_delta_bytes.map(i64::unsigned_abs);
        match &self.what {
            What::Map(Map { range, .. })
            | What::Unmap(Unmap { range, .. })
            | What::Remap(Remap { range, .. })
            | What::Brk(Brk { range, .. }) => range.len_bytes.or(net),
            What::Protect(_)
            | What::Grow(_)
            | What::Advise(_)
            | What::Fork(_)
            | What::Exec(_)
            | What::Exit(_) => self.range().len_bytes,
        }
    }

    /// What the mapping's pages come from, where the event itself tells.
    pub fn backing(&self) -> Option<Backing> {
        match &self.what {
            What::Map(map) => map.backing(),
            What::Brk(_) | What::Grow(_) => Some(Backing::PrivateAnonymous),
            What::Unmap(_)
            | What::Protect(_)
            | What::Remap(_)
            | What::Advise(_)
            | What::Fork(_)
            | What::Exec(_)
            | What::Exit(_) => None,
        }
    }

    /// The file it was about.
    pub const fn file(&self) -> Option<&FileRef> {
        match &self.what {
            What::Map(Map {
                file: Some((file, _)),
                ..
            })
            | What::Exec(Exec { file: Some(file) }) => Some(file),
            What::Map(Map { file: None, .. })
            | What::Exec(Exec { file: None })
            | What::Unmap(_)
            | What::Protect(_)
            | What::Remap(_)
            | What::Brk(_)
            | What::Grow(_)
            | What::Advise(_)
            | What::Fork(_)
            | What::Exit(_) => None,
        }
    }

    /// Whether an address space ended because its process became another program.
    pub fn is_replaced_space(&self) -> bool {
        matches!(self.what, What::Exit(_)) && self.cause == Cause::Exec
    }

    /// Whether an address space ended, and its process with it.
    pub fn ends_process(&self) -> bool {
        matches!(self.what, What::Exit(_)) && self.cause != Cause::Exec
    }
}

impl Map {
    /// What the pages come from; `None` when no hook saw enough to tell.
    ///
    /// The call's flags go first. `file` alone would mislead: for a shared
    /// anonymous mapping the kernel makes a file of its own, late for
    /// `mmap_region`, early for huge pages.
    pub fn backing(&self) -> Option<Backing> {
        if self
            .vm_flags
            .is_some_and(|flags| flags & (vm::IO | vm::PFNMAP) != 0)
        {
            return Some(Backing::Special);
        }
        let shared = match self.flags.and_then(MapFlags::is_shared) {
            Some(shared) => shared,
            // As /proc/PID/maps decides on `s`: VM_SHARED alone is missing
            // where the file was opened for reading only.
            None => self.vm_flags? & (vm::SHARED | vm::MAYSHARE) != 0,
        };
        let anonymous = match self.flags {
            Some(flags) => flags.is_anonymous(),
            None => self.file.is_none(),
        };
        Some(Backing::of(shared, anonymous))
    }
}

/// Name of a thread. Shows itself escaped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Comm([u8; COMM_LEN]);

impl Comm {
    /// From the kernel's form, which ends at its first NUL.
    pub const fn new(bytes: [u8; COMM_LEN]) -> Self {
        Self(bytes)
    }

    /// The kernel's form.
    pub const fn bytes(&self) -> [u8; COMM_LEN] {
        self.0
    }

    /// The bytes of the name, which may be any but NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.as_bytes()).fmt(f)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A file, as `/proc/PID/maps` identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// Device of its file system.
    pub dev: Dev,
    /// Inode number.
    pub inode: u64,
    /// Tells apart two lives of one inode number.
    pub generation: u32,
    /// Path when the file was first met; starts with `.../` where its root-most
    /// part was too long to be sent. `None` when it is not known (any more).
    pub path: Option<Arc<str>>,
}

/// A device in the kernel's encoding. Shows itself as `maj:min` in hex, as
/// `/proc/PID/maps` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dev(pub u32);

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}", self.0 >> 20, self.0 & 0xf_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(flags: Option<u32>, vm_flags: Option<u64>, file: bool) -> Map {
        let file = file.then_some((
            FileRef {
                dev: Dev(0),
                inode: 1,
                generation: 0,
                path: None,
            },
            0,
        ));
        Map {
            range: Range::default(),
            prot: None,
            flags: flags.map(MapFlags),
            vm_flags,
            file,
        }
    }

    #[test]
    fn backing_follows_the_calls_flags() {
        use Backing::*;
        for (flags, file, want) in [
            (0x22, false, PrivateAnonymous),
            (0x21, false, SharedAnonymous),
            (0x02, true, PrivateFile),
            (0x01, true, SharedFile),
            (0x03, true, SharedFile),
            // The call failed before its file was found.
            (0x02, false, PrivateFile),
            // Anonymous huge pages sit in a file of the kernel's own.
            (0x4_0022, true, PrivateAnonymous),
        ] {
            assert_eq!(
                map(Some(flags), None, file).backing(),
                Some(want),
                "{flags:#x}"
            );
        }
    }

    #[test]
    fn backing_falls_back_to_vm_flags() {
        use Backing::*;
        for (vm_flags, file, want) in [
            (0x70, false, PrivateAnonymous),
            (0xf8, false, SharedAnonymous),
            (0x71, true, PrivateFile),
            (0xf9, true, SharedFile),
            // MAP_SHARED of a file opened for reading only.
            (0xd1, true, SharedFile),
            (0x4000_0000 | 0x400, true, Special),
        ] {
            assert_eq!(
                map(None, Some(vm_flags), file).backing(),
                Some(want),
                "{vm_flags:#x}"
            );
        }
    }

    #[test]
    fn backing_is_unknown_when_nothing_was_seen() {
        assert_eq!(map(None, None, true).backing(), None);
        // No type bits at all: a call that the kernel refuses.
        assert_eq!(map(Some(0x20), None, false).backing(), None);
    }

    #[test]
    fn the_net_change_stands_in_for_a_range_that_was_not_seen() {
        let mut event = crate::sample::bare(Op::Unmap);
        assert_eq!(event.covered_bytes(), None);
        event.space.total_delta_bytes = Some(-4096);
        assert_eq!(event.covered_bytes(), Some(4096));
        let mut seen = crate::sample::event(Op::Unmap);
        seen.space.total_delta_bytes = Some(0);
        assert_eq!(seen.covered_bytes(), Some(4096));
        let mut exec = crate::sample::bare(Op::Exec);
        exec.space.total_delta_bytes = Some(4096);
        assert_eq!(exec.covered_bytes(), None);
    }

    #[test]
    fn names_end_at_nul_and_show_no_control_characters() {
        let mut bytes = [0; COMM_LEN];
        bytes[..8].copy_from_slice(b"a\x1b[1m\0zz");
        assert_eq!(Comm::new(bytes).to_string(), r"a\x1b[1m");
        assert_eq!(
            Comm::new([b'x'; COMM_LEN]).to_string(),
            "x".repeat(COMM_LEN)
        );
        assert_eq!(Comm::new([0; COMM_LEN]).to_string(), "");
    }

    #[test]
    fn the_reference_explains_each_suspect() {
        let reference = include_str!("../../docs/events.md");
        for suspect in Suspect::ALL {
            let row = format!("| `{}` | {} |\n", suspect.name(), suspect.meaning());
            assert!(reference.contains(&row), "{row}");
        }
    }

    #[test]
    fn devices_read_as_in_proc_maps() {
        assert_eq!(Dev(8 << 20 | 1).to_string(), "08:01");
        assert_eq!(Dev(259 << 20 | 0x123).to_string(), "103:123");
    }
}
