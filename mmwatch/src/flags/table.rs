//! The flags of the calls that change an address space, as data: all decoding,
//! and `mmwatch flags`, read them here.
//!
//! Values are those of x86-64, the only architecture that mmwatch runs on;
//! where another one has another value, it stands beside it.

use super::{
    MAP_ANONYMOUS, MAP_DROPPABLE, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_HUGE_MASK, MAP_HUGE_SHIFT,
    MAP_HUGETLB, MAP_NORESERVE, MAP_TYPE, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE,
    PROT_EXEC, PROT_GROWSDOWN, PROT_GROWSUP, PROT_READ, PROT_WRITE, vm,
};

/// The architecture that mmwatch runs on, and whose values these are.
pub const ARCH: &str = "x86-64";

/// One argument of some calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Argument {
    /// What `mmwatch flags` calls it.
    pub name: &'static str,
    /// Of which calls, or of what else.
    pub of: &'static str,
    /// All that it can have, in the order in which it is shown.
    pub flags: &'static [Flag],
}

/// One flag, or one value of several that exclude each other.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// What the kernel's headers call it.
    pub name: &'static str,
    /// What the bits of `mask` are.
    pub value: u64,
    /// The bits that say whether it is there.
    pub mask: u64,
    /// Bits that tell whether it can be there, and what they must be.
    pub only_if: (u64, u64),
    /// The architecture that alone has it, and where `value` is its.
    pub only_on: Option<&'static str>,
    /// Architectures that have another value for it.
    pub elsewhere: &'static [(&'static str, u64)],
    /// What it does.
    pub meaning: &'static str,
}

impl Flag {
    /// A single bit.
    const fn bit(name: &'static str, value: u64, meaning: &'static str) -> Self {
        Self::choice(value, name, value, meaning)
    }

    /// One value of the bits of `mask`.
    const fn choice(mask: u64, name: &'static str, value: u64, meaning: &'static str) -> Self {
        Self {
            name,
            value,
            mask,
            only_if: (0, 0),
            only_on: None,
            elsewhere: &[],
            meaning,
        }
    }

    /// The argument as a whole.
    const fn whole(name: &'static str, value: u64, meaning: &'static str) -> Self {
        Self::choice(u64::MAX, name, value, meaning)
    }

    /// The size of a huge page, in the top six bits of 32.
    const fn huge(name: &'static str, log: u64, meaning: &'static str) -> Self {
        Self {
            only_if: (MAP_HUGETLB, MAP_HUGETLB),
            ..Self::choice(
                MAP_HUGE_MASK << MAP_HUGE_SHIFT,
                name,
                log << MAP_HUGE_SHIFT,
                meaning,
            )
        }
    }

    const fn only_if(self, mask: u64, value: u64) -> Self {
        Self {
            only_if: (mask, value),
            ..self
        }
    }

    const fn only_on(self, arch: &'static str) -> Self {
        Self {
            only_on: Some(arch),
            ..self
        }
    }

    const fn elsewhere(self, elsewhere: &'static [(&'static str, u64)]) -> Self {
        Self { elsewhere, ..self }
    }

    /// Whether it is one of this architecture's.
    pub fn is_here(&self) -> bool {
        self.only_on.is_none_or(|arch| arch == ARCH)
    }
}

/// Every argument, in the order in which `mmwatch flags` shows them.
pub static ARGUMENTS: [&Argument; 7] = [&PROT, &MAP, &MREMAP, &MADVISE, &MLOCK2, &MLOCKALL, &VM];

/// `PROT_*`.
pub static PROT: Argument = Argument {
    name: "prot",
    of: "mmap(2), mprotect(2), pkey_mprotect(2): prot",
    flags: &[
        Flag::choice(u64::MAX, "PROT_NONE", 0, "no access at all"),
        Flag::bit("PROT_READ", PROT_READ, "may be read"),
        Flag::bit("PROT_WRITE", PROT_WRITE, "may be written to"),
        Flag::bit("PROT_EXEC", PROT_EXEC, "may be executed"),
        Flag::bit("PROT_SEM", 0x8, "may hold semaphores; does nothing")
            .elsewhere(&[("mips, xtensa", 0x10)]),
        Flag::bit("PROT_BTI", 0x10, "indirect branches must land on a BTI").only_on("arm64"),
        Flag::bit("PROT_MTE", 0x20, "memory tags are checked").only_on("arm64"),
        Flag::bit("PROT_SAO", 0x10, "strong access ordering").only_on("powerpc"),
        Flag::bit(
            "PROT_ADI",
            0x10,
            "application data integrity: tags are checked",
        )
        .only_on("sparc"),
        Flag::bit(
            "PROT_GROWSDOWN",
            PROT_GROWSDOWN,
            "mprotect: down to the start of a stack",
        ),
        Flag::bit(
            "PROT_GROWSUP",
            PROT_GROWSUP,
            "mprotect: up to the end of what grows upwards",
        ),
    ],
};

