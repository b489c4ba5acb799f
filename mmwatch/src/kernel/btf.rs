//! Reads the kernel's BTF: where struct members lie, which functions and
//! tracepoints there are and how many arguments they take.
//!
//! The format is `Documentation/bpf/btf.rst` of the kernel.

use std::{fs, io, path::Path};

use rustc_hash::FxHashMap;

/// Where in sysfs the running kernel shows its BTF (`CONFIG_DEBUG_INFO_BTF`).
pub const VMLINUX: &str = "kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// A chain of modifiers or anonymous members longer than this is no kernel's.
const MAX_DEPTH: u32 = 16;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Why BTF could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are not BTF as documented.
    #[error("not BTF: {0}")]
    Malformed(&'static str),
}

/// Parsed BTF.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type's record, by type id; id 0 is void.
    types: Vec<u32>,
    /// Type ids by name: structs and unions, functions, typedefs, enums.
    structs: FxHashMap<u32, u32>,
    functions: FxHashMap<u32, u32>,
    typedefs: FxHashMap<u32, u32>,
    enums: FxHashMap<u32, u32>,
    /// String offsets by string, for the names above.
    names: FxHashMap<Box<[u8]>, u32>,
}

/// One type's record.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    members: usize,
    bitfields: bool,
    size_or_type: u32,
}

impl Btf {
    /// Reads the BTF in a file.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        Self::parse(fs::read(path)?)
    }

    /// Parses BTF. Lengths and offsets are checked; nothing is assumed of the bytes.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let header = Header::parse(&data)?;
        let mut btf = Self {
            strings: header.strings,
            data,
            types: vec![0],
            structs: FxHashMap::default(),
            functions: FxHashMap::default(),
            typedefs: FxHashMap::default(),
            enums: FxHashMap::default(),
            names: FxHashMap::default(),
        };
        let mut at = header.types;
        while at < header.types_end {
            let ty = btf
                .record(at)
                .ok_or(BtfError::Malformed("a type is cut off"))?;
            let id = btf.types.len() as u32;
            btf.types.push(at as u32);
            match ty.kind {
                KIND_STRUCT | KIND_UNION => drop(btf.structs.entry(ty.name).or_insert(id)),
                KIND_FUNC => drop(btf.functions.entry(ty.name).or_insert(id)),
                KIND_TYPEDEF => drop(btf.typedefs.entry(ty.name).or_insert(id)),
                KIND_ENUM => drop(btf.enums.entry(ty.name).or_insert(id)),
                _ => {}
            }
            at += ty
                .len()
                .ok_or(BtfError::Malformed("a type of unknown kind"))?;
        }
        btf.index_names();
        Ok(btf)
    }

    /// Byte offset of a member, given as `struct.member.member`. Anonymous
    /// structs and unions on the way are looked into.
    pub fn offset(&self, path: &str) -> Option<u32> {
        let mut names = path.split('.');
        let mut ty = self.type_by_id(*self.structs.get(&self.name(names.next()?)?)?)?;
        let mut bits = 0;
        let mut names = names.peekable();
        while let Some(name) = names.next() {
            let (offset, member_type) = self.member(ty, name.as_bytes(), 0)?;
            bits += offset;
            if names.peek().is_some() {
                ty = self.resolve(member_type)?;
            }
        }
        Some(bits / 8)
    }

    /// Value of an enumerator, given as `enum.name`.
    pub fn enumerator(&self, path: &str) -> Option<u32> {
        let (of, name) = path.split_once('.')?;
        let ty = self.type_by_id(*self.enums.get(&self.name(of)?)?)?;
        (0..ty.members).find_map(|index| {
            let at = ty.at + 12 + index * 8;
            let found = self.string(self.word(at)?)? == name.as_bytes();
            found.then(|| self.word(at + 4))?
        })
    }

    /// Number of parameters of a kernel function.
    pub fn function_params(&self, name: &str) -> Option<u32> {
        let function = self.type_by_id(*self.functions.get(&self.name(name)?)?)?;
        let prototype = self.type_by_id(function.size_or_type)?;
        (prototype.kind == KIND_FUNC_PROTO).then_some(prototype.members as u32)
    }

    /// Number of arguments of a tracepoint: the parameters of its probe
    /// (`typedef void (*btf_trace_NAME)(void *, …)`) less the first.
    pub fn tracepoint_args(&self, name: &str) -> Option<u32> {
        let name = self.name(&format!("btf_trace_{name}"))?;
        let typedef = self.type_by_id(*self.typedefs.get(&name)?)?;
        let pointer = self.type_by_id(typedef.size_or_type)?;
        let prototype = self.type_by_id(pointer.size_or_type)?;
        (prototype.kind == KIND_FUNC_PROTO).then(|| (prototype.members as u32).saturating_sub(1))
    }

    fn index_names(&mut self) {
        let maps = [&self.structs, &self.functions, &self.typedefs, &self.enums];
        let offsets: Vec<u32> = maps.iter().flat_map(|map| map.keys().copied()).collect();
        for offset in offsets {
            if let Some(string) = self.string(offset) {
                let string = Box::from(string);
                self.names.entry(string).or_insert(offset);
            }
        }
    }

    fn name(&self, name: &str) -> Option<u32> {
        self.names.get(name.as_bytes()).copied()
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let tail = self.data.get(self.strings + offset as usize..)?;
        let end = tail.iter().position(|byte| *byte == 0)?;
        Some(&tail[..end])
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.data, at)
    }

    fn record(&self, at: usize) -> Option<Type> {
        let info = self.word(at + 4)?;
        Some(Type {
            at,
            name: self.word(at)?,
            kind: (info >> 24) & 0x1f,
            members: (info & 0xffff) as usize,
            bitfields: info >> 31 != 0,
            size_or_type: self.word(at + 8)?,
        })
    }

    fn type_by_id(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.record(*self.types.get(id as usize)? as usize)
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let ty = self.type_by_id(id)?;
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    /// Bit offset and type id of a member.
    fn member(&self, ty: Type, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        (0..ty.members).find_map(|index| {
            let at = ty.at + 12 + index * 12;
            let member_type = self.word(at + 4)?;
            let offset = self.word(at + 8)?;
            let offset = if ty.bitfields {
                offset & 0xff_ffff
            } else {
                offset
            };
            match self.string(self.word(at)?)? {
                b"" => {
                    let (inner, inner_type) =
                        self.member(self.resolve(member_type)?, name, depth + 1)?;
                    Some((offset + inner, inner_type))
                }
                member_name if member_name == name => Some((offset, member_type)),
                _ => None,
            }
        })
    }
}

