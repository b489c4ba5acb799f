//! Capabilities.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// Gives up all capabilities but those that are needed, which are returned.
pub(super) fn give_up(
    others_maps: bool,
    mut can_read: impl FnMut() -> bool,
) -> Result<Vec<Capability>, CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    // Who may not do that got no more than it needs, and gets none by exec.
    if has.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;

    let mut kept = CapsHashSet::new();
    if others_maps && has.contains(&Capability::CAP_SYS_PTRACE) {
        kept.insert(Capability::CAP_SYS_PTRACE);
    }
    caps::set(None, CapSet::Effective, &kept)?;
    if !can_read() && has.contains(&Capability::CAP_BPF) {
        kept.insert(Capability::CAP_BPF);
        caps::set(None, CapSet::Effective, &kept)?;
    }
    caps::set(None, CapSet::Permitted, &kept)?;
    let mut kept: Vec<_> = kept.into_iter().collect();
    kept.sort_by_key(Capability::index);
    Ok(kept)
}