/// `MAP_*`.
pub static MAP: Argument = Argument {
    name: "map",
    of: "mmap(2): flags",
    flags: &[
        Flag::choice(
            u64::MAX,
            "MAP_FILE",
            0,
            "nothing: a file is what is mapped without MAP_ANONYMOUS",
        ),
        Flag::choice(
            MAP_TYPE,
            "MAP_SHARED",
            0x1,
            "writes reach the file and all who map it",
        ),
        Flag::choice(
            MAP_TYPE,
            "MAP_PRIVATE",
            0x2,
            "writes go to a copy of the process's own",
        ),
        Flag::choice(
            MAP_TYPE,
            "MAP_SHARED_VALIDATE",
            0x3,
            "MAP_SHARED, and unknown flags are refused",
        ),
        Flag::choice(
            MAP_TYPE,
            "MAP_DROPPABLE",
            MAP_DROPPABLE,
            "private, zeroed when memory is short (6.11)",
        ),
        Flag::bit(
            "MAP_FIXED",
            MAP_FIXED,
            "exactly there; what is mapped there makes way",
        )
        .elsewhere(&[("alpha", 0x100), ("parisc", 0x4)]),
        Flag::bit("MAP_ANONYMOUS", MAP_ANONYMOUS, "of no file: zeroed memory")
            .elsewhere(&[("alpha, parisc", 0x10), ("mips, xtensa", 0x800)]),
        Flag::bit("MAP_32BIT", 0x40, "in the first 2 GiB of addresses").only_on(ARCH),
        Flag::bit(
            "MAP_ABOVE4G",
            0x80,
            "not in the first 4 GiB of addresses (6.6)",
        )
        .only_on(ARCH),
        Flag::bit(
            "MAP_GROWSDOWN",
            0x100,
            "grows downwards when touched below, as a stack",
        )
        .elsewhere(&[
            ("alpha, mips, xtensa", 0x1000),
            ("parisc", 0x8000),
            ("sparc", 0x200),
        ]),
        Flag::bit(
            "MAP_DENYWRITE",
            0x800,
            "ignored; writers of the file once got ETXTBSY",
        )
        .elsewhere(&[("alpha, mips, xtensa", 0x2000)]),
        Flag::bit("MAP_EXECUTABLE", 0x1000, "ignored; once marked programs")
            .elsewhere(&[("alpha, mips, xtensa", 0x4000)]),
        Flag::bit(
            "MAP_LOCKED",
            0x2000,
            "locked in memory as by mlock(2), and populated",
        )
        .elsewhere(&[
            ("alpha, mips, xtensa", 0x8000),
            ("powerpc", 0x80),
            ("sparc", 0x100),
        ]),
        Flag::bit(
            "MAP_NORESERVE",
            MAP_NORESERVE,
            "no memory is set aside for it",
        )
        .elsewhere(&[
            ("alpha", 0x1_0000),
            ("mips, xtensa", 0x400),
            ("powerpc, sparc", 0x40),
        ]),
        Flag::bit(
            "MAP_POPULATE",
            0x8000,
            "page tables are filled at once: no faults later",
        )
        .elsewhere(&[("alpha", 0x2_0000), ("mips, parisc, xtensa", 0x1_0000)]),
        Flag::bit(
            "MAP_NONBLOCK",
            0x1_0000,
            "with MAP_POPULATE: nothing is read; it does nothing",
        )
        .elsewhere(&[("alpha", 0x4_0000), ("mips, parisc, xtensa", 0x2_0000)]),
        Flag::bit(
            "MAP_STACK",
            0x2_0000,
            "for a stack; keeps huge pages away since 6.7",
        )
        .elsewhere(&[("alpha", 0x8_0000), ("mips, parisc, xtensa", 0x4_0000)]),
        Flag::bit(
            "MAP_HUGETLB",
            MAP_HUGETLB,
            "of huge pages from the reserved pool",
        )
        .elsewhere(&[("alpha", 0x10_0000), ("mips, parisc, xtensa", 0x8_0000)]),
        Flag::bit(
            "MAP_SYNC",
            0x8_0000,
            "persistent memory: file metadata is safe at each fault",
        ),
        Flag::bit(
            "MAP_FIXED_NOREPLACE",
            MAP_FIXED_NOREPLACE,
            "exactly there, or EEXIST: nothing makes way",
        )
        .elsewhere(&[("alpha", 0x20_0000)]),
        Flag::bit(
            "MAP_UNINITIALIZED",
            0x400_0000,
            "not zeroed; only kernels without an MMU heed it",
        )
        .only_if(MAP_HUGETLB, 0)
        .elsewhere(&[("parisc", 0)]),
        Flag::huge("MAP_HUGE_16KB", 14, "with MAP_HUGETLB: pages of 16 KiB"),
        Flag::huge("MAP_HUGE_64KB", 16, "with MAP_HUGETLB: pages of 64 KiB"),
        Flag::huge("MAP_HUGE_512KB", 19, "with MAP_HUGETLB: pages of 512 KiB"),
        Flag::huge("MAP_HUGE_1MB", 20, "with MAP_HUGETLB: pages of 1 MiB"),
        Flag::huge("MAP_HUGE_2MB", 21, "with MAP_HUGETLB: pages of 2 MiB"),
        Flag::huge("MAP_HUGE_8MB", 23, "with MAP_HUGETLB: pages of 8 MiB"),
        Flag::huge("MAP_HUGE_16MB", 24, "with MAP_HUGETLB: pages of 16 MiB"),
        Flag::huge("MAP_HUGE_32MB", 25, "with MAP_HUGETLB: pages of 32 MiB"),
        Flag::huge("MAP_HUGE_256MB", 28, "with MAP_HUGETLB: pages of 256 MiB"),
        Flag::huge("MAP_HUGE_512MB", 29, "with MAP_HUGETLB: pages of 512 MiB"),
        Flag::huge("MAP_HUGE_1GB", 30, "with MAP_HUGETLB: pages of 1 GiB"),
        Flag::huge("MAP_HUGE_2GB", 31, "with MAP_HUGETLB: pages of 2 GiB"),
        Flag::huge("MAP_HUGE_16GB", 34, "with MAP_HUGETLB: pages of 16 GiB"),
    ],
};