impl Type {
    /// Length of the record in bytes; `None` for a kind that this reader does not know.
    fn len(&self) -> Option<usize> {
        let extra = match self.kind {
            KIND_PTR | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_FUNC
            | KIND_TYPE_TAG | 7 | 16 => 0,
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * self.members,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * self.members,
            _ => return None,
        };
        Some(12 + extra)
    }
}

/// Where the sections are.
struct Header {
    types: usize,
    types_end: usize,
    strings: usize,
}

impl Header {
    fn parse(data: &[u8]) -> Result<Self, BtfError> {
        const CUT: BtfError = BtfError::Malformed("the header is cut off");
        let magic = data.get(..2).ok_or(CUT)?;
        if magic != MAGIC.to_ne_bytes() {
            return Err(BtfError::Malformed("wrong magic number"));
        }
        let field = |index: usize| {
            word(data, 4 + index * 4)
                .map(|word| word as usize)
                .ok_or(CUT)
        };
        let header_len = field(0)?;
        let types = header_len + field(1)?;
        let types_end = types + field(2)?;
        let strings = header_len + field(3)?;
        if types_end > data.len() || strings + field(4)? > data.len() {
            return Err(BtfError::Malformed("a section ends beyond the data"));
        }
        Ok(Self {
            types,
            types_end,
            strings,
        })
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds BTF by hand: `types` are whole records, `strings` begin with a NUL.
    fn blob(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let mut data = MAGIC.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        let len = (types.len() * 4) as u32;
        for word in [24, 0, len, len, strings.len() as u32] {
            data.extend(u32::to_ne_bytes(word));
        }
        for word in types {
            data.extend(word.to_ne_bytes());
        }
        data.extend(strings);
        data
    }

    const fn info(kind: u32, members: u32) -> u32 {
        kind << 24 | members
    }

    #[test]
    fn offsets_go_through_anonymous_members_and_typedefs() {
        // struct outer { int; struct { int a; inner_t b; }; }, typedef struct inner inner_t
        let strings = b"\0outer\0a\0b\0inner\0inner_t\0c\0";
        let types = [
            1,
            info(KIND_STRUCT, 1),
            40,
            0,
            2,
            64, // 1: outer
            0,
            info(KIND_STRUCT, 2),
            32,
            7,
            5,
            0,
            9,
            3,
            32, // 2: anonymous
            17,
            info(KIND_TYPEDEF, 0),
            4, // 3: inner_t
            11,
            info(KIND_STRUCT, 1),
            16,
            25,
            5,
            96, // 4: inner
            0,
            info(KIND_INT, 0),
            4,
            32, // 5: int
        ];
        let btf = Btf::parse(blob(&types, strings)).unwrap();
        assert_eq!(btf.offset("outer.a"), Some(8));
        assert_eq!(btf.offset("outer.b"), Some(12));
        assert_eq!(btf.offset("outer.b.c"), Some(24));
        assert_eq!(btf.offset("inner.c"), Some(12));
        assert_eq!(btf.offset("outer.c"), None);
        assert_eq!(btf.offset("nothing.a"), None);
    }

    #[test]
    fn functions_and_tracepoints_know_their_arguments() {
        let strings = b"\0f\0btf_trace_t\0";
        let types = [
            1,
            info(KIND_FUNC, 0),
            2, // 1: f
            0,
            info(KIND_FUNC_PROTO, 3),
            0,
            0,
            0,
            0,
            0,
            0,
            0, // 2: its prototype
            0,
            info(KIND_PTR, 0),
            2, // 3: pointer
            3,
            info(KIND_TYPEDEF, 0),
            3, // 4: btf_trace_t
        ];
        let btf = Btf::parse(blob(&types, strings)).unwrap();
        assert_eq!(btf.function_params("f"), Some(3));
        assert_eq!(btf.tracepoint_args("t"), Some(2));
        assert_eq!(btf.function_params("t"), None);
    }

    #[test]
    fn every_truncation_is_an_error_or_harmless() {
        let strings = b"\0outer\0a\0";
        let types = [
            1,
            info(KIND_STRUCT, 1),
            8,
            7,
            2,
            32,
            0,
            info(KIND_INT, 0),
            4,
            32,
        ];
        let whole = blob(&types, strings);
        for len in 0..whole.len() {
            assert!(Btf::parse(whole[..len].to_vec()).is_err(), "{len} bytes");
        }
        assert!(Btf::parse(whole).is_ok());
    }

    #[test]
    fn unknown_kinds_are_errors() {
        let types = [0, info(31, 0), 0];
        assert!(matches!(
            Btf::parse(blob(&types, b"\0")),
            Err(BtfError::Malformed(_))
        ));
    }
}
