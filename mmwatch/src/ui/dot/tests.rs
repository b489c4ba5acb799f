use super::*;
use crate::{
    event::Dev,
    sample::{self, SHARING},
    shared::{ObjectId, Wanted},
};

#[test]
fn processes_and_objects_are_a_graph() {
    assert_eq!(
        draw(&sample::shared(&SHARING, &Wanted::All)),
        r#"digraph shared {
  rankdir=LR
  node [shape=box]
  p7 [label="7\nw\"&amp;\\n"]
  p8 [label="8\nreader"]
  p9 [label="9\nboth"]
  o0 [shape=folder label="posix-shm\n/dev/shm/ri\"ng\n00:1a:42"]
  p7 -> o0 [dir=both label="rw-s 8KiB"]
  p8 -> o0 [dir=back label="r--s 4KiB"]
  p9 -> o0 [dir=back label="r--s 4KiB"]
  o1 [shape=folder label="sysv-shm\n/SYSV00000000 (deleted)\n00:01:3"]
  p7 -> o1 [dir=both label="rw-s 4KiB"]
  p9 -> o1 [dir=both label="rw-s 4KiB"]
  o2 [shape=folder label="device?\n/dev/fb0\n00:05:9"]
  p7 -> o2 [dir=both label="rw-s 4KiB"]
  p8 -> o2 [dir=both label="rw-s 4KiB"]
}
"#
    );
    let empty = draw(&sample::shared(&[], &Wanted::All));
    assert_eq!(
        empty,
        "digraph shared {\n  rankdir=LR\n  node [shape=box]\n}\n"
    );
}

#[test]
fn permissions_are_summed_and_private_mappings_dashed() {
    let id = ObjectId {
        dev: Dev(0xfe << 20),
        inode: 4,
        ipc_namespace: None,
    };
    let maps = [
        "1000-3000 rw-p 00000000 fe:00 4 /f\n",
        "1000-3000 -w-s 00000000 fe:00 4 /f\n4000-5000 -w-s 00003000 fe:00 4 /f\n\
         5000-6000 ---s 00003000 fe:00 4 /f\n",
        "1000-2000 ---s 00000000 fe:00 4 /f\n",
    ];
    let [a, b, c] = maps;
    let processes = [(1, "a", a), (2, "b", b), (3, "c", c)];
    let graph = draw(&sample::shared(&processes, &Wanted::Object(id)));
    for edge in [
        "  p1 -> o0 [dir=back style=dashed label=\"rw-p 8KiB\"]\n",
        "  p2 -> o0 [dir=forward label=\"-w-s 12KiB\\n---s 4KiB\"]\n",
        "  p3 -> o0 [dir=none label=\"---s 4KiB\"]\n",
    ] {
        assert!(graph.contains(edge), "{edge}\n{graph}");
    }
}
