use super::*;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;

fn member(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Poorly compressible text of some 100 kB.
fn text() -> Vec<u8> {
    (0u32..20_000).flat_map(|n| format!("{}\n", n.wrapping_mul(2_654_435_761)).into_bytes()).collect()
}

fn read_back(bytes: &[u8], published: usize) -> Result<Vec<u8>, GzipError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let trailer = Trailer { bytes: published as u64, crc32: 0, isize: 0 };
    let mut reader = CheckedReader::new(file, Path::new("x.csv.gz"), &trailer);
    let (mut all, mut buffer) = (Vec::new(), vec![0; 8192]);
    loop {
        match reader.next(&mut buffer)? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

#[test]
fn every_member_is_read() {
    let whole = [member(b"one\n"), member(b""), member(b"two\n")].concat();
    assert_eq!(read_back(&whole, whole.len()).unwrap(), b"one\ntwo\n");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = [member(&text()), member(b"two\n")].concat();
    let first = member(&text()).len();
    for cut in [0, 5, 1000, first - 3, first, first + 4, whole.len() - 1] {
        let error = read_back(&whole[..cut], whole.len()).unwrap_err();
        let between_members = cut == first;
        assert_eq!(matches!(error, GzipError::Size { .. }), between_members, "{cut}: {error}");
        assert_eq!(matches!(error, GzipError::Truncated { .. }), !between_members, "{cut}: {error}");
    }
}

#[test]
fn a_flipped_bit_in_data_or_trailer_is_named_damage() {
    let whole = member(&text());
    for at in [20, whole.len() / 2, whole.len() - 6, whole.len() - 2] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let error = read_back(&flipped, whole.len()).unwrap_err();
        assert!(
            matches!(
                error,
                GzipError::Checksum { .. } | GzipError::Corrupt { .. } | GzipError::Truncated { .. }
            ),
            "byte {at}: {error}"
        );
    }
}

#[test]
fn zeros_and_additions_are_refused() {
    assert!(read_back(&[0; 4096], 4096).is_err());
    let whole = member(b"one\n");
    let added = [whole.clone(), b"junk".to_vec()].concat();
    assert!(read_back(&added, whole.len()).is_err());
    let twice = [whole.clone(), whole.clone()].concat();
    assert!(matches!(read_back(&twice, whole.len()), Err(GzipError::Size { .. })));
}

fn opened(name: &str, bytes: &[u8], published: usize) -> Opened {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    Opened { file, path: name.into(), trailer: Trailer { bytes: published as u64, crc32: 0, isize: 0 } }
}

/// Files that are read as one, where the second has these bytes and was published with so many.
fn three(second: &[u8], published: usize) -> Result<(Vec<u8>, u64), GzipError> {
    let (first, empty) = (member(&text()), member(b""));
    let rest = [opened("b", second, published), opened("c", &empty, empty.len())];
    let Opened { file, path, trailer } = opened("a", &first, first.len());
    let told = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let hears = std::sync::Arc::clone(&told);
    let mut rest = rest.into_iter();
    let mut reader = CheckedReader::new(file, &path, &trailer)
        .followed_by(0, move || rest.next().map(Ok))
        .telling(move |bytes| hears.store(bytes, std::sync::atomic::Ordering::SeqCst));
    let (mut all, mut buffer) = (Vec::new(), vec![0; 8192]);
    loop {
        match reader.next(&mut buffer)? {
            0 => return Ok((all, told.load(std::sync::atomic::Ordering::SeqCst))),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

#[test]
fn files_that_follow_each_other_are_read_as_one_and_each_is_checked() {
    let second = member(b"two\n");
    let (all, told) = three(&second, second.len()).unwrap();
    assert_eq!(all, [text(), b"two\n".to_vec()].concat());
    assert_eq!(told, (member(&text()).len() + second.len()) as u64, "bytes of all that were read");
    let of = |error: GzipError| match error {
        GzipError::Truncated { path, .. }
        | GzipError::Size { path, .. }
        | GzipError::Checksum { path, .. }
        | GzipError::Corrupt { path, .. }
        | GzipError::Unreadable { path, .. } => path,
    };
    let mut flipped = second.clone();
    flipped[second.len() - 6] ^= 1;
    for (bytes, published) in [
        (&flipped[..], second.len()),
        (&second[..9], second.len()),
        (&second[..], second.len() + 1),
        (&[], 24),
    ] {
        assert_eq!(of(three(bytes, published).unwrap_err()), Path::new("b"), "{bytes:?}");
    }
}

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever was done to a file: what is read to its end is what was written, or there is an error.
    #[test]
    fn a_damaged_file_is_never_read_as_another(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<proptest::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let data = parts.concat();
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| member(part)).collect();
        let published = bytes.len();
        for (at, with) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if let Ok(read) = read_back(&bytes, published) {
            prop_assert_eq!(read, data);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_back(&bytes, bytes.len());
        let _ = read_back(&[&[0x1f, 0x8b, 8, 0], &bytes[..]].concat(), bytes.len() + 4);
    }
}
