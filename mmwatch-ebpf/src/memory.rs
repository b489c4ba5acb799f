//! Reads of kernel memory.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Bits of an address within a page (x86-64).
pub const PAGE_SHIFT: u32 = 12;

/// Reads a `T` at `base + offset`, or nothing where that is no memory.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: usize) -> Option<T> {
    // Zeroed although the helper writes it all: verifiers before 6.3 refuse to
    // read a stack slot that is not written on every path.
    let mut value = MaybeUninit::<T>::zeroed();
    let source = base.wrapping_add(offset as u64) as *const _;
    // SAFETY: the helper checks the source, never faults, and writes the whole
    // value, with zeroes where it fails.
    let result =
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source) };
    // SAFETY: written by the helper; only integers and repr(C) structs of
    // integers are read.
    (result == 0).then(|| unsafe { value.assume_init() })
}

/// Reads a `T` at `base + offset`, or zeroes where that is no memory.
///
/// Without a branch, which matters: every branch doubles the paths that a
/// verifier has to follow, and 5.10 follows most of them to the end.
#[inline(always)]
pub fn read_or_zero<T: Copy>(base: u64, offset: usize) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let source = base.wrapping_add(offset as u64) as *const _;
    // SAFETY: as in `read`; the helper writes zeroes where it fails.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source);
        value.assume_init()
    }
}

/// Reads a number at `base + offset`, where the verifier knows what `base`
/// points to: the running task, an argument of an fentry program, or what a
/// load through such a pointer gave. A plain load, which costs a tenth of the
/// helper; 0 where `base` is no memory.
#[inline(always)]
pub fn load<T: Number>(base: u64, offset: usize) -> T {
    // SAFETY: the verifier refuses the program unless a number of this size is
    // there, and has the kernel give 0 where the load faults. Volatile, because
    // the kernel writes it.
    unsafe { ((base + offset as u64) as *const T).read_volatile() }
}

/// What one load reads.
pub trait Number: Copy {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for i64 {}

/// Reads a member of a kernel struct at the offset that the agent found.
macro_rules! member {
    ($base:expr, $field:ident: $ty:ty) => {
        $crate::memory::read::<$ty>($base, $crate::globals::offset!($field))
    };
}

/// As `member!`, but zero where it cannot be read.
macro_rules! member_or_zero {
    ($base:expr, $field:ident: $ty:ty) => {
        $crate::memory::read_or_zero::<$ty>($base, $crate::globals::offset!($field))
    };
}

/// Reads a member of the running task, or of what it points to: by a plain
/// load where the task comes with its type.
macro_rules! task_member {
    ($base:expr, $field:ident: $ty:ty) => {
        if $crate::globals::config!(typed_task) != 0 {
            $crate::memory::load::<$ty>($base, $crate::globals::offset!($field))
        } else {
            $crate::memory::read_or_zero::<$ty>($base, $crate::globals::offset!($field))
        }
    };
}

pub(crate) use {member, member_or_zero, task_member};
