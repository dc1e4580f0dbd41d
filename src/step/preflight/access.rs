//! Owners and modes, in numbers: what `ls -ldn` prints, and who may write there. Pure.

use serde::Serialize;

use crate::remote::{Identity, Ownership};

/// A file or directory as one host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its path there.
    pub path: String,
    /// Type and mode as `ls` writes them: `drwxrws---`.
    pub mode: String,
    /// Whether it has an ACL, which the mode does not show.
    pub acl: bool,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Why somebody may write in a directory, or that they may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// They own it.
    Owner,
    /// A group of theirs may.
    Group,
    /// Everybody may.
    Others,
    /// Root may do anything, unless the server squashes it.
    Root,
    /// An ACL decides, which nobody has read.
    Acl,
    /// No.
    Denied,
}

impl Entry {
    /// Reads a line of `ls -ldn`.
    pub fn parse(path: &str, line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let mode = fields.next().filter(|mode| mode.len() >= 10 && mode.is_ascii())?;
        let (_links, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            path: path.to_owned(),
            mode: mode[..10].to_owned(),
            acl: mode[10..].starts_with('+'),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    }

    /// Is it a directory?
    pub fn is_directory(&self) -> bool {
        self.mode.starts_with('d')
    }

    /// Does what is made in it get its group?
    pub fn is_setgid(&self) -> bool {
        matches!(self.mode.as_bytes().get(6), Some(b's' | b'S'))
    }

    /// The mode in octal, as `chmod` takes it.
    pub fn octal(&self) -> String {
        let bit = |at: usize, plain: &[u8]| {
            u32::from(self.mode.as_bytes().get(at).is_some_and(|b| plain.contains(b)))
        };
        let three = |at: usize| bit(at, b"r") * 4 + bit(at + 1, b"w") * 2 + bit(at + 2, b"xst");
        let special = bit(3, b"sS") * 4 + bit(6, b"sS") * 2 + bit(9, b"tT");
        let special = if special == 0 { String::new() } else { special.to_string() };
        format!("{special}{}{}{}", three(1), three(4), three(7))
    }

    /// As messages show it.
    pub fn ownership(&self) -> Ownership {
        Ownership { path: self.path.clone(), uid: self.uid, gid: self.gid, mode: self.octal() }
    }

    /// May this user make files in it, as far as numbers and mode say?
    pub fn access(&self, who: &Identity) -> Access {
        let may = |at: usize| {
            let bytes = self.mode.as_bytes();
            bytes.get(at) == Some(&b'w') && bytes.get(at + 1).is_some_and(|x| matches!(x, b'x' | b's' | b't'))
        };
        let allowed = |at: usize, how: Access| if may(at) { how } else { Access::Denied };
        let plain = if who.uid == 0 {
            Access::Root
        } else if who.uid == self.uid {
            allowed(2, Access::Owner)
        } else if who.gid == self.gid || who.groups.contains(&self.gid) {
            allowed(5, Access::Group)
        } else {
            allowed(8, Access::Others)
        };
        if plain == Access::Denied && self.acl { Access::Acl } else { plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mode: &str, uid: u32, gid: u32) -> Entry {
        Entry::parse("/m", &format!("{mode} 2 {uid} {gid} 4096 Nov 21 09:00 /m")).unwrap()
    }

    fn user1(uid: u32, groups: &[u32]) -> Identity {
        Identity { user: "user1".into(), uid, gid: groups[0], groups: groups.to_vec() }
    }

    #[test]
    fn modes_are_read_as_ls_writes_them() {
        for (mode, octal) in [
            ("drwxr-xr-x", "755"),
            ("drwxrws---", "2770"),
            ("drwxrwxrwt.", "1777"),
            ("-rwSr-Sr-T+", "7644"),
            ("d---------", "000"),
        ] {
            assert_eq!(entry(mode, 1, 2).octal(), octal, "{mode}");
        }
        assert!(entry("drwxr-x---+", 1, 1).acl && !entry("drwxr-x---.", 1, 1).acl);
        assert!(entry("drwxr-s---", 1, 1).is_setgid() && !entry("drwxr-x---", 1, 1).is_setgid());
        assert_eq!(Entry::parse("/m", "ls: /m: No such file or directory"), None);
        assert_eq!(Entry::parse("/m", ""), None);
    }

    #[test]
    fn the_first_class_that_fits_decides_as_in_the_kernel() {
        let directory = entry("drwxrwsr-x", 540, 2180);
        assert_eq!(directory.access(&user1(540, &[2180])), Access::Owner);
        assert_eq!(directory.access(&user1(530, &[530])), Access::Denied);
        assert_eq!(directory.access(&user1(530, &[530, 2180])), Access::Group);
        assert_eq!(directory.access(&user1(0, &[0])), Access::Root);
        assert_eq!(entry("d---rwxrwx", 540, 2180).access(&user1(540, &[2180])), Access::Denied);
        assert_eq!(entry("drwxr-x-wx", 1, 1).access(&user1(530, &[530])), Access::Others);
        assert_eq!(entry("drwxr-x---+", 1, 1).access(&user1(530, &[530])), Access::Acl);
        assert_eq!(entry("drwxrw----", 1, 530).access(&user1(540, &[530])), Access::Denied);
    }
}