/// `MREMAP_*`.
pub static MREMAP: Argument = Argument {
    name: "mremap",
    of: "mremap(2): flags",
    flags: &[
        Flag::bit("MREMAP_MAYMOVE", MREMAP_MAYMOVE, "may get another address"),
        Flag::bit(
            "MREMAP_FIXED",
            MREMAP_FIXED,
            "to exactly that address; what is there makes way",
        ),
        Flag::bit(
            "MREMAP_DONTUNMAP",
            MREMAP_DONTUNMAP,
            "the old range stays mapped, empty (5.7)",
        ),
    ],
};

/// `MADV_*`.
pub static MADVISE: Argument = Argument {
    name: "madvise",
    of: "madvise(2), process_madvise(2): advice",
    flags: &[
        Flag::whole("MADV_NORMAL", 0, "read-ahead as usual"),
        Flag::whole("MADV_RANDOM", 1, "read at random: no read-ahead"),
        Flag::whole(
            "MADV_SEQUENTIAL",
            2,
            "read in order: much read-ahead, soon forgotten",
        ),
        Flag::whole("MADV_WILLNEED", 3, "needed soon: read it now"),
        Flag::whole(
            "MADV_DONTNEED",
            4,
            "pages are dropped; anonymous ones read as zeroes then",
        )
        .elsewhere(&[("alpha", 6)]),
        Flag::whole(
            "MADV_SPACEAVAIL",
            5,
            "make sure that there is room; refused",
        )
        .only_on("alpha"),
        Flag::whole(
            "MADV_FREE",
            8,
            "pages may be dropped when memory is short, unless written again",
        ),
        Flag::whole(
            "MADV_REMOVE",
            9,
            "pages are dropped and a hole is punched into the file",
        ),
        Flag::whole("MADV_DONTFORK", 10, "children do not get it"),
        Flag::whole("MADV_DOFORK", 11, "undoes MADV_DONTFORK"),
        Flag::whole("MADV_MERGEABLE", 12, "KSM may merge equal pages"),
        Flag::whole(
            "MADV_UNMERGEABLE",
            13,
            "undoes MADV_MERGEABLE, and unmerges",
        ),
        Flag::whole("MADV_HUGEPAGE", 14, "transparent huge pages are welcome"),
        Flag::whole("MADV_NOHUGEPAGE", 15, "no transparent huge pages"),
        Flag::whole("MADV_DONTDUMP", 16, "left out of core dumps"),
        Flag::whole("MADV_DODUMP", 17, "undoes MADV_DONTDUMP"),
        Flag::whole("MADV_WIPEONFORK", 18, "children get it zeroed"),
        Flag::whole("MADV_KEEPONFORK", 19, "undoes MADV_WIPEONFORK"),
        Flag::whole(
            "MADV_COLD",
            20,
            "among the first to go when memory is short (5.4)",
        ),
        Flag::whole("MADV_PAGEOUT", 21, "goes to swap or to its file now (5.4)"),
        Flag::whole(
            "MADV_POPULATE_READ",
            22,
            "page tables are filled for reading (5.14)",
        ),
        Flag::whole(
            "MADV_POPULATE_WRITE",
            23,
            "page tables are filled for writing (5.14)",
        ),
        Flag::whole(
            "MADV_DONTNEED_LOCKED",
            24,
            "MADV_DONTNEED, of locked pages too (5.18)",
        ),
        Flag::whole(
            "MADV_COLLAPSE",
            25,
            "becomes transparent huge pages now (6.1)",
        ),
        Flag::whole("MADV_HWPOISON", 100, "treat a page as broken, for tests"),
        Flag::whole(
            "MADV_SOFT_OFFLINE",
            101,
            "move a page elsewhere and use it no more, for tests",
        ),
        Flag::whole(
            "MADV_GUARD_INSTALL",
            102,
            "guard pages: touching them is SIGSEGV (6.13)",
        ),
        Flag::whole("MADV_GUARD_REMOVE", 103, "undoes MADV_GUARD_INSTALL (6.13)"),
    ],
};

