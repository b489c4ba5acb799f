//! Files that decide what the agent does, or that hold its secrets: read only where nobody but
//! root and the agent's own user can have written them.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// It holds no secret.
    Everybody,
    /// Its owner and its group.
    Group,
}

/// The largest file that is read: others are no configuration.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a file.
///
/// # Errors
///
/// What opening and reading it say, and one sentence where it is not a regular file, belongs to
/// another user than root and the agent's own, can be written by its group or by everybody, can
/// be read by more than `readers`, or is larger than 1 MiB.
pub fn read(path: &Path, readers: Readers) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer otherwise.
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    // Of what is open, which cannot be another file a moment later.
    judge(&file.metadata()?, own_user()?, readers).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Like [`read`], for text.
///
/// # Errors
///
/// As [`read`], and where it is not UTF-8.
pub fn read_text(path: &Path, readers: Readers) -> io::Result<String> {
    String::from_utf8(read(path, readers)?).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn judge(metadata: &Metadata, own_user: u32, readers: Readers) -> Result<(), String> {
    if !metadata.file_type().is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if ![0, own_user].contains(&metadata.uid()) {
        return Err(format!(
            "it belongs to user {}, who could change it; use chown root",
            metadata.uid()
        ));
    }
    let mode = metadata.mode();
    if mode & 0o022 != 0 {
        return Err("others may write it; use chmod go-w".to_owned());
    }
    if readers == Readers::Group && mode & 0o007 != 0 {
        return Err("everybody may read it; use chmod 600".to_owned());
    }
    Ok(())
}

/// The agent's own user: the owner of its entry in `/proc`.
///
/// # Errors
///
/// What reading `/proc` says, where it is not mounted.
pub fn own_user() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    #[test]
    fn only_files_that_nobody_else_writes_are_read() {
        let path = std::env::temp_dir().join(format!("mmwatch-trusted-{}", std::process::id()));
        let read = |mode, readers| {
            fs::write(&path, "text").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read_text(&path, readers).map_err(|error| error.to_string())
        };
        assert_eq!(read(0o644, Readers::Everybody).unwrap(), "text");
        assert_eq!(read(0o640, Readers::Group).unwrap(), "text");
        let refused = |mode, readers| read(mode, readers).unwrap_err();
        assert!(refused(0o664, Readers::Everybody).contains("chmod go-w"));
        assert!(refused(0o646, Readers::Everybody).contains("chmod go-w"));
        assert!(refused(0o644, Readers::Group).contains("chmod 600"));

        fs::write(&path, vec![b'a'; MAX_BYTES as usize + 1]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = read_text(&path, Readers::Group).unwrap_err().to_string();
        assert_eq!(error, "it is larger than 1 MiB");
        fs::remove_file(&path).unwrap();

        let error = read_text(&path, Readers::Group).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for other in ["/dev/null", "/tmp"] {
            let error = read_text(Path::new(other), Readers::Everybody).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{other}");
        }
        // Nobody writes to it, and nothing waits.
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let error = read_text(&path, Readers::Everybody).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        // Root's, seen by another user, and the other way round.
        let metadata = fs::metadata("/etc/passwd").unwrap();
        assert_eq!(judge(&metadata, 1000, Readers::Everybody), Ok(()));
        let own = own_user().unwrap();
        let path = std::env::temp_dir().join(format!("mmwatch-owner-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(own.max(1)), None).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let reason = judge(&metadata, own.max(1) + 1, Readers::Group).unwrap_err();
        assert!(reason.contains("use chown root"), "{reason}");
        fs::remove_file(&path).unwrap();
    }
}
