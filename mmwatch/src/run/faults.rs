//! `maps --faults`: watches the page faults of one process for a while.

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

use super::scope;
use crate::{
    clock::boot_ns,
    error::Result,
    kernel::{facts::Facts, load::faults::FaultWatch},
    ledger::{Ledger, Received},
    maps::{
        AddressSpace,
        faults::{PageFaults, by_mapping},
    },
    options::{Form, System},
    sink::json,
    ui,
};

/// What was counted, and what became of all that was to be counted.
pub(super) struct Counted {
    faults: PageFaults,
    ledger: Ledger,
    elapsed_ns: u64,
}

/// Counts the page faults of a process for this time.
pub(super) fn count(pid: u32, time: Duration, system: &System) -> Result<Counted> {
    let mut facts = Facts::gather(system.proc.sysfs());
    let tgid = scope::tgid(&facts, pid)?;
    let mut watch = FaultWatch::attach(&mut facts, tgid)?;
    let begin_ns = boot_ns()?;
    thread::sleep(time);
    watch.stop();
    let elapsed_ns = boot_ns()?.saturating_sub(begin_ns);
    Ok(Counted {
        faults: watch.faults()?,
        ledger: Ledger {
            kernel: watch.counters()?,
            received: Received::default(),
            sinks: Vec::new(),
            closed: true,
            replay: None,
        },
        elapsed_ns,
    })
}

/// Shows it, mapping by mapping; `space` is the address space afterwards.
pub(super) fn write(
    to: &mut impl Write,
    form: Form,
    space: &AddressSpace<'_>,
    counted: &Counted,
) -> io::Result<()> {
    let Counted {
        faults,
        ledger,
        elapsed_ns,
    } = counted;
    let faults = by_mapping(faults, &space.vmas);
    match form {
        Form::Json => json::maps::faults::write(to, space, &faults, *elapsed_ns, ledger),
        Form::Text => {
            to.write_all(ui::maps::faults::draw(space, &faults, *elapsed_ns, ledger).as_bytes())
        }
    }
}
