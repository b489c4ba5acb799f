//! From the configuration to the end.

use std::{
    env, fs,
    io::Write as _,
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use super::daemon::{Daemon, Scratch, free_address, mmwatch, until};

const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/systemd/mmwatch.service"
);

pub fn the_configuration_is_checked() {
    let scratch = Scratch::new();
    let check = |text: &str| {
        let file = scratch.file("mmwatch.toml", text);
        let mut command = mmwatch();
        command
            .args(["agent", "--check-config", "--config"])
            .arg(file);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let (code, said) = check("interval = \"2s\"\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("mmwatch.toml is fine\n"), "{said}");
    let (code, said) = check("interval = \"2s\"\ntopk = 5\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.ends_with("mmwatch.toml:2:1: there is no key `topk`; did you mean `top_k`?\n"),
        "{said}"
    );
    let missing = scratch.path("missing");
    let mut command = mmwatch();
    command
        .args(["agent", "--check-config", "--config"])
        .arg(missing);
    assert_eq!(command.status().unwrap().code(), Some(2));
}

pub fn a_signal_reads_the_configuration_again() {
    let scratch = Scratch::new();
    let file = scratch.file("mmwatch.toml", "interval = \"200ms\"\ntop_k = 50\n");
    let daemon = Daemon::ready(&["--config", file.to_str().unwrap()]);
    let series = || {
        let text = daemon.get("/metrics").body;
        text.lines()
            .filter(|line| line.starts_with("mmwatch_process_vmas{"))
            .count()
    };
    until("many series", || (series() > 4).then_some(()));
    fs::write(&file, "interval = \"200ms\"\ntop_k = 2\n").unwrap();
    daemon.signal(libc::SIGHUP);
    until("two and the rest", || (series() == 3).then_some(()));

    fs::write(&file, "interval = \"200ms\"\ntop_k = 0\n").unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.wait_until_said("stays as it was");
    assert_eq!(series(), 3);
    fs::write(
        &file,
        "interval = \"100ms\"\ntop_k = 1\ngroup_by = \"comm\"\n",
    )
    .unwrap();
    daemon.signal(libc::SIGHUP);
    until("one and the rest", || (series() == 2).then_some(()));
    daemon.wait_until_said("at the next start only: group_by");
}

pub fn systemd_is_told_and_the_end_is_quick() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let len = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    let address = free_address();
    let args = [
        ["--interval", "200ms"],
        ["--listen", &address],
        ["--request-timeout", "1h"],
    ];
    let args = args.concat();
    let daemon = Daemon::spawn(&args, address.clone(), &[("NOTIFY_SOCKET", &path)]);
    let (mut beats, mut is_ready) = (0, false);
    while !is_ready || beats < 3 {
        match hear().trim() {
            "WATCHDOG=1" => beats += 1,
            "READY=1" => {
                is_ready = true;
                assert_eq!(daemon.get("/readyz").status, 200);
            }
            said => panic!("{said}"),
        }
    }
    // A request that never ends holds nothing up: two seconds are promised, and ten is
    // when systemd loses patience.
    let mut endless = TcpStream::connect(&address).unwrap();
    endless
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: loc")
        .unwrap();
    let start = Instant::now();
    let said = daemon.end();
    assert!(start.elapsed() < Duration::from_secs(9));
    assert!(said.contains(" operations, "), "{said}");
    assert!(said.contains("ledger: "), "{said}");
    assert!(!said.contains("does not balance"), "{said}");
    while hear().trim() != "STOPPING=1" {}
}

pub fn two_capabilities_are_enough() {
    let address = free_address();
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all"])
        .arg(mmwatch().get_program())
        .args(["agent", "--listen", &address]);
    let daemon = Daemon::of(&mut command, address);
    daemon.wait_until_ready();
    let own = std::process::id();
    assert_eq!(daemon.get(&format!("/api/v1/process/{own}")).status, 200);
}

pub fn the_unit_is_sound() {
    let Ok(output) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("systemd-analyze is not there");
        return;
    };
    assert!(output.status.success());
    // What it starts is where the test has it.
    let unit = fs::read_to_string(UNIT).unwrap();
    let here = env::current_exe().unwrap();
    let unit = unit.replace("/usr/bin/mmwatch", here.to_str().unwrap());
    let scratch = Scratch::new();
    let unit = scratch.file("mmwatch.service", &unit);
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(&unit).output().unwrap()
    };
    let output = analyze(&["verify"]);
    assert!(output.status.success(), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8(said).unwrap(), "");
    // A threshold in tenths: fails above it.
    let output = analyze(&["security", "--no-pager", "--offline=true", "--threshold=25"]);
    assert!(output.status.success(), "{output:?}");
}
