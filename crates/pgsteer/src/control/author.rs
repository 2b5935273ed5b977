//! The author of a request, by the credentials that the kernel reports of the peer.

use std::fs::File;
use std::io::Read as _;

use tokio::net::unix::UCred;

/// The maximum number of bytes that are read of the file of users.
const PASSWD_BYTES_MAX: u64 = 1024 * 1024;

/// Who has sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name of the user, else `uid N`.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The process id, if the system reports it.
    pub pid: Option<i32>,
}

impl Author {
    /// The author with these credentials. The name is that of /etc/passwd; users of a directory service
    /// have only a number.
    pub fn new(credentials: &UCred) -> Author {
        let uid = credentials.uid();
        let name = name_of(uid, &passwd()).unwrap_or_else(|| format!("uid {uid}"));
        Author { name, uid, pid: credentials.pid() }
    }
}

fn passwd() -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open("/etc/passwd") {
        // Without the file the number has to do.
        let _ = file.take(PASSWD_BYTES_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n#\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ann"));
        assert_eq!(name_of(0, passwd).as_deref(), Some("root"));
        assert_eq!(name_of(7, passwd), None);
    }
}
