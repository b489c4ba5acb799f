//! Who is told what.

use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
};

use super::{
    daemon::{Answer, Daemon, Scratch, ask, free_address, until},
    storm::Storm,
};

fn with(daemon: &Daemon, path: &str, headers: &str) -> Answer {
    let stream = TcpStream::connect(&daemon.address).unwrap();
    ask(stream, path, headers).unwrap()
}

pub fn what_is_asked_for_is_told() {
    let daemon = Daemon::ready(&["--interval", "200ms"]);
    let mut storm = Storm::new();
    storm.rage(5);
    let pid = storm.pid();
    assert_eq!(daemon.get("/healthz").body, "ok\n");
    assert_eq!(daemon.get("/readyz").body, "ready\n");

    let path = format!("/api/v1/process/{pid}");
    let process = until("the child", || {
        let answer = daemon.get(&path);
        (answer.status == 200 && answer.json()["total"]["suspects"]["write-exec"] == 1)
            .then(|| answer.json())
    });
    assert_eq!(process["type"], "process");
    assert_eq!(process["pid"], pid);
    let lines = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let vmas = lines.lines().filter(|line| !line.ends_with("[vsyscall]"));
    assert_eq!(process["vmas"], vmas.count());

    let scratch = Scratch::new();
    let socket = scratch.path("socket");
    let listen = format!("unix:{}", socket.display());
    let private = Daemon::spawn(&["--listen", &listen], String::new(), &[]);
    let asked = |path: &str| {
        until("an answer", || {
            ask(UnixStream::connect(&socket).ok()?, path, "")
        })
    };
    let space = asked(&format!("/api/v1/maps/{pid}")).json();
    assert_eq!(space["type"], "maps");
    assert_eq!(
        space["vmas"].as_array().unwrap().len(),
        lines.lines().count()
    );

    let report = daemon.get("/api/v1/processes").json();
    assert_eq!(report["type"], "report");
    let processes = report["processes"].as_array().unwrap();
    assert!(processes.iter().any(|process| process["pid"] == pid));
    let two = daemon.get("/api/v1/processes?rows=2").json();
    assert_eq!(two["processes"].as_array().unwrap().len(), 2);
    let users = daemon.get("/api/v1/processes?by=user&rows=1").json();
    assert_eq!(users["groups"].as_array().unwrap().len(), 1);

    for (path, status) in [
        ("/api/v1/processes?by=host", 400),
        ("/api/v1/processes?row=2", 400),
        ("/api/v1/process/0", 404),
        ("/api/v1/process/x", 400),
        ("/nothing", 404),
    ] {
        assert_eq!(daemon.get(path).status, status, "{path}");
    }
    for path in ["/api/v1/maps/2", "/api/v1/maps/4194305"] {
        assert_eq!(asked(path).status, 404, "{path}");
    }
    private.end();
}

pub fn foreign_names_are_refused_on_loopback() {
    let daemon = Daemon::ready(&[]);
    for path in ["/metrics", "/healthz", "/api/v1/processes"] {
        assert_eq!(with(&daemon, path, "Host: evil.example\r\n").status, 403);
        assert_eq!(with(&daemon, path, "").status, 403);
        assert_eq!(with(&daemon, path, "Host: localhost\r\n").status, 200);
    }
}

pub fn a_token_opens_what_it_should() {
    let scratch = Scratch::new();
    let token = scratch.file("token", "0123456789abcdef\n");
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let port = free_address().rsplit_once(':').unwrap().1.to_owned();
    let (token_file, open) = (token.to_str().unwrap(), format!("0.0.0.0:{port}"));
    let args = ["--listen", &open, "--token-file", token_file];
    let daemon = Daemon::spawn(&args, format!("127.0.0.1:{port}"), &[]);
    // No token, and whatever name: orchestrators look here.
    daemon.wait_until_ready();
    let pid = std::process::id();
    let (process, maps) = (
        format!("/api/v1/process/{pid}"),
        format!("/api/v1/maps/{pid}"),
    );
    for path in [
        "/metrics",
        "/api/v1/processes",
        process.as_str(),
        maps.as_str(),
    ] {
        let status = |headers| with(&daemon, path, headers).status;
        assert_eq!(status(""), 401, "{path}");
        assert_eq!(status("Authorization: Bearer 0123456789abcdeF\r\n"), 401);
        assert_eq!(status("Authorization: Bearer 0123456789abcdef\r\n"), 200);
    }
    // A new one counts from the next SIGHUP on.
    fs::write(&token, "fedcba9876543210").unwrap();
    daemon.signal(libc::SIGHUP);
    until("the new token", || {
        let headers = "Authorization: Bearer fedcba9876543210\r\n";
        (with(&daemon, "/metrics", headers).status == 200).then_some(())
    });
}

pub fn a_socket_does_as_well_as_a_port() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let listen = format!("unix:{}", path.display());
    let start = || {
        let daemon = Daemon::spawn(&["--listen", &listen], String::new(), &[]);
        until("readiness", || {
            let stream = UnixStream::connect(&path).ok()?;
            ask(stream, "/readyz", "").filter(|answer| answer.status == 200)
        });
        daemon
    };
    let daemon = start();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // Killed, it leaves the socket behind; the next one takes its place.
    drop(daemon);
    assert!(path.exists());
    start().end();
    assert!(!Path::new(&path).exists());
}

pub fn who_says_nothing_is_hung_up_on() {
    let daemon = Daemon::ready(&["--request-timeout", "1s", "--max-connections", "2"]);
    let connect = || TcpStream::connect(&daemon.address).unwrap();
    let (mut silent, mut slow) = (connect(), connect());
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc")
        .unwrap();
    // All places are taken; this one is answered once the others are gone.
    assert_eq!(daemon.get("/healthz").body, "ok\n");
    for stream in [&mut silent, &mut slow] {
        let mut text = Vec::new();
        // The end, in whatever way.
        let _ = stream.read_to_end(&mut text);
        assert!(!text.starts_with(b"HTTP/1.1 200"));
    }
    let large = format!("Host: localhost\r\nX: {}\r\n", "x".repeat(64 << 10));
    let answer = ask(connect(), "/healthz", &large);
    assert!(answer.is_none_or(|answer| answer.status == 431));
}
