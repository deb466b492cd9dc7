use super::inode::BLOCK;
use super::*;

const DIR: &str = "/dir";
const FILE: &str = "/dir/file";

fn with_synced_file(bytes: &[u8]) -> (FaultFs, Arc<dyn VfsFile>) {
    with_synced_file_on(FaultFs::new(), bytes)
}

fn with_synced_file_on(fs: FaultFs, bytes: &[u8]) -> (FaultFs, Arc<dyn VfsFile>) {
    fs.create_dir_all(Path::new(DIR)).unwrap();
    let file = fs.create(Path::new(FILE)).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    (fs, file)
}

/// How often each of some outcomes comes up over many seeds.
fn outcomes<T: Ord>(mut outcome: impl FnMut(u64) -> T) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for seed in 0..300 {
        *counts.entry(outcome(seed)).or_default() += 1;
    }
    counts
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..100 {
        let (fs, _file) = with_synced_file(b"synced");
        assert_eq!(fs.crash(seed).contents(Path::new(FILE)).unwrap(), b"synced");
    }
}

#[test]
fn what_was_not_synced_may_be_kept_lost_or_torn() {
    let counts = outcomes(|seed| {
        let (fs, file) = with_synced_file(&[1; 3 * BLOCK]);
        file.write_at(&[2; 3 * BLOCK], 0).unwrap();
        let found = fs.crash(seed).contents(Path::new(FILE)).unwrap();
        assert_eq!(found.len(), 3 * BLOCK);
        match found.iter().filter(|b| **b == 2).count() {
            0 => "lost",
            n if n == 3 * BLOCK => "kept",
            n if n % BLOCK == 0 => "some blocks",
            _ => "torn",
        }
    });
    assert_eq!(counts.len(), 4, "{counts:?}");
}

#[test]
fn lengths_that_were_not_synced_may_be_kept_or_lost() {
    let counts = outcomes(|seed| {
        let (fs, file) = with_synced_file(&[1; 10]);
        file.set_len(4).unwrap();
        file.write_at(&[2; 4], 16).unwrap();
        let found = fs.crash(seed).contents(Path::new(FILE)).unwrap();
        assert!(found.len() >= 4 && found.len() <= 20, "{}", found.len());
        found.len()
    });
    assert!(counts.contains_key(&10) && counts.contains_key(&20), "{counts:?}");
}

#[test]
fn names_that_were_not_synced_may_be_kept_or_lost() {
    let counts = outcomes(|seed| {
        let (fs, _file) = with_synced_file(b"old");
        let new = fs.create(Path::new("/dir/new")).unwrap();
        new.write_at(b"new", 0).unwrap();
        new.sync().unwrap();
        fs.rename(Path::new("/dir/new"), Path::new(FILE)).unwrap();
        let found = fs.crash(seed);
        let text = String::from_utf8(found.contents(Path::new(FILE)).unwrap()).unwrap();
        (text, found.exists(Path::new("/dir/new")).unwrap())
    });
    let wanted = [("new".to_owned(), false), ("old".to_owned(), false), ("old".to_owned(), true)];
    assert_eq!(counts.into_keys().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_along() {
    let counts = outcomes(|seed| {
        let fs = FaultFs::new();
        fs.state.lock().create_dir(Path::new(DIR)).unwrap();
        let file = fs.create(Path::new(FILE)).unwrap();
        file.sync().unwrap();
        fs.sync_dir(Path::new(DIR)).unwrap();
        fs.crash(seed).exists(Path::new(FILE)).unwrap()
    });
    assert_eq!(counts.len(), 2);
}

#[test]
fn a_removed_file_lives_on_for_its_readers() {
    let (fs, file) = with_synced_file(b"still here");
    fs.remove(Path::new(FILE)).unwrap();
    let mut buf = [0; 5];
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"still");
    assert!(fs.open(Path::new(FILE)).is_err());
    fs.remove_dir(Path::new(DIR)).unwrap();
}

#[test]
fn a_failed_sync_loses_pages_and_the_next_one_succeeds() {
    let counts = outcomes(|seed| {
        let (fs, file) = with_synced_file_on(FaultFs::seeded(seed), &[1; BLOCK]);
        file.write_at(&[2; BLOCK], 0).unwrap();
        fs.inject(0, Fault::Sync, Repeat::Once);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(fs.contents(Path::new(FILE)).unwrap()[0], 2, "reads show the lost page");
        fs.crash(0).contents(Path::new(FILE)).unwrap()[0]
    });
    assert_eq!(counts.into_keys().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn faults_strike_where_they_are_told() {
    let (fs, file) = with_synced_file(&[]);
    fs.inject(fs.operation_count() + 1, Fault::NoSpace, Repeat::Once);
    file.write_at(b"fits", 0).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    let full = file.write_at(b"does not", 4).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.contents(Path::new(FILE)).unwrap(), b"fitsdoes");
    file.write_at(b"again", 4).unwrap();

    fs.inject(0, Fault::Device, Repeat::Forever);
    assert!(file.len().is_err() && file.sync().is_err() && fs.list(Path::new(DIR)).is_err());
    fs.clear_faults();
    assert_eq!(file.len().unwrap(), 9);

    fs.inject(fs.operation_count(), Fault::PowerCut, Repeat::Once);
    assert!(file.sync().is_err());
    fs.clear_faults();
    assert!(file.len().is_err());
    assert_eq!(fs.trace().last().unwrap().0, Operation::Sync);
}

#[test]
fn a_killed_process_leaves_its_cache_to_the_next() {
    let (fs, file) = with_synced_file(b"old");
    file.write_at(b"new", 0).unwrap();
    fs.inject(fs.operation_count(), Fault::Killed, Repeat::Once);
    assert!(file.write_at(b"not", 0).is_err() && file.sync().is_err());
    assert!(fs.remove(Path::new(FILE)).is_err());
    fs.clear_faults();
    assert_eq!(fs.contents(Path::new(FILE)).unwrap(), b"new");
    let counts = outcomes(|seed| {
        let (fs, file) = with_synced_file(b"old");
        file.write_at(b"new", 0).unwrap();
        fs.inject(0, Fault::Killed, Repeat::Once);
        assert!(file.sync().is_err());
        fs.crash(seed).contents(Path::new(FILE)).unwrap()
    });
    assert!(counts.contains_key(&b"old"[..]) && counts.contains_key(&b"new"[..]));
}

#[test]
fn locks_exclude_and_end_with_a_crash() {
    let fs = FaultFs::new();
    let path = Path::new("/LOCK");
    let held = fs.lock(path).unwrap();
    assert_eq!(fs.lock(path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    drop(held);
    let _held = fs.lock(path).unwrap();
    fs.crash(1).lock(path).unwrap();
}
