//! The mount: whose it is, whether it is the same one, whether it can be written, whether it answers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::{Duration, Instant};

use gpferry::file_pattern::FilePattern;
use gpferry::inventory::{Call, CustomScript};
use gpferry::plan::Selection;
use gpferry::remote::ssh::{Options, Pool};
use gpferry::step::preflight::{Area, Ground, Preflight, Verdict, gather};
use gpferry::target::Address;

use super::{
    checks, found, host, nothing_is_left, one_fault, one_warning, preflight, processes, ready, ready_on,
};
use crate::ends::wait_for;
use crate::support::{Case, lab, ran};

/// The mount's subdirectory, with an owner and a mode; every directory above it lets everybody through.
fn subdir(case: &Case, uid: u32, gid: u32, mode: u32) {
    let directory = case.mount().join("file2GP");
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(uid), Some(gid)).unwrap();
    for (path, mode) in [(directory, mode), (case.mount(), 0o755), (lab().get("LAB_MOUNT").into(), 0o2775)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The seed case: user1 is 530:530 on host a and 540:2180 on host b, and both hosts are sources.
fn seed(name: &str) -> Case {
    let case = ready(name);
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let (start, end) = (text.find("  s:\n").unwrap(), text.find("jobs:\n").unwrap());
    let a = text[start..end].replace("host: gp-a", "host: user1@gp-a");
    let b = a
        .replace("  s:\n", "  s2:\n")
        .replace("user1@gp-a", "user1@gp-b")
        .replace(lab().get("LAB_MOUNT_A"), lab().get("LAB_MOUNT_B"));
    fs::write(case.path("inventory.yml"), format!("{}{a}{b}{}", &text[..start], &text[end..])).unwrap();
    case
}

#[test]
fn a_user_with_two_numbers_is_named_with_both_and_both_hosts() {
    let mut case = seed("seed");
    case.source.batch_execute("INSERT INTO t VALUES (1, '2026-01-01 10:00')").unwrap();
    // Somebody ran `chown user1` on host b, where user1 is 540.
    subdir(&case, 540, 2180, 0o755);
    let (ran, json) = preflight(&case, &[]);
    ran.expect(13);
    let failed = checks(&json, "fail");
    let same = "user1 is uid 530 gid 530 on that host, but";
    let belongs = "belongs to uid 540 gid 2180 (mode";
    for words in ["uid 530 gid 530 on user1@gp-a", "uid 540 gid 2180 on user1@gp-b", same, belongs] {
        found(&failed, "mount.identity", words, "`usermod -u 540 user1`");
    }
    assert_eq!(failed.len(), 1, "one thing to mend is said once: {failed:#?}");
    found(&failed, "mount.identity", "", "chgrp 2180");
    found(&failed, "mount.identity", "", "chmod 2775");
    nothing_is_left(&case);
    let shown = case.gpferry(&["preflight"]).expect(13).says("1 to mend").stdout;
    let ready =
        |host: &str| shown.lines().find(|line| line.starts_with(host)).map(|line| line.contains("FAIL"));
    assert_eq!((ready("user1@gp-a"), ready("user1@gp-b")), (Some(true), Some(false)), "{shown}");
    // A run without it fails that unit with the same explanation.
    case.gpferry(&["run", "--no-preflight", "--max-units", "1"]).expect(3).says(same).says(belongs);
}

#[test]
fn two_numbers_that_a_setgid_group_makes_work_are_recognised_as_working() {
    let case = seed("setgid");
    // Both are in group 2180: on host b it is the primary one, on the other one of several.
    let alias = host(&case, "x", &["--users", "user1:530:530"]);
    case.edit_inventory("user1@gp-a", &format!("user1@{alias}"));
    let groups = format!("{}/hosts/{}_x/etc/group", lab().get("LAB_DIR"), case.database());
    fs::write(&groups, fs::read_to_string(&groups).unwrap() + "shared:x:2180:user1\n").unwrap();
    subdir(&case, 540, 2180, 0o2775);
    let (ran, json) = preflight(&case, &[]);
    let fine = checks(&json, "ok");
    found(&fine, "mount.identity", &format!("uid 530 gid 530 on user1@{alias}"), "");
    found(&fine, "mount.identity", "works all the same", "");
    found(&fine, "mount.identity", "group 2180", "");
    ran.expect(0);
    nothing_is_left(&case);
}

#[test]
fn another_directory_at_the_mount_s_path_is_found() {
    let (case, _) = ready_on("elsewhere", &["--mount", "other", "--below", "CASE"]);
    one_fault(&case, "mount.nonce", "is not what the runner reads", "findmnt -T");
}

#[test]
fn a_mount_that_is_missing_is_found() {
    let (case, alias) = ready_on("missing", &["--mount", "none"]);
    one_fault(&case, "mount.exists", "No such file or directory", &format!("on {alias}: `mount "));
    // Only the directory beneath it is there.
    let beneath = host(&case, "y", &["--mount", "none", "--below", case.database()]);
    case.edit_inventory(&alias, &beneath);
    let (ran, json) = preflight(&case, &[]);
    ran.expect(13);
    let failed = checks(&json, "fail");
    // Nobody but root may write there, and nothing that the runner made is seen.
    assert!(
        failed.iter().any(|check| ["mount.write", "mount.nonce"].contains(&check[0].as_str())),
        "{failed:#?}"
    );
}

#[test]
fn a_read_only_mount_is_found() {
    let (case, _) = ready_on("readonly", &["--mount", "readonly"]);
    one_fault(&case, "mount.readonly", "is mounted read-only", "mount -o remount,rw /mnt/dataTransfer");
}

#[test]
fn a_full_mount_is_found() {
    let (case, _) = ready_on("fullmount", &["--mount", "full", "--below", "CASE"]);
    one_fault(&case, "mount.space", "is full", "df -h");
}

#[test]
fn a_directory_without_write_permission_is_found() {
    let case = ready("nowrite");
    subdir(&case, 4242, 4343, 0o755);
    one_fault(&case, "mount.write", "belongs to uid 4242 gid 4343 (mode 755)", "chgrp 4343");
}

#[test]
fn squashed_root_is_found() {
    let (case, alias) = ready_on("squash", &["--squash", "--users", "root:0:0"]);
    case.edit_inventory(&format!("host: {alias}"), &format!("host: root@{alias}"));
    one_fault(&case, "mount.squash", "root is squashed", "connect as the user that owns it");
}

#[test]
fn a_mount_that_hangs_on_a_host_costs_its_limit_once() {
    let (case, alias) = ready_on("hangs", &["--mount", "hangs"]);
    let begin = Instant::now();
    one_fault(
        &case,
        "mount.hangs",
        "does not answer",
        &format!("on {alias}: `umount -f -l /mnt/dataTransfer"),
    );
    assert!(begin.elapsed() < Duration::from_secs(30), "it took {:?}", begin.elapsed());
    wait_for("no process is left", Duration::from_secs(5), || processes(&case, "x").is_empty());
}

#[test]
fn a_mount_that_hangs_on_the_runner_never_hangs_gpferry() {
    let case = ready("hangs_here");
    for (command, limit) in [("preflight", 30), ("run", 30)] {
        // The same runner, with a file system whose server never answers at the mount's place.
        let script = "exec 7<>/dev/fuse && mount -i -t fuse -o fd=7,rootmode=40000,user_id=0,group_id=0,allow_other \
                      dead:/x \"$1\" && shift && exec \"$@\"";
        let gpferry = case.command(&[command]);
        let mut inside = Command::new("unshare");
        inside.args(["--mount", "--propagation", "private", "bash", "-c", script, "hang"]);
        inside.arg(case.mount()).arg(gpferry.get_program()).args(gpferry.get_args());
        for (name, value) in gpferry.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        let begin = Instant::now();
        ran(inside.output().unwrap()).expect(13).says("mount.hangs").says("umount -f -l");
        assert!(begin.elapsed() < Duration::from_secs(limit), "{command} took {:?}", begin.elapsed());
    }
}

#[test]
fn what_fstab_names_and_nobody_mounted_is_the_directory_beneath() {
    let case = ready("beneath");
    // Our own /etc/fstab, in a namespace: the mount of this case is in it, and not mounted.
    let fstab = case.path("fstab");
    fs::write(&fstab, format!("# what where\nnas:/export {} nfs4 rw 0 0\n", case.mount().display())).unwrap();
    let gpferry = case.command(&["preflight", "--only", "mount"]);
    let script = "touch /etc/fstab; mount --bind \"$1\" /etc/fstab && shift && exec \"$@\"";
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "bash", "-c", script, "fstab"]);
    inside.arg(&fstab).arg(gpferry.get_program()).args(gpferry.get_args());
    inside.envs(gpferry.get_envs().filter_map(|(name, value)| Some((name, value?))));
    ran(inside.output().unwrap())
        .expect(13)
        .says("FAIL mount.point: runner")
        .says("is the empty directory beneath it");
}

