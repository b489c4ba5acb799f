//! What is mapped where, without asking: each address space as
//! `/proc/PID/maps` would have it, kept up to date by events.
//!
//! Page by page the model says which permissions, which file and which offset.
//! It knows no VMAs: neighbours that are alike are one range here, and their
//! number comes from the kernel.
//!
//! Nothing here reads a clock or a file: events, times and the texts of
//! `/proc` come in.

mod change;
pub mod model;
pub mod ranges;
pub mod snapshot;

use rustc_hash::FxHashMap;

pub use self::{
    model::{Healed, Reason, Space},
    ranges::{Backed, Difference, Mapping, Ranges},
    snapshot::{MalformedLine, Snapshot},
};
use crate::event::{Event, SpaceId, What};

/// Address spaces that are modelled at most.
pub const MAX_SPACES: usize = 65_536;

/// The address spaces of all events.
#[derive(Debug)]
pub struct Spaces {
    capacity: usize,
    /// By the address of the `mm_struct`, which one of them has at a time.
    spaces: FxHashMap<u64, Space>,
    unmodelled_events: u64,
}

impl Default for Spaces {
    fn default() -> Self {
        Self::with_capacity(MAX_SPACES)
    }
}

impl Spaces {
    /// None yet, and `capacity` at most.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            spaces: FxHashMap::default(),
            unmodelled_events: 0,
        }
    }

    /// Takes an event, in the order of the ring. Returns its address space, if
    /// it has one that has not ended.
    pub fn note(&mut self, event: &Event) -> Option<&mut Space> {
        let id = event.space.id?;
        if let What::Exit(_) = event.what {
            // The kernel programs may have met this life of it not at all (0).
            if self.spaces.get(&id.mm).is_some_and(|space| {
                id.born_boot_ns == 0 || space.id().born_boot_ns <= id.born_boot_ns
            }) {
                self.spaces.remove(&id.mm);
            }
            return None;
        }
        match self.spaces.get(&id.mm).map(Space::id) {
            Some(known) if known.born_boot_ns > id.born_boot_ns => return None,
            Some(known) if known == id => {}
            // The end of the one that had this address was not seen.
            Some(_) => {
                self.spaces.insert(id.mm, Space::new(id));
            }
            None if self.spaces.len() >= self.capacity => {
                self.unmodelled_events += 1;
                return None;
            }
            None => {
                self.spaces.insert(id.mm, Space::new(id));
            }
        }
        let space = self.spaces.get_mut(&id.mm)?;
        space.note(event);
        Some(space)
    }

    /// One of them.
    pub fn get(&self, id: SpaceId) -> Option<&Space> {
        self.spaces.get(&id.mm).filter(|space| space.id() == id)
    }

    /// One of them, to be healed or audited.
    pub fn get_mut(&mut self, id: SpaceId) -> Option<&mut Space> {
        self.spaces.get_mut(&id.mm).filter(|space| space.id() == id)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Space> {
        self.spaces.values()
    }

    /// All of them, in no order, to be healed or audited.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Space> {
        self.spaces.values_mut()
    }

    /// Forgets one, whose end was missed.
    pub fn remove(&mut self, id: SpaceId) -> Option<Space> {
        self.get(id)?;
        self.spaces.remove(&id.mm)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spaces.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spaces.is_empty()
    }

    /// Events of address spaces that there was no room for.
    pub fn unmodelled_events(&self) -> u64 {
        self.unmodelled_events
    }
}

#[cfg(test)]
mod tests;
