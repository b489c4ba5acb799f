//! Shared objects, one a line; `docs/shared.schema.json` is the schema.

use std::io::{self, Write};

use serde::Serialize;

use super::{Hex, SCHEMA, as_text, lossy, write_line};
use crate::{
    event::Dev,
    maps::FileKind,
    shared::{Mapping, Member, Object, Shared, talk::Talk},
};

/// Writes each object as a line.
///
/// # Errors
///
/// What `to` says.
pub fn write_objects(to: &mut impl Write, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    for object in &shared.objects {
        write_line(&mut buffer, &ObjectLine::new(shared, object))?;
    }
    to.write_all(&buffer)?;
    to.flush()
}

#[derive(Serialize)]
struct ObjectLine<'a> {
    schema: u32,
    #[serde(rename = "type")]
    line: &'static str,
    lock: &'static str,
    unread_processes: u32,
    kind: &'static str,
    certainty: &'static str,
    #[serde(serialize_with = "as_text")]
    dev: Dev,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shmid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipc_namespace: Option<u64>,
    paths: Vec<String>,
    common_bytes: u64,
    processes: Vec<MemberFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    talks: Option<Vec<TalkFields>>,
}

#[derive(Serialize)]
struct MemberFields<'a> {
    pid: u32,
    #[serde(serialize_with = "lossy")]
    comm: &'a [u8],
    mappings: Vec<MappingFields>,
}

#[derive(Serialize)]
struct MappingFields {
    start: Hex,
    end: Hex,
    size_bytes: u64,
    prot: &'static str,
    shared: bool,
    offset_bytes: u64,
}

#[derive(Serialize)]
struct TalkFields {
    writers: Vec<u32>,
    readers: Vec<u32>,
    bytes: u64,
}

impl<'a> ObjectLine<'a> {
    fn new(shared: &Shared, object: &'a Object) -> Self {
        let paths = object.paths.iter();
        let talks = || object.talks().into_iter().map(Into::into).collect();
        Self {
            schema: SCHEMA,
            line: "shared",
            lock: shared.lock.name(),
            unread_processes: shared.unread_processes,
            kind: object.kind.name(),
            certainty: object.certainty.name(),
            dev: object.id.dev,
            inode: object.id.inode,
            shmid: (object.kind == FileKind::SysvShm).then_some(object.id.inode),
            ipc_namespace: object.id.ipc_namespace.filter(|&number| number != 0),
            paths: paths
                .map(|path| String::from_utf8_lossy(path).into_owned())
                .collect(),
            common_bytes: object.common_bytes(),
            processes: object.members.iter().map(MemberFields::new).collect(),
            talks: object.tells_memory().then(talks),
        }
    }
}

impl<'a> MemberFields<'a> {
    fn new(member: &'a Member) -> Self {
        Self {
            pid: member.pid,
            comm: member.comm.as_bytes(),
            mappings: member.mappings.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Mapping> for MappingFields {
    fn from(mapping: &Mapping) -> Self {
        Self {
            start: Hex(mapping.range.start),
            end: Hex(mapping.range.end),
            size_bytes: mapping.size_bytes(),
            prot: mapping.prot.letters(),
            shared: mapping.shared,
            offset_bytes: mapping.offset,
        }
    }
}

impl From<Talk> for TalkFields {
    fn from(talk: Talk) -> Self {
        let Talk {
            writers,
            readers,
            bytes,
        } = talk;
        Self {
            writers,
            readers,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests;
