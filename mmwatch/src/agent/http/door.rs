//! Connections: on an address or a socket, so many at a time and for so long.

use std::{
    fs,
    fs::{Metadata, Permissions},
    io, mem,
    net::TcpListener as StdTcpListener,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::Site;
use crate::{
    agent::{
        config::{Config, Listen},
        trusted,
    },
    error::{Error, Result},
};

/// Bytes of a request's head, at most.
const HEAD_BYTES: usize = 16 << 10;

/// Headers of a request, at most.
const HEADERS: usize = 64;

/// Life of a connection, after which it ends with the answer under way.
const LIFE: Duration = Duration::from_secs(120);

/// Answers without an end, which outlive a connection as long as they are taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Something was taken.
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Time for that answer to be taken.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted, as when there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
pub enum Door {
    /// On an address.
    Tcp(StdTcpListener),
    /// On a socket with a name, which is gone when this is dropped.
    Unix(StdUnixListener, Name),
}

impl Door {
    /// Listens.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where somebody else listens, or may not be listened.
    pub fn open(listen: &Listen) -> Result<Self> {
        let opened = match listen {
            Listen::Tcp(address) => StdTcpListener::bind(address).map(Self::Tcp),
            Listen::Unix(path) => bind(path).map(|(listener, name)| Self::Unix(listener, name)),
        };
        opened.map_err(Error::io(format!("listening on {listen}")))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Self::Unix(_, name) = self {
            name.remove();
        }
    }
}

/// Where a socket is, and which file that is.
pub struct Name {
    path: PathBuf,
    /// Device, inode and time of the last change: an inode is soon that of another file.
    file: (u64, u64, i64, i64),
}

impl Name {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: (
                metadata.dev(),
                metadata.ino(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ),
        })
    }

    /// Removes the file, unless another has its name now.
    fn remove(&self) {
        let is_same = Self::new(&self.path).is_ok_and(|now| now.file == self.file);
        if is_same {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket for its owner and group, in the place of one of our own user's that nobody listens
/// on: what an agent leaves that was killed.
fn bind(path: &Path) -> io::Result<(StdUnixListener, Name)> {
    let own_user = trusted::own_user()?;
    let is_left = |metadata: Metadata| {
        metadata.file_type().is_socket()
            && metadata.uid() == own_user
            && StdUnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if fs::symlink_metadata(path).is_ok_and(is_left) {
        fs::remove_file(path)?;
    }
    let listener = StdUnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok((listener, Name::new(path)?))
}

/// A door in the event loop.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(door: &Door) -> io::Result<Self> {
        Ok(match door {
            Door::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener.try_clone()?)?)
            }
            Door::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Answers until `stop`, and lets the answers end that are under way.
///
/// # Errors
///
/// [`Error::Io`] where the event loop does not take the door.
pub fn serve(
    door: Door,
    site: Site,
    config: &Config,
    mut stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>> {
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let head_timeout = config.request_timeout;
    let router = site.router();
    let listener = Listener::new(&door).map_err(Error::io("listening"))?;
    Ok(async move {
        let mut connections = JoinSet::new();
        loop {
            // Others wait in the kernel's queue, which is bounded too.
            let accepted = async {
                let Ok(slot) = slots.clone().acquire_owned().await else {
                    return std::future::pending().await;
                };
                (slot, listener.accept().await)
            };
            let (slot, stream) = tokio::select! {
                _ = stop.changed() => break,
                accepted = accepted => accepted,
                // So that they do not pile up.
                Some(_) = connections.join_next() => continue,
            };
            let Ok(stream) = stream else {
                sleep(PAUSE).await;
                continue;
            };
            let connection = converse(stream, router.clone(), head_timeout, stop.clone());
            connections.spawn(async move {
                connection.await;
                drop(slot);
            });
        }
        drop((listener, door));
        while connections.join_next().await.is_some() {}
    })
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn converse(
    stream: Box<dyn Stream>,
    router: Router,
    head_timeout: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let pulse = Pulse::default();
    let router = router.layer(Extension(pulse.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Between two requests too.
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let mut beats = pulse.beats();
    loop {
        tokio::select! {
            // A broken connection is the client's business.
            _ = connection.as_mut() => return,
            () = sleep(LIFE) => {
                let before = mem::replace(&mut beats, pulse.beats());
                if before == beats {
                    break;
                }
            }
            _ = stop.changed() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWER, connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_of_its_own_is_removed() {
        let path = std::env::temp_dir().join(format!("mmwatch-socket-{}", std::process::id()));
        let (first, name) = bind(&path).unwrap();
        // Somebody listens.
        assert_eq!(bind(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        // Nobody does: what was left is replaced, and the first one's end leaves the second.
        drop(first);
        let (second, next) = bind(&path).unwrap();
        name.remove();
        assert!(path.exists());
        next.remove();
        assert!(!path.exists());
        drop(second);

        fs::write(&path, "not a socket").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a socket");
        fs::remove_file(&path).unwrap();
    }
}
