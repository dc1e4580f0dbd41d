//! Which file system a path is on, out of `/proc/self/mountinfo`. Pure.
//!
//! Source: proc_pid_mountinfo(5). Fields are separated by blanks; blanks in paths are written as `\040`.

use serde::Serialize;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPoint {
    /// Where it is mounted.
    pub at: String,
    /// Its type: `nfs4`, `ext4`, `tmpfs`, …
    pub kind: String,
    /// What is mounted: `server:/export`, a device.
    pub source: String,
    /// The directory of that file system which is mounted here; `/` where it is all of it.
    pub root: String,
    /// Options of this mount point and of the file system.
    pub options: Vec<String>,
}

impl MountPoint {
    /// Does it cross a network, so that what is seen may be late?
    pub fn is_network(&self) -> bool {
        ["nfs", "cifs", "smb", "ceph", "gluster", "lustre", "gpfs", "beegfs", "9p", "fuse"]
            .iter()
            .any(|kind| self.kind.starts_with(kind))
    }

    /// Is this option set?
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }
}

/// Reads one line; `None` where it is not one.
pub fn parse(line: &str) -> Option<MountPoint> {
    let (own, file_system) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let mut rest = file_system.split(' ');
    let (kind, source, options) = (rest.next()?, rest.next()?, rest.next().unwrap_or(""));
    // Read-only is what either of them says; the rest of the second list belongs to the file system.
    let options = own.get(5)?.split(',').chain(options.split(',')).filter(|option| !option.is_empty());
    let mut all: Vec<String> = Vec::new();
    for option in options {
        if !all.iter().any(|one| one == option) {
            all.push(option.to_owned());
        }
    }
    Some(MountPoint {
        at: unescape(own.get(4)?),
        kind: kind.to_owned(),
        source: unescape(source),
        root: unescape(own.get(3)?),
        options: all,
    })
}

/// The mount point that a path is on: the longest that covers it, and of equal ones the last, which hides the
/// others.
pub fn covering<'a>(table: &'a [MountPoint], path: &str) -> Option<&'a MountPoint> {
    let covers = |at: &str| {
        let at = at.trim_end_matches('/');
        path == at || path.strip_prefix(at).is_some_and(|rest| rest.starts_with('/'))
    };
    let mut best: Option<&MountPoint> = None;
    for mount in table.iter().filter(|mount| covers(&mount.at)) {
        if best.is_none_or(|best| mount.at.len() >= best.at.len()) {
            best = Some(mount);
        }
    }
    best
}

/// `\040` and its like, three octal digits.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                at += 4;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
        40 22 0:40 / /mnt rw - tmpfs tmpfs rw,mode=755\n\
        41 40 0:50 / /mnt/data\\040Transfer ro,relatime shared:5 master:1 - nfs4 nas:/export/x rw,vers=4.1,soft,proto=tcp\n\
        42 22 0:41 / /srv rw - tmpfs first rw\n\
        43 22 0:42 /a /srv rw - tmpfs second rw\n";

    fn table() -> Vec<MountPoint> {
        TABLE.lines().filter_map(parse).collect()
    }

    #[test]
    fn a_path_is_on_the_longest_mount_that_covers_it() {
        let table = table();
        let on = |path: &str| covering(&table, path).unwrap();
        let nfs = on("/mnt/data Transfer/file2GP");
        assert_eq!(
            (nfs.kind.as_str(), nfs.source.as_str(), nfs.is_network()),
            ("nfs4", "nas:/export/x", true)
        );
        assert!(nfs.has("ro") && nfs.has("soft") && nfs.has("rw"));
        assert_eq!(on("/mnt/data Transfer").at, "/mnt/data Transfer");
        assert_eq!(on("/mnt/data").at, "/mnt");
        assert_eq!(on("/mntx").at, "/");
    }

    #[test]
    fn what_is_mounted_over_another_hides_it() {
        let table = table();
        assert_eq!(covering(&table, "/srv/x").unwrap().source, "second");
        assert_eq!(covering(&table, "/srv/x").unwrap().root, "/a");
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in ".{0,80}", path in ".{0,20}") {
            let table: Vec<_> = parse(&line).into_iter().collect();
            let _ = covering(&table, &path);
            let _ = parse(&format!("1 2 3 {line} - {line} {line}"));
        }
    }
}
