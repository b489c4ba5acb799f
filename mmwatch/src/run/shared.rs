//! `shared`: who maps what, read and shown once.

use std::io::{self, Write as _};

use super::written;
use crate::{
    error::Result,
    options::{SharedForm, Sharing},
    process::Proc,
    shared::read::look,
    sink::json,
    ui,
};

/// Prints what was asked for and returns the exit code.
pub(super) fn show(sharing: &Sharing, proc: &Proc) -> Result<u8> {
    let shared = look(proc, &sharing.subject)?;
    if shared.unread_processes > 0 {
        // Nobody is left to read it, if this fails.
        let _ = writeln!(
            io::stderr(),
            "mmwatch: processes left out, as they may not be looked at: {}; run mmwatch as root or \
             with CAP_SYS_PTRACE",
            shared.unread_processes
        );
    }
    let mut out = io::stdout();
    written(match sharing.form {
        SharedForm::Text => out.write_all(ui::shared::draw(&shared, &sharing.subject).as_bytes()),
        SharedForm::Json => json::shared::write_objects(&mut out, &shared),
        SharedForm::Dot => out.write_all(ui::dot::draw(&shared).as_bytes()),
    })?;
    Ok(0)
}
