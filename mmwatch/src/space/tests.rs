use super::*;
use crate::{event::Op, sample};

fn event(op: Op, mm: u64, born_boot_ns: u64) -> Event {
    let mut event = sample::event(op);
    event.space.id = Some(SpaceId { mm, born_boot_ns });
    event
}

fn ids(spaces: &Spaces) -> Vec<(u64, u64)> {
    let mut ids: Vec<_> = spaces
        .iter()
        .map(|space| (space.id().mm, space.id().born_boot_ns))
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn an_address_space_is_met_with_its_first_event_and_goes_with_its_end() {
    let mut spaces = Spaces::default();
    assert!(spaces.is_empty());
    assert!(spaces.note(&event(Op::Map, 1, 10)).is_some());
    spaces.note(&event(Op::Unmap, 1, 10));
    spaces.note(&event(Op::Exec, 2, 20));
    assert_eq!(ids(&spaces), [(1, 10), (2, 20)]);
    assert!(spaces.note(&event(Op::Exit, 1, 10)).is_none());
    assert_eq!(ids(&spaces), [(2, 20)]);
    // Ends of those that were never met, or of one not known to have been born.
    spaces.note(&event(Op::Exit, 3, 30));
    spaces.note(&event(Op::Exit, 2, 0));
    assert!(spaces.is_empty());
}

#[test]
fn events_without_an_address_space_belong_to_none() {
    let mut spaces = Spaces::default();
    assert!(spaces.note(&sample::bare(Op::Map)).is_none());
    assert!(spaces.is_empty());
    assert_eq!(spaces.unmodelled_events(), 0);
}

#[test]
fn the_address_of_one_may_be_anothers_later() {
    let mut spaces = Spaces::default();
    spaces.note(&event(Op::Map, 1, 10));
    spaces.note(&event(Op::Map, 1, 20));
    assert_eq!(ids(&spaces), [(1, 20)]);
    // Stragglers of the old one.
    assert!(spaces.note(&event(Op::Map, 1, 10)).is_none());
    spaces.note(&event(Op::Exit, 1, 10));
    assert_eq!(ids(&spaces), [(1, 20)]);
    let old = SpaceId {
        mm: 1,
        born_boot_ns: 10,
    };
    assert!(spaces.get(old).is_none() && spaces.get_mut(old).is_none());
    spaces.retain(|id| id != old);
    let new = SpaceId {
        born_boot_ns: 20,
        ..old
    };
    assert!(spaces.get(new).is_some() && spaces.get_mut(new).is_some());
    spaces.retain(|id| id != new);
    assert!(spaces.is_empty());
}

#[test]
fn those_without_room_are_counted() {
    let mut spaces = Spaces::with_capacity(1);
    spaces.note(&event(Op::Map, 1, 10));
    assert!(spaces.note(&event(Op::Map, 2, 10)).is_none());
    spaces.note(&event(Op::Map, 2, 10));
    assert_eq!((spaces.len(), spaces.unmodelled_events()), (1, 2));
    // Another life of a known one needs no room.
    spaces.note(&event(Op::Map, 1, 20));
    assert_eq!(ids(&spaces), [(1, 20)]);
    spaces.note(&event(Op::Exit, 1, 20));
    assert!(spaces.note(&event(Op::Map, 2, 10)).is_some());
}
