//! What a run looks at by itself before it starts: the mount as the runner sees it.
//!
//! A few system calls and no question to any host, so that it costs a run nothing. Only what would certainly fail
//! every export is refused: no directory, a mount that hangs, that is read-only or full, or where the runner may not
//! write its manifest. What concerns single units stays with those units, which fail alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::Check;
use crate::inventory::Mount;

/// How long the mount may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks at the runner's mount. `writes` says whether anything will be exported. The thread that looks is left
/// behind where the mount hangs.
pub fn checks(mount: &Mount, writes: bool) -> Vec<Check> {
    let (path, subdir) = (mount.path.clone(), mount.path.join(&mount.subdir));
    let (tell, heard) = std::sync::mpsc::channel();
    let looked = std::thread::Builder::new().name("mount-look".into()).spawn(move || {
        // Nobody listens any more once the time was over.
        drop(tell.send(look(&path, &subdir, writes)));
    });
    if looked.is_err() {
        return Vec::new();
    }
    heard.recv_timeout(LIMIT).unwrap_or_else(|_| {
        let path = mount.path.display();
        let seen = format!("{path} did not answer within {} s: whoever touches it hangs", LIMIT.as_secs());
        vec![Check::fail(
            "mount.hangs",
            "runner",
            seen,
            format!("look for its server, then `umount -f -l {path} && mount {path}`"),
        )]
    })
}

fn look(path: &Path, subdir: &Path, writes: bool) -> Vec<Check> {
    let shown = path.display();
    if !path.is_dir() {
        let seen = format!("{shown} is not a directory here");
        return vec![Check::fail(
            "mount.exists",
            "runner",
            seen,
            format!("`mount {shown}`, or correct `mount.path` in the inventory"),
        )];
    }
    if !writes {
        return Vec::new();
    }
    let mut checks = Vec::new();
    if let Ok(facts) = statvfs(path) {
        if facts.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let remedy =
                format!("`mount -o remount,rw {shown}`; if it turned read-only by itself, `dmesg` says why");
            return vec![Check::fail(
                "mount.readonly",
                "runner",
                format!("{shown} is mounted read-only"),
                remedy,
            )];
        }
        if facts.f_bavail == 0 && facts.f_blocks > 0 {
            checks.push(Check::fail(
                "mount.space",
                "runner",
                format!("{shown} is full"),
                format!("free space: `df -h {shown}`"),
            ));
        }
    }
    let directory: PathBuf = if subdir.is_dir() { subdir.into() } else { path.into() };
    if let Err(error) = access(&directory, Access::WRITE_OK | Access::EXEC_OK) {
        let seen =
            format!("{} cannot be written by the user that runs gpferry: {error}", directory.display());
        let remedy = format!(
            "`ls -ldn {0}; id`; a common group on all hosts: `chgrp GROUP {0} && chmod 2775 {0}`",
            directory.display()
        );
        checks.push(Check::fail("mount.write", "runner", seen, remedy));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_can_be_used_is_not_refused_and_one_that_is_not_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let mount = |path: &Path| Mount { path: path.into(), subdir: "file2GP".into(), ..Mount::default() };
        assert_eq!(checks(&mount(directory.path()), true), []);
        let missing = checks(&mount(&directory.path().join("no")), false);
        assert_eq!(missing[0].id, "mount.exists", "{missing:?}");
    }
}
