//! The file, or the files, that a recording is written to.
//!
//! The newest is always the one with the name that was asked for; where it is
//! rotated, the one before it has `.1` added to its name, the one before that
//! `.2`, and so on. A lock on the newest keeps other writers away.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::frame::MAGIC;
use crate::error::{Error, Result};

/// How large a recording may become, and in how many files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of all files together, at most.
    pub max_bytes: Option<u64>,
    /// Bytes of a file, after which another is begun.
    pub rotate_bytes: Option<u64>,
    /// Files that are kept, the newest among them, at most.
    pub keep: Option<usize>,
}

/// Where a recording is written to.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    size: Size,
    file: File,
    /// Whole frames alone.
    len: u64,
    /// Bytes of the older files, the newest first: `.1`, `.2`, …
    older: VecDeque<u64>,
    /// Whether the file was made by us, and nothing is in it yet.
    is_fresh: bool,
    /// Older files of the recording that is overwritten: `.1`, `.2`, …
    overwritten: usize,
}

impl Destination {
    /// Opens a file for us alone. `force` overwrites a recording, with its older
    /// files.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where there is something that may not be overwritten, or
    /// that another mmwatch is writing; [`Error::Io`] where it cannot be written.
    pub fn open(path: &Path, size: Size, force: bool) -> Result<Self> {
        let shown = path.display();
        let (file, is_fresh) = match options().create_new(true).open(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = options().open(path);
                (file.map_err(Error::io(format!("opening {shown}")))?, false)
            }
            Err(error) => return Err(Error::io(format!("making {shown}"))(error)),
        };
        let metadata = file
            .metadata()
            .map_err(Error::io(format!("looking at {shown}")))?;
        if !metadata.is_file() {
            return Err(Error::Usage(format!(
                "{shown} is no regular file, and a recording can be written to nothing else; \
                 name another"
            )));
        }
        let taken = || {
            Error::Usage(format!(
                "{shown} is being written by another mmwatch; end that one or name another file"
            ))
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken()),
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(format!("locking {shown}"))(error));
            }
        }
        // The writer before may have put another file there meanwhile.
        if fs::metadata(path).ok().map(|now| (now.dev(), now.ino()))
            != Some((metadata.dev(), metadata.ino()))
        {
            return Err(taken());
        }
        if !is_fresh {
            check_overwrite(&file, path, force)?;
        }
        let overwritten = check_older(path, size.rotate_bytes.is_some(), force)?;
        Ok(Self {
            path: path.to_owned(),
            size,
            file,
            len: 0,
            older: VecDeque::new(),
            is_fresh,
            overwritten,
        })
    }

    /// Writes what the first file begins with, over what was there.
    pub(super) fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        for number in 1..=self.overwritten {
            fs::remove_file(self.older_path(number)).or_else(not_found_is_fine)?;
        }
        self.overwritten = 0;
        self.file.set_len(0)?;
        self.append(bytes)
    }

    /// The newest file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.len + self.older.iter().sum::<u64>()
    }

    /// Files that there are.
    pub(super) fn files(&self) -> usize {
        self.older.len() + 1
    }

    /// Whether so many bytes go into another file.
    pub(super) fn is_to_rotate(&self, bytes: usize) -> bool {
        let rotate_bytes = self.size.rotate_bytes.unwrap_or(u64::MAX);
        self.len.saturating_add(bytes as u64) > rotate_bytes
    }

    /// Whether there may be so many bytes more; older files go until there may.
    pub(super) fn make_room(&mut self, bytes: u64) -> bool {
        let Some(max_bytes) = self.size.max_bytes else {
            return true;
        };
        while self.bytes().saturating_add(bytes) > max_bytes {
            if !self.remove_oldest() {
                return false;
            }
        }
        true
    }

    /// Appends all of it or, where that fails, nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.file.write_all_at(bytes, self.len);
        match &result {
            Ok(()) => {
                self.len += bytes.len() as u64;
                self.is_fresh = false;
            }
            // Whatever comes next overwrites what this leaves, should it fail too.
            Err(_) => drop(self.file.set_len(self.len)),
        }
        result
    }

    /// Begins another file, with `bytes`; the one before gets `.1` added to its
    /// name. Where that fails, it goes on as it was.
    pub(super) fn rotate(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = with_suffix(&self.path, "new");
        let file = match options().create_new(true).open(&new) {
            // Left by one that was ended just then, if it is a recording.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut file = options().open(&new)?;
                match content(&mut file)? {
                    Content::Nothing | Content::Recording => file.set_len(0)?,
                    Content::Other => return Err(error),
                }
                file
            }
            file => file?,
        };
        let result = self.replace(&file, &new, bytes);
        if result.is_err() {
            // Gone already is as good.
            let _ = fs::remove_file(&new);
            return result;
        }
        self.file = file;
        self.len = bytes.len() as u64;
        Ok(())
    }

    fn replace(&mut self, file: &File, new: &Path, bytes: &[u8]) -> io::Result<()> {
        file.try_lock()?;
        file.write_all_at(bytes, 0)?;
        let keep = self.size.keep.unwrap_or(usize::MAX);
        while self.files() >= keep.max(2) && self.remove_oldest() {}
        if keep > 1 {
            for number in (1..self.files()).rev() {
                let result = fs::rename(self.older_path(number), self.older_path(number + 1));
                // One that somebody removed is no reason to end.
                result.or_else(not_found_is_fine)?;
            }
            // Both names at first, so that there is never none that is locked.
            let first = self.older_path(1);
            if fs::hard_link(&self.path, &first).is_err() {
                fs::rename(&self.path, &first)?;
            }
        }
        fs::rename(new, &self.path)?;
        if keep > 1 {
            self.older.push_front(self.len);
        }
        Ok(())
    }

    /// Writes what the kernel still has in memory.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn older_path(&self, number: usize) -> PathBuf {
        with_suffix(&self.path, &number.to_string())
    }

    /// Returns whether there was one.
    fn remove_oldest(&mut self) -> bool {
        if self.older.is_empty() {
            return false;
        }
        // What cannot be removed is not ours any more.
        let _ = fs::remove_file(self.older_path(self.older.len()));
        self.older.pop_back();
        true
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if self.is_fresh {
            // Nothing came of it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How files are opened. What they tell of others is for their owner alone.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn not_found_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// `FILE.1`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

/// What a file begins with.
enum Content {
    Nothing,
    Recording,
    Other,
}

fn content(file: &mut impl io::Read) -> io::Result<Content> {
    let mut start = Vec::with_capacity(MAGIC.len());
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(match start.as_slice() {
        [] => Content::Nothing,
        start if start == MAGIC => Content::Recording,
        _ => Content::Other,
    })
}

/// Refuses what may not be overwritten.
fn check_overwrite(mut file: &File, path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    match content(&mut file).map_err(Error::io(format!("reading {shown}")))? {
        Content::Nothing => Ok(()),
        Content::Recording if force => Ok(()),
        Content::Recording => Err(Error::Usage(format!(
            "{shown} is a recording already; name another file, or overwrite it with --force"
        ))),
        Content::Other => Err(Error::Usage(format!(
            "{shown} is there and is no recording, and mmwatch overwrites nothing else; name \
             another file"
        ))),
    }
}

/// How many older files there are of a recording that is overwritten. Refuses to
/// put others' to those of a recording that is to be rotated.
fn check_older(path: &Path, rotates: bool, force: bool) -> Result<usize> {
    for number in 1.. {
        let older = with_suffix(path, &number.to_string());
        let shown = older.display();
        let mut file = match File::open(&older) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(number - 1),
            Err(error) => return Err(Error::io(format!("opening {shown}"))(error)),
        };
        match content(&mut file).map_err(Error::io(format!("reading {shown}")))? {
            Content::Recording if force => {}
            Content::Recording | Content::Nothing | Content::Other if rotates => {
                return Err(Error::Usage(format!(
                    "{shown} is there, and could be taken for an older file of {}; name another \
                     file, or remove it{}",
                    path.display(),
                    if force {
                        ""
                    } else {
                        " (--force removes recordings)"
                    }
                )));
            }
            Content::Recording | Content::Nothing | Content::Other => return Ok(number - 1),
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is gone afterwards.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mmwatch-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("rec")
        }

        /// Names and sizes.
        fn list(&self) -> Vec<(String, u64)> {
            let mut list: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let name = entry.file_name().into_string().unwrap();
                    (name, entry.metadata().unwrap().len())
                })
                .collect();
            list.sort();
            list
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refusal(result: Result<Destination>) -> String {
        match result {
            Err(Error::Usage(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn there_is_one_writer() {
        let scratch = Scratch::new("one-writer");
        let path = scratch.file();
        let mut first = Destination::open(&path, Size::default(), false).unwrap();
        for force in [false, true] {
            let second = Destination::open(&path, Size::default(), force);
            assert!(refusal(second).contains("being written by another"));
        }
        first.append(&MAGIC).unwrap();
        first.rotate(&MAGIC).unwrap();
        let second = Destination::open(&path, Size::default(), true);
        assert!(refusal(second).contains("being written by another"));
        drop(first);
        Destination::open(&path, Size::default(), true).unwrap();
    }

    #[test]
    fn nothing_but_recordings_is_overwritten() {
        let scratch = Scratch::new("overwrite");
        let path = scratch.file();
        fs::write(&path, "precious").unwrap();
        for force in [false, true] {
            let refused = Destination::open(&path, Size::default(), force);
            assert!(refusal(refused).contains("is no recording"));
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        fs::write(&path, MAGIC).unwrap();
        let refused = Destination::open(&path, Size::default(), false);
        assert!(refusal(refused).contains("--force"));
        assert_eq!(fs::read(&path).unwrap(), MAGIC);
        fs::write(scratch.0.join("rec.1"), MAGIC).unwrap();
        // Not before there is something to take its place.
        let mut forced = Destination::open(&path, Size::default(), true).unwrap();
        assert_eq!(scratch.list().len(), 2);
        assert_eq!(fs::read(&path).unwrap(), MAGIC);
        forced.begin(b"new").unwrap();
        drop(forced);
        assert_eq!(scratch.list(), [("rec".to_owned(), 3)]);
        fs::write(&path, MAGIC).unwrap();

        fs::write(scratch.0.join("rec.1"), "precious").unwrap();
        let rotated = Size {
            rotate_bytes: Some(1),
            ..Size::default()
        };
        let refused = Destination::open(&path, rotated, true);
        assert!(refusal(refused).contains("rec.1 is there"));
        drop(Destination::open(&path, Size::default(), true).unwrap());

        let refused = Destination::open(Path::new("/dev/null"), Size::default(), true);
        assert!(refusal(refused).contains("no regular file"));
    }

    #[test]
    fn nothing_else_makes_way_for_a_new_file() {
        let scratch = Scratch::new("new");
        let mut destination = Destination::open(&scratch.file(), Size::default(), false).unwrap();
        destination.begin(&MAGIC).unwrap();
        fs::write(scratch.0.join("rec.new"), "precious").unwrap();
        destination.rotate(&MAGIC).unwrap_err();
        destination.append(b"more").unwrap();
        assert_eq!(fs::read(scratch.0.join("rec.new")).unwrap(), b"precious");
        // One that was left by another writer does.
        fs::write(scratch.0.join("rec.new"), [&MAGIC[..], b"left"].concat()).unwrap();
        destination.rotate(&MAGIC).unwrap();
        let want = [("rec", 8), ("rec.1", 12)];
        assert_eq!(
            scratch.list(),
            want.map(|(name, len)| (name.to_owned(), len))
        );
        let mode = fs::metadata(scratch.0.join("rec.1")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_came_to_nothing_leaves_nothing() {
        let scratch = Scratch::new("nothing");
        drop(Destination::open(&scratch.file(), Size::default(), false).unwrap());
        assert_eq!(scratch.list(), []);
    }

    #[test]
    fn the_oldest_go() {
        let scratch = Scratch::new("rotate");
        let size = Size {
            max_bytes: None,
            rotate_bytes: Some(100),
            keep: Some(3),
        };
        let mut destination = Destination::open(&scratch.file(), size, false).unwrap();
        destination.append(&[0; 60]).unwrap();
        assert!(!destination.is_to_rotate(40));
        assert!(destination.is_to_rotate(41));
        for len in [11, 12, 13, 14] {
            destination.rotate(&vec![0; len]).unwrap();
        }
        destination.append(&[0; 6]).unwrap();
        let want = [("rec", 20), ("rec.1", 13), ("rec.2", 12)];
        assert_eq!(
            scratch.list(),
            want.map(|(name, len)| (name.to_owned(), len))
        );
        assert_eq!((destination.bytes(), destination.files()), (45, 3));
        assert_eq!(fs::metadata(destination.path()).unwrap().len(), 20);
    }

    #[test]
    fn of_one_file_the_newest_is_kept() {
        let scratch = Scratch::new("keep-one");
        let size = Size {
            max_bytes: None,
            rotate_bytes: Some(100),
            keep: Some(1),
        };
        let mut destination = Destination::open(&scratch.file(), size, false).unwrap();
        for len in [11, 12, 13] {
            destination.rotate(&vec![0; len]).unwrap();
        }
        assert_eq!(scratch.list(), [("rec".to_owned(), 13)]);
        assert_eq!(destination.bytes(), 13);
    }

    #[test]
    fn older_files_make_room() {
        let scratch = Scratch::new("room");
        let size = Size {
            max_bytes: Some(100),
            rotate_bytes: Some(40),
            keep: None,
        };
        let mut destination = Destination::open(&scratch.file(), size, false).unwrap();
        destination.append(&[0; 40]).unwrap();
        destination.rotate(&[0; 40]).unwrap();
        assert!(destination.make_room(20));
        assert_eq!(destination.files(), 2);
        assert!(destination.make_room(21));
        assert_eq!(scratch.list(), [("rec".to_owned(), 40)]);
        assert!(destination.make_room(60));
        assert!(!destination.make_room(61));
    }
}
