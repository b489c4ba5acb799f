//! Values of `mmwatch-common` as bytes, and back.

use std::{collections::BTreeMap, slice};

use mmwatch_common::{
    counter::Ledger,
    event::Kind,
    identity::Identity,
    space::Listed,
    sums::{Process, ProcessKey},
};

/// What a recording has as the kernel has it.
///
/// # Safety
///
/// The type is `repr(C)` and consists of integers without padding between or
/// after them, so that it is its bytes, and any bytes are a value.
pub(super) unsafe trait Raw: Copy {}

macro_rules! raw {
    ($($ty:ty),+ $(,)?) => {$(
        // SAFETY: repr(C), integers only, no implicit padding, as mmwatch-common
        // asserts beside the definition.
        unsafe impl Raw for $ty {}
    )+};
}

raw!(Identity, Ledger, Listed, Process, ProcessKey);

/// Appends a value.
pub(super) fn put<T: Raw>(to: &mut Vec<u8>, value: &T) {
    // SAFETY: Raw's contract: all of its bytes are initialised.
    let bytes = unsafe { slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) };
    to.extend_from_slice(bytes);
}

/// Takes bytes apart. `None` wherever there are too few.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// All that is left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn value<T: Raw>(&mut self) -> Option<T> {
        let bytes = self.take(size_of::<T>())?;
        // SAFETY: as many bytes as T has; their alignment does not matter to
        // read_unaligned, and any bytes are a T by Raw's contract.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// Bytes of each sort of value, by name: what a recording was written with must
/// be what it is read with.
pub(crate) fn sizes() -> BTreeMap<String, usize> {
    let records = Kind::ALL
        .iter()
        .map(|kind| (kind.name(), kind.record_bytes()));
    let values = [
        ("identity", size_of::<Identity>()),
        ("ledger", size_of::<Ledger>()),
        ("listed", size_of::<Listed>()),
        ("process", size_of::<Process>()),
        ("process_key", size_of::<ProcessKey>()),
    ];
    records
        .chain(values)
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let mut listed = crate::sample::listed(7, "x", 3);
        listed.identity.cgroup_id = u64::MAX - 1;
        let key = ProcessKey::new(7, 9);
        let mut out = Vec::new();
        put(&mut out, &listed);
        put(&mut out, &key);
        out.extend_from_slice(&5_u16.to_le_bytes());
        let mut bytes = Bytes::new(&out);
        assert_eq!(bytes.value::<Listed>(), Some(listed));
        assert_eq!(bytes.value::<ProcessKey>(), Some(key));
        assert_eq!(bytes.u32(), None);
        assert_eq!(bytes.u16(), Some(5));
        assert!(bytes.is_empty());
        assert_eq!(bytes.u8(), None);
    }

    #[test]
    fn every_sort_of_value_has_its_size() {
        let sizes = sizes();
        assert_eq!(sizes.len(), Kind::ALL.len() + 5);
        assert_eq!(sizes["map"], 136 + 64);
        assert_eq!(sizes["process_key"], 16);
    }
}
