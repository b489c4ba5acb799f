//! What the small files in `/proc/PID` tell of an address space.

use crate::event::Dev;

/// What the kernel told a program about itself at its exec, as far as it is of
/// use here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auxiliary {
    /// Where ld.so was put (`AT_BASE`); `None` without one.
    pub interpreter: Option<u64>,
    /// Where the program starts (`AT_ENTRY`).
    pub entry: Option<u64>,
}

const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;

/// From `/proc/PID/auxv`: pairs of numbers as large as the process's words,
/// which is told by the page size that is among them.
pub fn auxiliary(bytes: &[u8], page_bytes: u64) -> Auxiliary {
    let wide: Vec<u64> = words(bytes, u64::from_ne_bytes);
    let narrow: Vec<u64> = words(bytes, |word| u32::from_ne_bytes(word).into());
    for words in [wide, narrow] {
        let value = |key| {
            let pairs = words.as_chunks().0;
            let pair = pairs.iter().find(|&&[name, _]| name == key);
            pair.map(|&[_, value]| value).filter(|&value| value != 0)
        };
        if value(AT_PAGESZ) == Some(page_bytes) {
            return Auxiliary {
                interpreter: value(AT_BASE),
                entry: value(AT_ENTRY),
            };
        }
    }
    Auxiliary::default()
}

fn words<const N: usize>(bytes: &[u8], word: fn([u8; N]) -> u64) -> Vec<u64> {
    bytes.as_chunks().0.iter().copied().map(word).collect()
}

/// The stack pointer in `/proc/PID/task/TID/syscall`: of a thread that waits in
/// a call `NR ARG… SP PC`, or elsewhere `-1 SP PC`; `None` for `running`.
pub fn stack_pointer(text: &str) -> Option<u64> {
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let mut words = text.split_ascii_whitespace();
    let _number = words.next()?;
    let _program_counter = hex(words.next_back()?)?;
    hex(words.next_back()?)
}

/// Devices of all hugetlbfs, from `/proc/PID/mountinfo`.
pub fn hugetlbfs(mountinfo: &str) -> Vec<Dev> {
    let device = |line: &str| {
        // `ID PARENT MAJ:MIN ROOT POINT OPTIONS… - TYPE SOURCE OPTIONS`
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("hugetlbfs ").then_some(())?;
        let (major, minor) = mount.split(' ').nth(2)?.split_once(':')?;
        let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        Some(Dev(major.checked_mul(1 << 20)? | minor))
    };
    mountinfo.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auxv(pairs: &[(u64, u64)]) -> Vec<u8> {
        let words = pairs.iter().flat_map(|&(key, value)| [key, value]);
        words.flat_map(u64::to_ne_bytes).collect()
    }

    fn narrow_auxv(pairs: &[(u32, u32)]) -> Vec<u8> {
        let words = pairs.iter().flat_map(|&(key, value)| [key, value]);
        words.flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn the_loader_and_the_entry_are_in_auxv() {
        let want = Auxiliary {
            interpreter: Some(0x7000),
            entry: Some(0x5000),
        };
        assert_eq!(
            auxiliary(&auxv(&[(6, 4096), (7, 0x7000), (9, 0x5000), (0, 0)]), 4096),
            want
        );
        let narrow = narrow_auxv(&[(6, 4096), (7, 0x7000), (9, 0x5000), (0, 0)]);
        assert_eq!(auxiliary(&narrow, 4096), want);
    }

    #[test]
    fn a_static_program_has_no_loader() {
        let got = auxiliary(&auxv(&[(9, 0x5000), (7, 0), (6, 4096)]), 4096);
        assert_eq!((got.interpreter, got.entry), (None, Some(0x5000)));
    }

    #[test]
    fn what_is_no_auxv_tells_nothing() {
        for bytes in [&[][..], &[6; 15], &auxv(&[(7, 1), (9, 1)])] {
            assert_eq!(auxiliary(bytes, 4096), Auxiliary::default());
        }
    }

    #[test]
    fn stack_pointers_are_the_last_but_one() {
        let call = "202 0x7f 0x189 0x0 0x0 0x0 0xffffffff 0x7f0000001ac0 0x7f5aa\n";
        assert_eq!(stack_pointer(call), Some(0x7f00_0000_1ac0));
        assert_eq!(stack_pointer("-1 0x7ffd10 0x7f5aa\n"), Some(0x7f_fd10));
        for none in ["running\n", "", "-1 0x10", "0 x y z"] {
            assert_eq!(stack_pointer(none), None, "{none}");
        }
    }

    #[test]
    fn hugetlbfs_is_found_among_mounts() {
        let mounts = "22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
            33 25 0:29 / /dev/hugepages rw,relatime shared:13 - hugetlbfs hugetlbfs rw,pagesize=2M\n\
            34 25 259:3 / /hugetlbfs rw - ext4 /dev/nvme0n1p3 rw\n";
        assert_eq!(hugetlbfs(mounts), [Dev(29)]);
    }
}