#[test]
fn a_run_does_not_start_on_a_mount_it_cannot_use_unless_told_to() {
    let mut case = ready("cheap");
    case.source.batch_execute("INSERT INTO t VALUES (1, '2026-01-01 10:00')").unwrap();
    let mount = case.mount();
    fs::rename(&mount, mount.with_extension("away")).unwrap();
    case.gpferry(&["run"]).expect(13).says("mount.exists of runner").says("--no-preflight");
    let all = case.gpferry(&["run", "--no-preflight"]).expect(13);
    all.silent_about("mount.exists");
    fs::rename(mount.with_extension("away"), &mount).unwrap();
    case.gpferry(&["run", "--max-units", "1"]).expect(0).says("1 of 1 unit loaded");
}

#[test]
fn a_preflight_that_is_killed_leaves_nothing_either() {
    let (case, alias) = ready_on("killed", &["--mount", "hangs"]);
    // A second source is done with its proof while the first hangs.
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let (start, end) = (text.find("  s:\n").unwrap(), text.find("jobs:\n").unwrap());
    let second = text[start..end].replace("  s:\n", "  s2:\n").replace(&alias, "gp-a");
    fs::write(case.path("inventory.yml"), format!("{}{second}{}", &text[..end], &text[end..])).unwrap();
    let mut child = case.command(&["preflight"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let own = case.mount().join("file2GP");
    wait_for("the runner's nonce file", Duration::from_secs(10), || {
        fs::read_dir(&own).is_ok_and(|entries| entries.count() > 0)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the runner's nonce file and directory are gone", Duration::from_secs(30), || !own.exists());
}

#[test]
fn the_owner_that_the_inventory_wants_is_compared_by_number() {
    let case = ready("owner");
    case.edit_inventory("mount: { path:", "mount: { owner: \"gpadmin:gpadmin\", path:");
    subdir(&case, 530, 5301, 0o2775);
    let (_, json) = preflight(&case, &["--only", "mount"]);
    found(
        &checks(&json, "warn"),
        "mount.owner",
        "`mount.owner` is 5301:5301 on gp-a, and",
        "chown 5301:5301",
    );
}

/// Script checks with another `script.path`.
fn script_faults(case: &Case, path: &str) -> Vec<[String; 4]> {
    let mut inventory = gpferry::inventory::load(&case.path("inventory.yml")).unwrap();
    inventory.sources[0].script =
        Some(CustomScript { path: path.into(), call: Call::Argv, ok: vec![0], file: FilePattern::default() });
    let config = Some(lab().get("LAB_SSH_CONFIG").into());
    let gathered = gather(Ground {
        inventory: &inventory,
        selection: &Selection::default(),
        hosts: &[],
        areas: &[Area::Script],
        pool: &Pool::new(Options { config, ..Options::default() }),
        target: &Address::new(&inventory.target.url, |_| None).unwrap(),
        run: "test",
    });
    let judged = Preflight::judge(gathered, &[Area::Host]);
    let bash = judged.checks.iter().any(|check| check.id == "host.bash");
    assert!(bash, "what asks the catalog, and what calls a script of one's own, needs bash");
    let judged = Preflight::judge(judged.gathered, &[Area::Script]);
    let failed = judged.checks.into_iter().filter(|check| check.verdict == Verdict::Fail);
    failed
        .map(|check| [check.id.into(), check.subject, check.seen, check.remedy.unwrap_or_default()])
        .collect()
}

#[test]
fn a_script_that_people_have_is_looked_at_before_it_ends_with_126_or_127() {
    let (case, _) = ready_on("script", &[]);
    let home = super::home(&case, "x").join("gpadmin");
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(home.join(name), text).unwrap();
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("good.sh", "#!/bin/sh\n", 0o755);
    write("closed.sh", "#!/bin/sh\n", 0o600);
    write("dos.sh", "#!/bin/bash\r\n", 0o755);
    assert_eq!(script_faults(&case, "/home/gpadmin/good.sh"), <[[String; 4]; 0]>::default());
    found(&script_faults(&case, "/home/gpadmin/gone.sh"), "script.path", "127", "ls -l");
    found(&script_faults(&case, "/home/gpadmin/closed.sh"), "script.path", "126", "chmod a+r");
    found(&script_faults(&case, "/home/gpadmin/dos.sh"), "script.path", "126 or 127", "dos2unix");
    assert!(!home.join(".cache").exists(), "nothing was put into the home");
}

#[test]
fn homes_that_are_noexec_are_a_warning_since_bash_reads_the_script() {
    let (case, _) = ready_on("noexec", &["--noexec-home"]);
    one_warning(&case, "host.noexec", "is mounted noexec", "mount -o remount,exec /home");
    // And so it is: the run goes through.
    let mut case = case;
    case.source.batch_execute("INSERT INTO t VALUES (1, '2026-01-01 10:00')").unwrap();
    case.gpferry(&["run", "--max-units", "1"]).expect(0).says("1 of 1 unit loaded");
}
