//! Filters on what was recorded: the same that the kernel programs apply to what
//! happens, told by events.

use crate::{
    event::{Event, What},
    identity::{Cgroup, Owner, Who},
    kernel::load::KernelFilter,
    source::Listed,
};

/// What is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// All that events tell by themselves. Its cgroup does not count.
    pub kernel: KernelFilter,
    /// Only processes of these cgroups.
    pub cgroups: Option<Within>,
    /// Bytes of a page of the kernel that was watched.
    pub page_bytes: u64,
}

/// Cgroups, with all that are below them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// The one with this path.
    Path(String),
    /// Those of containers that are called so, or whose id begins so.
    Container(String),
}

impl Within {
    /// Whether a cgroup is one of them.
    pub fn has(&self, cgroup: &Cgroup) -> bool {
        let path = cgroup.path.as_str();
        match self {
            Self::Path(root) => {
                let root = root.trim_matches('/');
                let below = path.trim_start_matches('/').strip_prefix(root);
                below
                    .is_some_and(|rest| root.is_empty() || rest.is_empty() || rest.starts_with('/'))
            }
            // A container has cgroups of its own, and containers in it.
            Self::Container(wanted) => {
                let container = cgroup.owner.container.as_ref();
                let name = container.and_then(|container| container.names.name.as_ref());
                let ends = path.match_indices('/').map(|(end, _)| end);
                name == Some(wanted)
                    || ends
                        .chain([path.len()])
                        .filter_map(|end| Owner::of(path.get(..end)?).container)
                        .any(|container| container.id.starts_with(wanted.as_str()))
            }
        }
    }
}

impl Filter {
    /// Whether everything is let through.
    pub fn is_all(&self) -> bool {
        let KernelFilter {
            pids,
            // Of what happens now only.
            follow: _,
            held: _,
            pid_namespace: _,
            comm,
            cgroup: _,
            uid,
            ops,
            min_size_bytes,
            failed_only,
            backings,
            suspects,
        } = &self.kernel;
        pids.is_empty()
            && comm.is_none()
            && uid.is_none()
            && *ops & all_ops() == all_ops()
            && *min_size_bytes == 0
            && !failed_only
            && *backings == 0
            && *suspects == 0
            && self.cgroups.is_none()
    }

    /// Whether it is asked whose a process is.
    pub fn needs_who(&self) -> bool {
        !self.kernel.pids.is_empty() || self.cgroups.is_some()
    }

    /// Whether an event is let through; `who` is whose its process is, if that is
    /// known.
    pub fn wants(&self, event: &Event, who: Option<&Who>) -> bool {
        let filter = &self.kernel;
        let bit = |bits: u32, place: u32| bits >> place & 1 != 0;
        self.wants_process(event.actor.tgid, who)
            && bit(filter.ops, event.op() as u32)
            && (!filter.failed_only || event.errno.is_some())
            && (filter.backings == 0
                || event
                    .backing()
                    .is_some_and(|backing| bit(filter.backings, backing as u32)))
            && (filter.suspects == 0 || u32::from(event.suspects.bits()) & filter.suspects != 0)
            && filter.uid.is_none_or(|uid| event.actor.uid == uid)
            && filter
                .comm
                .is_none_or(|comm| event.actor.comm.bytes() == comm)
            && (filter.min_size_bytes == 0
                || size_bytes(event, self.page_bytes) >= filter.min_size_bytes)
    }

    /// Whether a process is among those that are listed. As in the kernel, what
    /// is asked of its doings is not asked of itself.
    pub fn wants_listed(&self, row: &Listed, who: Option<&Who>) -> bool {
        self.wants_process(row.tgid, who)
    }

    fn wants_process(&self, tgid: u32, who: Option<&Who>) -> bool {
        let pids = &self.kernel.pids;
        let cgroup = who.and_then(|who| who.cgroup.as_ref());
        (pids.is_empty() || pids.contains(&Who::shown_pid(who, tgid)))
            && self
                .cgroups
                .as_ref()
                .is_none_or(|within| cgroup.is_some_and(|cgroup| within.has(cgroup)))
    }
}

/// The bits of all operations.
pub fn all_ops() -> u32 {
    crate::event::Op::ALL
        .iter()
        .fold(0, |bits, &op| bits | 1 << op as u32)
}

