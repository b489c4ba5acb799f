use super::*;

pub(crate) const PAGE: u64 = 4096;

/// A program header: kind, flags, offset, address, bytes in the file and in memory.
pub(crate) type Header = (u32, u32, u64, u64, u64, u64);

const R: u32 = elf::PF_R;
const W: u32 = elf::PF_W;
const X: u32 = elf::PF_X;

/// What linkers make of a library nowadays: code apart from constants, and
/// relro up to the end of a page.
pub(crate) const LIBRARY: [Header; 6] = [
    (elf::PT_LOAD, R, 0, 0, 0x1800, 0x1800),
    (elf::PT_LOAD, R | X, 0x2000, 0x2000, 0x5100, 0x5100),
    (elf::PT_LOAD, R, 0x8000, 0x8000, 0x2300, 0x2300),
    (elf::PT_LOAD, R | W, 0xad50, 0xbd50, 0x1000, 0x3000),
    (elf::PT_DYNAMIC, R | W, 0xad60, 0xbd60, 0x1f0, 0x1f0),
    (elf::PT_GNU_RELRO, R, 0xad50, 0xbd50, 0x2b0, 0x2b0),
];

/// An ELF object of 64 bits, little-endian, that has these program headers and
/// nothing else.
pub(crate) fn elf64(headers: &[Header]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(elf::ET_DYN.to_le_bytes());
    bytes.extend(elf::EM_X86_64.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    for word in [0x2000_u64, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64, 56, u16::try_from(headers.len()).unwrap(), 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for &(kind, flags, offset, addr, file_bytes, memory_bytes) in headers {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in [offset, addr, addr, file_bytes, memory_bytes, PAGE] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes
}

/// As [`elf64`], of 32 bits.
fn elf32(headers: &[Header]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(elf::ET_DYN.to_le_bytes());
    bytes.extend(elf::EM_386.to_le_bytes());
    for word in [1_u32, 0x2000, 52, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    for half in [52, 32, u16::try_from(headers.len()).unwrap(), 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for &(kind, flags, offset, addr, file_bytes, memory_bytes) in headers {
        let narrow = |word| u32::try_from(word).unwrap();
        let [offset, addr] = [offset, addr].map(narrow);
        let [file_bytes, memory_bytes] = [file_bytes, memory_bytes].map(narrow);
        for word in [
            kind,
            offset,
            addr,
            addr,
            file_bytes,
            memory_bytes,
            flags,
            4096,
        ] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn an_object_of_32_bits_has_the_same_parts() {
    let narrow = Elf::parse(elf32(&LIBRARY).as_slice(), PAGE);
    assert_eq!(narrow, Some(object(&LIBRARY)));
}

pub(crate) fn object(headers: &[Header]) -> Elf {
    Elf::parse(elf64(headers).as_slice(), PAGE).unwrap()
}

#[test]
fn every_part_of_a_library_has_its_place() {
    let elf = object(&LIBRARY);
    assert_eq!(elf.span(), 0..0xf000);
    use Part::*;
    for (range, offset, writable, part) in [
        (0..0x2000, 0, false, Rodata),
        (0x2000..0x8000, 0x2000, false, Text),
        (0x8000..0xb000, 0x8000, false, Rodata),
        (0xb000..0xc000, 0xa000, false, Relro),
        // Before the loader is done.
        (0xb000..0xd000, 0xa000, true, Data),
        (0xc000..0xd000, 0xb000, true, Data),
        // Made writable a page of it.
        (0x3000..0x4000, 0x3000, true, Text),
    ] {
        let place = elf.place_of_file(&range, offset, writable);
        assert_eq!(place, Some(Place::Part(part)), "{range:x?}");
    }
    let bss = |range| elf.place_of_memory(&range, true);
    assert_eq!(bss(0xd000..0xf000), Some(Place::Part(Bss)));
    assert_eq!(bss(0xe000..0xf000), Some(Place::Part(Bss)));
    assert_eq!(bss(0xd000..0x1_0000), Some(Place::Begins(Bss)));
    assert_eq!(bss(0xf000..0x1_0000), None);
    // Something was put over the code.
    assert_eq!(bss(0x2000..0x3000), Some(Place::Begins(Text)));
}

#[test]
fn a_file_is_a_part_only_where_the_headers_want_it() {
    let elf = object(&LIBRARY);
    assert_eq!(elf.place_of_file(&(0..0x2000), 0x1000, false), None);
    assert_eq!(elf.place_of_file(&(0x2000..0x3000), 0, false), None);
    assert_eq!(elf.place_of_file(&(0xf000..0x1_0000), 0xf000, false), None);
    assert_eq!(
        elf.place_of_file(&(0x2000..0x9000), 0x2000, false),
        Some(Place::Begins(Part::Text))
    );
}

#[test]
fn addresses_between_two_parts_are_a_hole() {
    let elf = object(&[
        (elf::PT_LOAD, R | X, 0, 0, 0x1000, 0x1000),
        (elf::PT_LOAD, R | W, 0x1000, 0x20_1000, 0x500, 0x500),
    ]);
    let hole = |range, offset| elf.place_of_file(&range, offset, false);
    assert_eq!(hole(0x1000..0x20_1000, 0x1000), Some(Place::Hole));
    assert_eq!(hole(0x1000..0x20_2000, 0x1000), None);
    assert_eq!(hole(0x20_2000..0x20_3000, 0x1000), None);
}

#[test]
fn code_tells_where_an_object_was_put() {
    let elf = object(&LIBRARY);
    assert_eq!(elf.bias(0x7f00_0000_2000, 0x2000), Some(0x7f00_0000_0000));
    assert_eq!(elf.bias(0x7f00_0000_4000, 0x4000), Some(0x7f00_0000_0000));
    // Of no code.
    assert_eq!(elf.bias(0x7f00_0000_0000, 0), None);
    assert_eq!(elf.bias(0x7f00_0000_8000, 0x8000), None);
    // Made for a high address, and put to a low one.
    let high = object(&[(elf::PT_LOAD, R | X, 0, 1 << 40, 0x1000, 0x1000)]);
    assert_eq!(high.bias(0x5000, 0), Some(0x5000_u64.wrapping_sub(1 << 40)));
}

#[test]
fn what_is_no_object_is_told() {
    let good = elf64(&LIBRARY);
    let parse = |bytes: &[u8]| Elf::parse(bytes, PAGE);
    assert!(parse(&good).is_some());
    for len in 0..good.len() {
        assert_eq!(parse(&good[..len]), None, "{len} bytes");
    }
    assert_eq!(parse(b"#!/bin/sh\nexec true and more of it\n"), None);
    assert_eq!(parse(&elf64(&[(elf::PT_DYNAMIC, R, 0, 0, 1, 1)])), None);
    let many = vec![LIBRARY[0]; usize::from(MAX_HEADERS) + 1];
    assert_eq!(parse(&elf64(&many)), None);
    assert!(parse(&elf64(&many[1..])).is_some());
}

#[test]
fn numbers_that_overflow_are_no_object() {
    for header in [
        (elf::PT_LOAD, R, 0, u64::MAX, 1, 1),
        (elf::PT_LOAD, R, u64::MAX, 0, 1, 1),
    ] {
        assert_eq!(Elf::parse(elf64(&[header]).as_slice(), PAGE), None);
    }
    let last = object(&[(elf::PT_LOAD, R | X, u64::MAX - 1, u64::MAX - 1, 1, 1)]);
    let _ = last.span();
    let _ = last.bias(0, u64::MAX - 1);
    let _ = last.place_of_file(&(u64::MAX - 4096..u64::MAX), u64::MAX - 4096, false);
    let _ = last.place_of_memory(&(u64::MAX - 1..u64::MAX), false);
}
