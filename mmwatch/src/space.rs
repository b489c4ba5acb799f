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

pub(crate) use self::change::Change;
pub use self::{
    model::{Healed, Read, Reason, Space},
    ranges::{Backed, Difference, Mapping, Ranges},
    snapshot::{Line, MalformedLine, Snapshot},
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
    /// Events applied, to those that are over too.
    applied_events: u64,
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
            applied_events: 0,
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
        if !self.has_room(id) {
            self.unmodelled_events += 1;
        }
        let space = self.meet(id)?;
        let earlier = space.applied_events();
        space.note(event);
        let applied = space.applied_events() - earlier;
        self.applied_events += applied;
        self.get_mut(id)
    }

    fn has_room(&self, id: SpaceId) -> bool {
        self.spaces.len() < self.capacity || self.spaces.contains_key(&id.mm)
    }

    /// One of them, made if it is not known; `None` for want of room, and for
    /// one that is over, another having its place.
    pub fn meet(&mut self, id: SpaceId) -> Option<&mut Space> {
        if !self.has_room(id) {
            return None;
        }
        let space = self.spaces.entry(id.mm).or_insert_with(|| Space::new(id));
        if space.id().born_boot_ns < id.born_boot_ns {
            // The end of the one that had this address was not seen.
            *space = Space::new(id);
        }
        (space.id() == id).then_some(space)
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

    /// Forgets those that are not wanted: their end was missed.
    pub fn retain(&mut self, wanted: impl Fn(SpaceId) -> bool) {
        self.spaces.retain(|_, space| wanted(space.id()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spaces.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spaces.is_empty()
    }

    /// Events applied in all, as they came in. Those that waited for a heal are
    /// not among them.
    pub fn applied_events(&self) -> u64 {
        self.applied_events
    }

    /// Events of address spaces that there was no room for.
    pub fn unmodelled_events(&self) -> u64 {
        self.unmodelled_events
    }
}

#[cfg(test)]
mod tests;