/// What `--min-size` compares with: what was covered or, of what failed, what was
/// asked for; 0 for operations without a size.
fn size_bytes(event: &Event, page_bytes: u64) -> u64 {
    // As the kernel programs, which wrap around.
    let whole_pages = |bytes: u64| bytes.wrapping_add(page_bytes - 1) & !(page_bytes - 1);
    let range = event.range();
    let asked = range.requested_len_bytes;
    let failed = event.errno.is_some();
    match &event.what {
        What::Map(_) | What::Unmap(_) if failed => asked.or(range.len_bytes),
        What::Map(_) | What::Unmap(_) => event.covered_bytes(),
        What::Protect(_) | What::Remap(_) => asked.map(whole_pages),
        What::Brk(brk) if failed => match (brk.requested_addr, range.addr) {
            (Some(wanted), Some(end)) => Some(wanted.wrapping_sub(end)),
            _ => None,
        },
        What::Brk(_) | What::Grow(_) | What::Exit(_) => range.len_bytes,
        What::Advise(_) => asked,
        What::Fork(_) | What::Exec(_) => None,
    }
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{Backing, Op, Suspect},
        flags::Errno,
        sample,
    };

    fn all() -> Filter {
        Filter {
            kernel: KernelFilter::NONE,
            cgroups: None,
            page_bytes: 4096,
        }
    }

    fn with(change: impl FnOnce(&mut KernelFilter)) -> Filter {
        let mut filter = all();
        change(&mut filter.kernel);
        assert!(!filter.is_all());
        filter
    }

    /// Operations whose sample events are let through.
    fn ops(filter: &Filter) -> Vec<Op> {
        let ops = Op::ALL.iter().copied();
        ops.filter(|&op| filter.wants(&sample::event(op), None))
            .collect()
    }

    #[test]
    fn without_a_filter_all_is_let_through() {
        assert!(all().is_all());
        assert_eq!(ops(&all()), Op::ALL);
        for &op in Op::ALL {
            assert!(all().wants(&sample::bare(op), None));
        }
    }

    #[test]
    fn processes_are_told_apart() {
        let event = sample::event(Op::Map);
        let other = sample::by(7, "other", event.clone());
        let of = |filter: Filter| (filter.wants(&event, None), filter.wants(&other, None));
        assert_eq!(of(with(|f| f.pids = vec![100])), (true, false));
        assert_eq!(of(with(|f| f.pids = vec![6, 7])), (false, true));
        let name = sample::comm("other").bytes();
        assert_eq!(of(with(|f| f.comm = Some(name))), (false, true));
        assert_eq!(of(with(|f| f.uid = Some(1000))), (true, true));
        assert_eq!(of(with(|f| f.uid = Some(0))), (false, false));
        let listed = sample::listed(7, "x", 1);
        assert!(with(|f| f.pids = vec![7]).wants_listed(&listed, None));
        assert!(!with(|f| f.pids = vec![8]).wants_listed(&listed, None));
        // What it does is left out, not what it is.
        assert!(with(|f| f.uid = Some(0)).wants_listed(&listed, None));
    }

    #[test]
    fn operations_are_told_apart() {
        let wanted = [Op::Unmap, Op::Exec];
        let bits = wanted.iter().fold(0, |bits, &op| bits | 1 << op as u32);
        assert_eq!(ops(&with(|f| f.ops = bits)), wanted);
        let failed = with(|f| f.failed_only = true);
        assert_eq!(ops(&failed), []);
        assert!(failed.wants(&sample::failed_map(), None));
    }

    #[test]
    fn backings_are_told_apart() {
        let of = |backing: Backing| with(|f| f.backings = 1 << backing as u32);
        assert_eq!(ops(&of(Backing::PrivateFile)), [Op::Map]);
        assert_eq!(ops(&of(Backing::PrivateAnonymous)), [Op::Brk, Op::Grow]);
        assert_eq!(ops(&of(Backing::SharedFile)), []);
        // What is not known is not let through.
        assert!(!of(Backing::PrivateFile).wants(&sample::bare(Op::Map), None));
    }

    #[test]
    fn suspects_are_told_apart() {
        let of = |suspect: Suspect| with(|f| f.suspects = 1 << suspect as u32);
        assert!(of(Suspect::AnonExec).wants(&sample::suspect(), None));
        assert!(of(Suspect::WriteToExec).wants(&sample::suspect(), None));
        assert!(!of(Suspect::HeapExec).wants(&sample::suspect(), None));
        assert_eq!(ops(&with(|f| f.suspects = 0x7f)), []);
    }

    #[test]
    fn sizes_are_those_that_the_kernel_compares() {
        let size = |event: &Event| size_bytes(event, 4096);
        for (op, want) in [
            (Op::Map, 8192),
            (Op::Unmap, 4096),
            (Op::Protect, 4096),
            (Op::Remap, 16384),
            (Op::Brk, 135_168),
            (Op::Grow, 4096),
            (Op::Advise, 4096),
            (Op::Fork, 0),
            (Op::Exec, 0),
            (Op::Exit, 409_600),
        ] {
            assert_eq!(size(&sample::event(op)), want, "{op:?}");
            let filter = |bytes| with(|f| f.min_size_bytes = bytes);
            assert!(!filter(want + 1).wants(&sample::event(op), None), "{op:?}");
            if want > 0 {
                assert!(filter(want).wants(&sample::event(op), None), "{op:?}");
            }
        }
        // Of calls that failed, what was asked for, in pages or not.
        let failed = |op| {
            let mut event = sample::event(op);
            event.errno = Errno::new(libc::ENOMEM as u32);
            match &mut event.what {
                What::Map(map) => map.range.len_bytes = Some(0),
                What::Unmap(unmap) => unmap.range.len_bytes = Some(0),
                What::Protect(protect) => protect.range.requested_len_bytes = Some(u64::MAX),
                What::Brk(brk) => brk.range.len_bytes = Some(0),
                _ => {}
            }
            size(&event)
        };
        assert_eq!(failed(Op::Map), 5000);
        assert_eq!(failed(Op::Unmap), 8192);
        assert_eq!(failed(Op::Protect), 0);
        assert_eq!(failed(Op::Remap), 16384);
        assert_eq!(failed(Op::Brk), 0x2_1000);
        // Where no hook saw the range, the net change.
        let mut bare = sample::bare(Op::Unmap);
        bare.space.total_delta_bytes = Some(-12288);
        assert_eq!(size(&bare), 12288);
        assert_eq!(size(&sample::bare(Op::Protect)), 0);
    }

    #[test]
    fn cgroups_hold_what_is_below_them() {
        let path = |root: &str| Within::Path(root.to_owned());
        for (within, of, want) in [
            (path("/a"), "/a", true),
            (path("a/"), "/a/b/c", true),
            (path("/a"), "/ab", false),
            (path("/a/b"), "/a", false),
            (path("/"), "/a", true),
            (path("/"), "/", true),
            (path("/a"), "/", false),
        ] {
            let cgroup = Cgroup::new(of.to_owned());
            assert_eq!(within.has(&cgroup), want, "{within:?} {of}");
        }
        let id = "4f0c".repeat(16);
        let container = |id: &str| Within::Container(id.to_owned());
        for (within, of, want) in [
            (container("4f0"), format!("/docker/{id}"), true),
            (container("4f0"), format!("/docker/{id}/init.scope"), true),
            (
                container(&id),
                format!("/system.slice/docker-{id}.scope"),
                true,
            ),
            (container("f0"), format!("/docker/{id}"), false),
            (container("4f0"), "/docker".to_owned(), false),
        ] {
            let cgroup = Cgroup::new(of.clone());
            assert_eq!(within.has(&cgroup), want, "{within:?} {of}");
        }
        let mut named = Cgroup::new(format!("/docker/{id}"));
        if let Some(container) = &mut named.owner.container {
            container.names.name = Some("web".into());
        }
        assert!(container("web").has(&named));
        assert!(!container("we").has(&named));
        let filter = Filter {
            cgroups: Some(path("/a")),
            ..all()
        };
        assert!(!filter.is_all());
        let event = sample::event(Op::Map);
        let who = |path: &str, here_pid| Who {
            namespace_pid: None,
            here_pid,
            cgroup: Some(Arc::new(Cgroup::new(path.to_owned()))),
        };
        assert!(filter.wants(&event, Some(&who("/a/b", None))));
        assert!(!filter.wants(&event, Some(&who("/b", None))));
        // Whose it is, is not known.
        assert!(!filter.wants(&event, None));
        // Ids are those that the recorder saw.
        let one = with(|f| f.pids = vec![1]);
        assert!(one.wants(&event, Some(&who("/", Some(1)))));
        assert!(!one.wants(&event, Some(&who("/", None))));
    }
}
