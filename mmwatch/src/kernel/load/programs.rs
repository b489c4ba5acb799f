//! Programs of a loaded object: attached, counted, detached.

use aya::{
    Btf, Ebpf,
    maps::{MapData, MapError, PerCpuArray},
    programs::{
        FEntry, FExit, KProbe, PerfEvent, ProgramError, RawTracePoint, fentry::FEntryLink,
        fexit::FExitLink, kprobe::KProbeLink, raw_trace_point::RawTracePointLink,
    },
};
use mmwatch_common::{
    counter::{Hook, Ledger},
    names,
};

use super::{Failure, chain, missed, perf::Events, take};
use crate::{
    error::Error,
    kernel::plan::{Attach, Program},
    source::{HookCounters, KernelCounters},
};

/// Attached programs and their rows of the ledger.
pub(super) struct Programs {
    programs: Vec<Program>,
    links: Vec<Link>,
    /// Runs skipped, by program, once the programs are detached.
    missed_at_stop: Vec<Option<u64>>,
    ledger: PerCpuArray<MapData, Ledger>,
    ebpf: Ebpf,
}

/// A link, held until [`Programs::stop`] or the end.
enum Link {
    Fentry(#[expect(dead_code, reason = "held for its Drop")] FEntryLink),
    Fexit(#[expect(dead_code, reason = "held for its Drop")] FExitLink),
    Kprobe {
        #[expect(dead_code, reason = "held for its Drop")]
        link: KProbeLink,
        /// Where the kernel counts what it skipped, and says so.
        missed: Option<missed::Probe>,
    },
    RawTracepoint(#[expect(dead_code, reason = "held for its Drop")] RawTracePointLink),
    PerfEvent(Events),
}

impl Programs {
    /// Loads and attaches `programs` of the object, in this order.
    pub(super) fn attach(
        mut ebpf: Ebpf,
        btf: &Btf,
        programs: Vec<Program>,
    ) -> Result<Self, Failure> {
        let ledger = take(&mut ebpf, names::LEDGER, PerCpuArray::try_from)?;
        let mut links = Vec::with_capacity(programs.len());
        for program in &programs {
            let link = attach_program(&mut ebpf, program, btf)
                .map_err(|error| Failure::Program(*program, chain(&error)))?;
            links.push(link);
        }
        Ok(Self {
            programs,
            links,
            missed_at_stop: Vec::new(),
            ledger,
            ebpf,
        })
    }

    /// The object.
    pub(super) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// What each program counted.
    pub(super) fn counters(&self) -> Result<KernelCounters, Error> {
        let mut hooks = Vec::with_capacity(self.programs.len());
        for (number, program) in self.programs.iter().enumerate() {
            // Before the row: what comes between the two looks is none that was missed.
            let events = self.events(number);
            let ledger = self.row(program.hook).map_err(|error| {
                Error::Kernel(format!("reading the kernel's counters: {}", chain(&error)))
            })?;
            hooks.push(HookCounters {
                hook: program.hook,
                program: program.name.to_owned(),
                ledger,
                missed: match self.missed_at_stop.get(number) {
                    Some(missed) => *missed,
                    None => self.missed(number, program, events, &ledger),
                },
            });
        }
        Ok(KernelCounters { hooks })
    }

    /// How many events there were, where a program runs for each.
    fn events(&self, number: usize) -> Option<u64> {
        match self.links.get(number) {
            Some(Link::PerfEvent(events)) => events.count(),
            _ => None,
        }
    }

    /// Runs of a program that the kernel skipped, as far as it says.
    fn missed(
        &self,
        number: usize,
        program: &Program,
        events: Option<u64>,
        ledger: &Ledger,
    ) -> Option<u64> {
        let loaded = self.ebpf.program(program.name)?;
        let recursion = missed::recursion(loaded);
        match program.attach {
            Attach::Kprobe(_) | Attach::Kretprobe(_) => {
                let Some(Link::Kprobe { missed, .. }) = self.links.get(number) else {
                    return None;
                };
                Some(missed.as_ref()?.missed()? + recursion.unwrap_or(0))
            }
            Attach::Fentry(_) | Attach::Fexit(_) | Attach::RawTracepoint(_) => recursion,
            Attach::PerfEvent(_) => Some(events?.saturating_sub(ledger.fired)),
        }
    }

    fn row(&self, hook: Hook) -> Result<Ledger, MapError> {
        let mut sum = Ledger::default();
        for row in self.ledger.get(&(hook as u32), 0)?.iter() {
            sum += *row;
        }
        Ok(sum)
    }

    /// Detaches them all.
    pub(super) fn stop(&mut self) {
        for link in &self.links {
            if let Link::PerfEvent(events) = link {
                events.disable();
            }
        }
        // Probes and events take their counters along.
        self.missed_at_stop = match self.counters() {
            Ok(counters) => counters.hooks.iter().map(|hook| hook.missed).collect(),
            Err(_) => vec![None; self.programs.len()],
        };
        // In the order of the plan reversed: the lock goes first, so that no
        // section begins whose call's return is no longer hooked.
        while let Some(link) = self.links.pop() {
            drop(link);
        }
    }
}

fn attach_program(ebpf: &mut Ebpf, program: &Program, btf: &Btf) -> Result<Link, ProgramError> {
    let loaded = ebpf
        .program_mut(program.name)
        .ok_or(ProgramError::NotLoaded)?;
    Ok(match program.attach {
        Attach::Fentry(function) => {
            let fentry: &mut FEntry = loaded.try_into()?;
            fentry.load(function, btf)?;
            let id = fentry.attach()?;
            Link::Fentry(fentry.take_link(id)?)
        }
        Attach::Fexit(function) => {
            let fexit: &mut FExit = loaded.try_into()?;
            fexit.load(function, btf)?;
            let id = fexit.attach()?;
            Link::Fexit(fexit.take_link(id)?)
        }
        Attach::Kprobe(function) | Attach::Kretprobe(function) => {
            let kprobe: &mut KProbe = loaded.try_into()?;
            kprobe.load()?;
            let id = kprobe.attach(function, 0)?;
            let link = kprobe.take_link(id)?;
            Link::Kprobe {
                missed: missed::Probe::of(loaded),
                link,
            }
        }
        Attach::RawTracepoint(tracepoint) => {
            let raw: &mut RawTracePoint = loaded.try_into()?;
            raw.load()?;
            let id = raw.attach(tracepoint)?;
            Link::RawTracepoint(raw.take_link(id)?)
        }
        Attach::PerfEvent(event) => {
            let program: &mut PerfEvent = loaded.try_into()?;
            Link::PerfEvent(Events::attach(program, event)?)
        }
    })
}