/// `MLOCK_*`.
pub static MLOCK2: Argument = Argument {
    name: "mlock2",
    of: "mlock2(2): flags",
    flags: &[Flag::bit(
        "MLOCK_ONFAULT",
        0x1,
        "each page is locked when first touched",
    )],
};

/// `MCL_*`.
pub static MLOCKALL: Argument = Argument {
    name: "mlockall",
    of: "mlockall(2): flags",
    flags: &[
        Flag::bit("MCL_CURRENT", 0x1, "all that is mapped now")
            .elsewhere(&[("alpha, powerpc, sparc", 0x2000)]),
        Flag::bit("MCL_FUTURE", 0x2, "all that will be mapped")
            .elsewhere(&[("alpha, powerpc, sparc", 0x4000)]),
        Flag::bit("MCL_ONFAULT", 0x4, "each page is locked when first touched")
            .elsewhere(&[("alpha, powerpc, sparc", 0x8000)]),
    ],
};

/// `VM_*`: the kernel's own, whose upper half moves from kernel to kernel.
pub static VM: Argument = Argument {
    name: "vm",
    of: "vm_flags of a mapping in the kernel, by the newest kernels",
    flags: &[
        Flag::bit("VM_READ", 0x1, "may be read"),
        Flag::bit("VM_WRITE", 0x2, "may be written to"),
        Flag::bit("VM_EXEC", 0x4, "may be executed"),
        Flag::bit(
            "VM_SHARED",
            vm::SHARED,
            "writes reach the other mappings of the pages",
        ),
        Flag::bit("VM_MAYREAD", 0x10, "mprotect may add PROT_READ"),
        Flag::bit("VM_MAYWRITE", 0x20, "mprotect may add PROT_WRITE"),
        Flag::bit("VM_MAYEXEC", 0x40, "mprotect may add PROT_EXEC"),
        Flag::bit(
            "VM_MAYSHARE",
            vm::MAYSHARE,
            "mapped with MAP_SHARED, even where writing is not allowed",
        ),
        Flag::bit(
            "VM_GROWSDOWN",
            0x100,
            "a stack: grows downwards when touched below",
        ),
        Flag::bit(
            "VM_UFFD_MISSING",
            0x200,
            "userfaultfd is told of missing pages",
        ),
        Flag::bit("VM_PFNMAP", vm::PFNMAP, "page frames without a struct page"),
        Flag::bit(
            "VM_MAYBE_GUARD",
            0x800,
            "may have guard pages; in 5.10 to 5.14 VM_DENYWRITE",
        ),
        Flag::bit("VM_UFFD_WP", 0x1000, "userfaultfd is told of writes"),
        Flag::bit("VM_LOCKED", 0x2000, "locked in memory"),
        Flag::bit("VM_IO", vm::IO, "device memory"),
        Flag::bit("VM_SEQ_READ", 0x8000, "MADV_SEQUENTIAL"),
        Flag::bit("VM_RAND_READ", 0x1_0000, "MADV_RANDOM"),
        Flag::bit("VM_DONTCOPY", 0x2_0000, "children do not get it"),
        Flag::bit("VM_DONTEXPAND", 0x4_0000, "mremap cannot make it longer"),
        Flag::bit(
            "VM_LOCKONFAULT",
            0x8_0000,
            "each page is locked when first touched",
        ),
        Flag::bit("VM_ACCOUNT", 0x10_0000, "counts as committed memory"),
        Flag::bit("VM_NORESERVE", 0x20_0000, "no memory is set aside for it"),
        Flag::bit(
            "VM_HUGETLB",
            0x40_0000,
            "of huge pages from the reserved pool",
        ),
        Flag::bit("VM_SYNC", 0x80_0000, "MAP_SYNC"),
        Flag::bit(
            "VM_PAT",
            0x100_0000,
            "its caching was reserved as a whole (VM_ARCH_1)",
        )
        .only_on(ARCH),
        Flag::bit("VM_WIPEONFORK", 0x200_0000, "children get it zeroed"),
        Flag::bit("VM_DONTDUMP", 0x400_0000, "left out of core dumps"),
        Flag::bit(
            "VM_SOFTDIRTY",
            0x800_0000,
            "new or moved since soft-dirty bits were cleared",
        ),
        Flag::bit(
            "VM_MIXEDMAP",
            0x1000_0000,
            "page frames with and without a struct page",
        ),
        Flag::bit("VM_HUGEPAGE", 0x2000_0000, "MADV_HUGEPAGE"),
        Flag::bit("VM_NOHUGEPAGE", 0x4000_0000, "MADV_NOHUGEPAGE"),
        Flag::bit("VM_MERGEABLE", 0x8000_0000, "KSM may merge equal pages"),
        Flag::bit("VM_PKEY_BIT0", 1 << 32, "bit 0 of the protection key").only_on(ARCH),
        Flag::bit("VM_PKEY_BIT1", 1 << 33, "bit 1 of the protection key").only_on(ARCH),
        Flag::bit("VM_PKEY_BIT2", 1 << 34, "bit 2 of the protection key").only_on(ARCH),
        Flag::bit("VM_PKEY_BIT3", 1 << 35, "bit 3 of the protection key").only_on(ARCH),
        Flag::bit(
            "VM_SHADOW_STACK",
            1 << 37,
            "a shadow stack; up to 6.5 VM_UFFD_MINOR",
        )
        .only_on(ARCH),
        Flag::bit(
            "VM_ALLOW_ANY_UNCACHED",
            1 << 39,
            "KVM may map it without caching",
        ),
        Flag::bit("VM_DROPPABLE", 1 << 40, "zeroed when memory is short"),
        Flag::bit(
            "VM_UFFD_MINOR",
            1 << 41,
            "userfaultfd is told of pages that only lack an entry",
        ),
        Flag::bit(
            "VM_SEALED",
            1 << 42,
            "sealed by mseal(2); bit 63 in the first kernels that had it",
        ),
    ],
};
