use super::*;

fn mount() -> (tempfile::TempDir, Mount) {
    let directory = tempfile::tempdir().unwrap();
    let inventory =
        inventory::Mount { path: directory.path().into(), subdir: "file2GP".into(), ..Default::default() };
    let mount = Mount::open(&inventory).unwrap();
    fs::create_dir(directory.path().join("file2GP")).unwrap();
    (directory, mount)
}

fn open(mount: &Mount, name: &str, bytes: u64) -> Result<(File, Trailer), MountError> {
    mount.open_published(Path::new(name), bytes, mount.patience(), &Stop::default())
}

#[test]
fn a_file_that_is_late_is_waited_for_until_a_stop() {
    let (_keep, mount) = mount();
    let late = mount.path(Path::new("late"));
    let until = Instant::now() + Duration::from_secs(60);
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(120));
        fs::write(late, [0; 30]).unwrap();
    });
    assert!(mount.open_published(Path::new("late"), 30, until, &Stop::default()).is_ok());
    writer.join().unwrap();
    let stop = Stop::default();
    stop.give_up();
    assert!(mount.open_published(Path::new("never"), 30, until, &stop).is_err());
}

#[test]
fn a_file_of_another_size_is_not_the_published_one() {
    let (_keep, mount) = mount();
    fs::write(mount.path(Path::new("a")), [0; 30]).unwrap();
    assert!(open(&mount, "a", 30).is_ok());
    let error = open(&mount, "a", 31).unwrap_err();
    assert!(error.to_string().contains("30 bytes here, 31 bytes published, so it is truncated"), "{error}");
    assert!(matches!(open(&mount, "b", 1), Err(MountError::Absent { .. })));
}

fn gz(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A unit of three files, all of them published.
fn parts(mount: &Mount) -> Exported {
    let file = PathBuf::from("u.csv.gz");
    let parts: Box<[Trailer]> = ["1\n2\n", "", "3\n"]
        .iter()
        .enumerate()
        .map(|(no, text)| {
            let path = mount.path(&part_path(&file, no));
            fs::write(&path, gz(text)).unwrap();
            Trailer::read(&mut File::open(path).unwrap()).unwrap()
        })
        .collect();
    let (columns, left_out) = (Columns::default(), String::new());
    Exported { file: file.into(), rows: 3, trailer: Trailer::of_parts(&parts), columns, left_out, parts }
}

fn read(mount: &Mount, exported: &Exported) -> Result<String, String> {
    let reader = mount.read_exported(exported, &Stop::default());
    let mut reader = reader.map_err(|error| error.to_string())?;
    let (mut all, mut buffer) = (Vec::new(), [0; 100]);
    loop {
        match reader.next(&mut buffer).map_err(|error| error.to_string())? {
            0 => return Ok(String::from_utf8(all).unwrap()),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

#[test]
fn a_unit_s_parts_are_read_as_one_and_one_that_is_not_as_published_is_named() {
    let (_keep, mount) = mount();
    let exported = parts(&mount);
    // What an attempt of another number of segments left is nothing of this one.
    fs::write(mount.path(&part_path(&exported.file, 3)), gz("4\n")).unwrap();
    fs::write(mount.path(&exported.file), gz("5\n")).unwrap();
    assert_eq!(read(&mount, &exported).unwrap(), "1\n2\n3\n");
    let ledger: Exported = serde_json::from_str(&serde_json::to_string(&exported).unwrap()).unwrap();
    assert_eq!(ledger, exported);
    let path = mount.path(&part_path(&exported.file, 2));
    for (bytes, word) in [
        (gz("33\n"), "u^seg2.csv.gz is not the file"),
        (gz("4\n"), "u^seg2.csv.gz was changed"),
        (vec![], "u^seg2.csv.gz"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = read(&mount, &exported).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    let mut flipped = gz("3\n");
    flipped[11] ^= 0x40;
    fs::write(&path, flipped).unwrap();
    assert!(read(&mount, &exported).unwrap_err().contains("u^seg2.csv.gz"));
    fs::remove_file(path).unwrap();
    assert!(read(&mount, &exported).unwrap_err().contains("u^seg2.csv.gz was published"));
}

#[test]
fn a_symlink_at_a_file_s_place_is_not_followed() {
    let (keep, mount) = mount();
    fs::write(keep.path().join("outside"), [0; 30]).unwrap();
    std::os::unix::fs::symlink(keep.path().join("outside"), mount.path(Path::new("a"))).unwrap();
    assert!(matches!(open(&mount, "a", 30), Err(MountError::Link { .. })));
}

#[test]
fn a_symlink_at_a_directory_s_place_is_not_followed() {
    let (keep, mount) = mount();
    let outside = keep.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a"), [0; 30]).unwrap();
    std::os::unix::fs::symlink(&outside, mount.path(Path::new("s"))).unwrap();
    assert!(matches!(open(&mount, "s/a", 30), Err(MountError::Link { .. })));
    std::os::unix::fs::symlink(&outside, mount.path(Path::new("manifest"))).unwrap();
    assert!(matches!(mount.manifest("run1"), Err(MountError::Unusable { .. })));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "a manifest was written outside");
}

#[test]
fn what_the_runner_makes_is_not_for_others_whatever_the_umask() {
    let (_keep, mount) = mount();
    drop(mount.manifest("run1").unwrap());
    for (name, mode) in [("manifest", 0o770), ("manifest/run1.jsonl", 0o660)] {
        let facts = fs::metadata(mount.path(Path::new(name))).unwrap();
        assert_eq!(facts.mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn a_manifest_is_never_written_twice() {
    let (_keep, mount) = mount();
    let mut manifest = mount.manifest("run1").unwrap();
    manifest.append(&serde_json::json!({"unit": "x"})).unwrap();
    assert!(mount.manifest("run1").is_err());
    let text = fs::read_to_string(mount.path(Path::new("manifest/run1.jsonl"))).unwrap();
    assert_eq!(text, "{\"unit\":\"x\"}\n");
}
