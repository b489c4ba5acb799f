//! What is broken on purpose. A new counter or path belongs here too.

mod accounts;
mod agent;
mod kernel;
mod model;
mod polling;
mod recording;
mod shared;
mod suspects;

use super::{Mutation, Test};

/// Everything that is tried.
pub(super) fn mutations() -> impl Iterator<Item = &'static Mutation> {
    let kernel = kernel::MUTATIONS.iter();
    kernel
        .chain(accounts::MUTATIONS)
        .chain(model::MUTATIONS)
        .chain(shared::MUTATIONS)
        .chain(suspects::MUTATIONS)
        .chain(polling::MUTATIONS)
        .chain(recording::MUTATIONS)
        .chain(agent::MUTATIONS)
}

/// One entry, in the order in which it reads.
const fn mutation(
    name: &'static str,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
    test: Test,
) -> Mutation {
    Mutation {
        name,
        file,
        find,
        replace,
        test,
    }
}
