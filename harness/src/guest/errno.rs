//! Errno values by name and number.
//!
//! The numbers are those of most architectures (`include/uapi/asm-generic/errno-base.h` and `errno.h`); the agent
//! translates where the guest's differ (alpha, mips, parisc, sparc).

use std::fmt;
use std::str::FromStr;

use super::{UnknownName, nearest};

/// An error number, or [`Errno::OK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(
    /// The generic number.
    pub u32,
);

impl Errno {
    /// No error.
    pub const OK: Errno = Errno(0);

    /// Whether there was no error.
    pub fn is_ok(self) -> bool {
        self == Errno::OK
    }

    /// Its name, if it is a known one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(_, number)| *number == self.0).map(|(name, _)| *name)
    }
}

/// Every name there is, aliases too.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None if self.is_ok() => f.pad("success"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl FromStr for Errno {
    type Err = UnknownName;

    /// Takes a name such as `EBUSY`.
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => Ok(Errno(*number)),
            None => {
                Err(UnknownName { what: "errno", name: name.to_owned(), nearest: nearest(name, names()) })
            }
        }
    }
}

macro_rules! errnos {
    ($($name:ident = $number:literal,)*) => {
        #[allow(missing_docs, reason = "errno(3) documents them")]
        impl Errno {
            $(pub const $name: Errno = Errno($number);)*
        }

        /// An alias comes after the name that it is shown by.
        const NAMES: &[(&str, u32)] = &[$((stringify!($name), $number),)*];
    };
}

errnos! {
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    EINTR = 4,
    EIO = 5,
    ENXIO = 6,
    E2BIG = 7,
    ENOEXEC = 8,
    EBADF = 9,
    ECHILD = 10,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    ENOTBLK = 15,
    EBUSY = 16,
    EEXIST = 17,
    EXDEV = 18,
    ENODEV = 19,
    ENOTDIR = 20,
    EISDIR = 21,
    EINVAL = 22,
    ENFILE = 23,
    EMFILE = 24,
    ENOTTY = 25,
    ETXTBSY = 26,
    EFBIG = 27,
    ENOSPC = 28,
    ESPIPE = 29,
    EROFS = 30,
    EMLINK = 31,
    EPIPE = 32,
    EDOM = 33,
    ERANGE = 34,
    EDEADLK = 35,
    ENAMETOOLONG = 36,
    ENOLCK = 37,
    ENOSYS = 38,
    ENOTEMPTY = 39,
    ELOOP = 40,
    ENOMSG = 42,
    EIDRM = 43,
    ECHRNG = 44,
    EL2NSYNC = 45,
    EL3HLT = 46,
    EL3RST = 47,
    ELNRNG = 48,
    EUNATCH = 49,
    ENOCSI = 50,
    EL2HLT = 51,
    EBADE = 52,
    EBADR = 53,
    EXFULL = 54,
    ENOANO = 55,
    EBADRQC = 56,
    EBADSLT = 57,
    EBFONT = 59,
    ENOSTR = 60,
    ENODATA = 61,
    ETIME = 62,
    ENOSR = 63,
    ENONET = 64,
    ENOPKG = 65,
    EREMOTE = 66,
    ENOLINK = 67,
    EADV = 68,
    ESRMNT = 69,
    ECOMM = 70,
    EPROTO = 71,
    EMULTIHOP = 72,
    EDOTDOT = 73,
    EBADMSG = 74,
    EOVERFLOW = 75,
    ENOTUNIQ = 76,
    EBADFD = 77,
    EREMCHG = 78,
    ELIBACC = 79,
    ELIBBAD = 80,
    ELIBSCN = 81,
    ELIBMAX = 82,
    ELIBEXEC = 83,
    EILSEQ = 84,
    ERESTART = 85,
    ESTRPIPE = 86,
    EUSERS = 87,
    ENOTSOCK = 88,
    EDESTADDRREQ = 89,
    EMSGSIZE = 90,
    EPROTOTYPE = 91,
    ENOPROTOOPT = 92,
    EPROTONOSUPPORT = 93,
    ESOCKTNOSUPPORT = 94,
    EOPNOTSUPP = 95,
    EPFNOSUPPORT = 96,
    EAFNOSUPPORT = 97,
    EADDRINUSE = 98,
    EADDRNOTAVAIL = 99,
    ENETDOWN = 100,
    ENETUNREACH = 101,
    ENETRESET = 102,
    ECONNABORTED = 103,
    ECONNRESET = 104,
    ENOBUFS = 105,
    EISCONN = 106,
    ENOTCONN = 107,
    ESHUTDOWN = 108,
    ETOOMANYREFS = 109,
    ETIMEDOUT = 110,
    ECONNREFUSED = 111,
    EHOSTDOWN = 112,
    EHOSTUNREACH = 113,
    EALREADY = 114,
    EINPROGRESS = 115,
    ESTALE = 116,
    EUCLEAN = 117,
    ENOTNAM = 118,
    ENAVAIL = 119,
    EISNAM = 120,
    EREMOTEIO = 121,
    EDQUOT = 122,
    ENOMEDIUM = 123,
    EMEDIUMTYPE = 124,
    ECANCELED = 125,
    ENOKEY = 126,
    EKEYEXPIRED = 127,
    EKEYREVOKED = 128,
    EKEYREJECTED = 129,
    EOWNERDEAD = 130,
    ENOTRECOVERABLE = 131,
    ERFKILL = 132,
    EHWPOISON = 133,
    ERESTARTSYS = 512,
    EPROBE_DEFER = 517,
    ENOTSUPP = 524,
    EWOULDBLOCK = 11,
    EDEADLOCK = 35,
    ENOTSUP = 95,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (name, number) in NAMES {
            assert_eq!(name.parse::<Errno>().unwrap(), Errno(*number));
        }
        assert_eq!("EWOULDBLOCK".parse::<Errno>().unwrap().to_string(), "EAGAIN");
        assert_eq!(Errno::ENOTSUPP.to_string(), "ENOTSUPP");
        assert_eq!((Errno::OK.to_string(), Errno(4000).to_string()), ("success".into(), "errno 4000".into()));
    }

    #[test]
    fn numbers_are_those_of_this_architecture_where_it_is_a_generic_one() {
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")) {
            assert_eq!(Errno::EAGAIN.0, rustix::io::Errno::AGAIN.raw_os_error().cast_unsigned());
            assert_eq!(Errno::ETIMEDOUT.0, rustix::io::Errno::TIMEDOUT.raw_os_error().cast_unsigned());
            assert_eq!(Errno::EHWPOISON.0, rustix::io::Errno::HWPOISON.raw_os_error().cast_unsigned());
        }
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest() {
        assert_eq!(
            "EWOULDBLCOK".parse::<Errno>().unwrap_err().to_string(),
            "unknown errno `EWOULDBLCOK`\ndid you mean `EWOULDBLOCK`?"
        );
        assert_eq!("ebusy".parse::<Errno>().unwrap_err().nearest, Some("EBUSY"));
        assert_eq!("banana".parse::<Errno>().unwrap_err().to_string(), "unknown errno `banana`");
    }
}
