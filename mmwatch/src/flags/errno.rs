//! Errnos by their names.

use std::{fmt, num::NonZeroU32};

use serde::{Serialize, Serializer};

/// Why a call failed. Shows itself by name: `ENOMEM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(NonZeroU32);

impl Errno {
    /// From a positive errno; `None` for 0, success.
    pub const fn new(errno: u32) -> Option<Self> {
        match NonZeroU32::new(errno) {
            Some(errno) => Some(Self(errno)),
            None => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno_name(self.number()) {
            Some(name) => f.pad(name),
            None => self.number().fmt(f),
        }
    }
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! errno_names {
    ($($name:ident)+) => {
        fn errno_name(errno: u32) -> Option<&'static str> {
            // libc has them signed; none is negative.
            $(const $name: u32 = libc::$name as u32;)+
            Some(match errno {
                $($name => stringify!($name),)+
                // Of the kernel's own, seen where a call is hooked below its return.
                512 => "ERESTARTSYS",
                513 => "ERESTARTNOINTR",
                524 => "ENOTSUPP",
                _ => return None,
            })
        }
    };
}

errno_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENOMSG EIDRM ENODATA ETIME ENOLINK EPROTO EBADMSG EOVERFLOW EILSEQ EUSERS ENOTSOCK
    EMSGSIZE EPROTONOSUPPORT EOPNOTSUPP EADDRINUSE ENETDOWN ENOBUFS ENOTCONN ESHUTDOWN ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EALREADY EINPROGRESS ESTALE EUCLEAN EREMOTEIO EDQUOT ENOMEDIUM
    ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL
    EHWPOISON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_has_its_name_or_number() {
        let name = |errno: i32| Errno::new(errno as u32).unwrap().to_string();
        assert_eq!(Errno::new(0), None);
        assert_eq!(name(libc::ENOMEM), "ENOMEM");
        assert_eq!(name(libc::EBADF), "EBADF");
        assert_eq!(name(9999), "9999");
    }
}
