use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;

use super::*;
use crate::engine::ErrorKind;
use crate::engine::fs::fault::{Fault, FaultFs, Repeat};
use crate::engine::id::FieldId;
use crate::engine::key::EncodedKey;
use crate::engine::proto::tests as samples;
use crate::engine::segment::SegmentMeta;

const DIR: &str = "/data";

fn open(fs: &FaultFs) -> Result<(ManifestStore, Option<Checkpoint>)> {
    ManifestStore::open(Arc::new(fs.clone()), Path::new(DIR))
}

fn segment(table: u64, id: u64, deleted: impl IntoIterator<Item = u32>) -> AddedSegment {
    let meta = SegmentMeta {
        id: SegmentId(id),
        table: TableId(table),
        row_count: 100_000,
        min_key: EncodedKey::U64(id),
        max_key: EncodedKey::Bytes(vec![1, 2, 3].into()),
        row_ids: Some((1, 100_000)),
        row_group_rows: 1000,
        data_bytes: 1 << 20,
        data_crc: 0xdead_beef,
        index_bytes: 1 << 10,
        index_crc: 1,
        fields: vec![FieldId(1), FieldId(0)],
        leaf_count: 3,
        max_error: 17,
        mean_error: 0.25,
        train_nanos: 12_345,
        trained_at_micros: -1,
    };
    AddedSegment { meta, deleted: deleted.into_iter().collect() }
}

fn table(id: u64, segments: Vec<AddedSegment>) -> Arc<TableCheckpoint> {
    Arc::new(TableCheckpoint {
        meta: Arc::new(samples::table_meta(id, &format!("table {id}"))),
        next_row_id: id * 10,
        flushed_below: Generation(id + 1),
        segments,
    })
}

fn checkpoint(seq: u64, tables: Vec<Arc<TableCheckpoint>>) -> Checkpoint {
    Checkpoint {
        seq: SeqNo(seq),
        replay_from: SeqNo(seq - seq % 3),
        next_segment: SegmentId(seq * 100),
        next_table: TableId(seq * 10),
        schemas: vec!["public".to_owned(), format!("s{seq}")],
        views: vec![(TableName::from("v"), format!("SELECT {seq}"))],
        tables,
    }
}

fn assert_same(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!(
        (a.seq, a.replay_from, a.next_segment, a.next_table, &a.schemas, &a.views, a.tables.len()),
        (b.seq, b.replay_from, b.next_segment, b.next_table, &b.schemas, &b.views, b.tables.len())
    );
    for (a, b) in a.tables.iter().zip(&b.tables) {
        samples::assert_same_table(&a.meta, &b.meta);
        assert_eq!((a.next_row_id, a.flushed_below), (b.next_row_id, b.flushed_below));
        assert!(a.segments.iter().map(|s| &s.meta).eq(b.segments.iter().map(|s| &s.meta)));
        assert!(a.segments.iter().map(|s| &s.deleted).eq(b.segments.iter().map(|s| &s.deleted)));
    }
}

fn names(fs: &FaultFs) -> Vec<String> {
    let name = |path: PathBuf| path.strip_prefix(DIR).unwrap().to_str().unwrap().to_owned();
    fs.files().into_iter().map(name).collect()
}

/// Three checkpoints: the second changes one table of three, the third drops one and adds one.
fn three() -> [Checkpoint; 3] {
    let a = table(1, vec![segment(1, 10, [1, 5, 99_999]), segment(1, 11, [])]);
    let b = table(2, vec![segment(2, 20, 100..50_000)]);
    let c = table(3, Vec::new());
    let changed = table(1, vec![segment(1, 10, [1, 5, 99_999]), segment(1, 12, [7])]);
    [
        checkpoint(5, vec![a.clone(), b.clone(), c.clone()]),
        checkpoint(9, vec![changed.clone(), b.clone(), c.clone()]),
        checkpoint(10, vec![changed, b, table(4, vec![segment(4, 40, [3])])]),
    ]
}

#[test]
fn a_new_directory_has_no_checkpoint() {
    let fs = FaultFs::new();
    assert!(open(&fs).unwrap().1.is_none());
    assert!(open(&fs).unwrap().1.is_none());
}

#[test]
fn checkpoints_come_back_and_share_what_did_not_change() {
    let fs = FaultFs::new();
    let [first, second, third] = three();
    let (mut store, _) = open(&fs).unwrap();
    store.write(&first).unwrap();
    assert_same(&open(&fs).unwrap().1.unwrap(), &first);
    store.write(&second).unwrap();
    assert_same(&open(&fs).unwrap().1.unwrap(), &second);
    let dir = |seq: u64, file: &str| format!("manifest/{seq:020}/{file}");
    let pack = |seq: u64| format!("bitmaps/{seq:020}.del");
    let wanted =
        [pack(5), pack(9), dir(5, "2.part"), dir(5, "3.part"), dir(9, "1.part"), dir(9, "root")];
    assert_eq!(names(&fs), wanted);
    store.write(&third).unwrap();
    assert_same(&open(&fs).unwrap().1.unwrap(), &third);
    let wanted = [
        pack(5),
        pack(9),
        pack(10),
        dir(5, "2.part"),
        dir(9, "1.part"),
        dir(10, "4.part"),
        dir(10, "root"),
    ];
    assert_eq!(names(&fs), wanted);
    store.write(&checkpoint(11, Vec::new())).unwrap();
    assert_eq!(names(&fs), [dir(11, "root")]);
    assert_eq!(fs.list(Path::new("/data/manifest")).unwrap().len(), 1);
}

#[test]
fn the_system_s_files_do_as_well() {
    let root = tempfile::tempdir().unwrap();
    let open = || ManifestStore::open(Arc::new(crate::engine::fs::OsFs), root.path()).unwrap();
    let (mut store, _) = open();
    for checkpoint in three() {
        store.write(&checkpoint).unwrap();
        assert_same(&open().1.unwrap(), &checkpoint);
    }
    let left = std::fs::read_dir(root.path().join("manifest")).unwrap().count();
    assert_eq!(left, 3, "directories of the newest checkpoint and of those whose parts it shares");
}

#[test]
fn what_was_read_is_shared_too() {
    let fs = FaultFs::new();
    let [first, ..] = three();
    open(&fs).unwrap().0.write(&first).unwrap();
    let (mut store, found) = open(&fs).unwrap();
    let mut found = found.unwrap();
    found.seq = SeqNo(6);
    store.write(&found).unwrap();
    let parts = names(&fs).into_iter().filter(|n| n.ends_with(".part"));
    assert!(parts.into_iter().all(|n| n.contains("0005/")));
    assert_same(&open(&fs).unwrap().1.unwrap(), &found);
}

#[test]
fn a_checkpoint_of_the_same_commit_is_written_once_and_an_older_one_never() {
    let fs = FaultFs::new();
    let (mut store, _) = open(&fs).unwrap();
    store.write(&checkpoint(5, Vec::new())).unwrap();
    let calls = fs.operation_count();
    store.write(&checkpoint(5, Vec::new())).unwrap();
    assert_eq!(fs.operation_count(), calls);
    assert_eq!(store.write(&checkpoint(4, Vec::new())).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn packs_that_are_mostly_garbage_are_given_up() {
    let fs = FaultFs::new();
    let (mut store, _) = open(&fs).unwrap();
    let still = table(1, vec![segment(1, 10, [1])]);
    let mut rng = 1_u64;
    for seq in 1..40 {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let busy = (0..2000).map(|i| (rng >> 32) as u32 % 40 + i * 41);
        let written = checkpoint(seq, vec![still.clone(), table(2, vec![segment(2, 20, busy)])]);
        store.write(&written).unwrap();
        assert_same(&open(&fs).unwrap().1.unwrap(), &written);
        let packs = names(&fs).into_iter().filter(|n| n.starts_with("bitmaps")).count();
        assert!(packs <= 2, "{packs} packs at {seq}");
    }
}

#[test]
fn every_byte_of_every_file_is_checked() {
    let fs = FaultFs::new();
    let (mut store, _) = open(&fs).unwrap();
    for checkpoint in three() {
        store.write(&checkpoint).unwrap();
    }
    for path in fs.files() {
        let content = fs.contents(&path).unwrap();
        for at in 0..content.len() {
            let fs = fs.duplicate();
            let mut flipped = content.clone();
            flipped[at] ^= 1 << (at % 8);
            fs.set_contents(&path, &flipped);
            let error = open(&fs).expect_err("damage was not noticed");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        }
        for len in 0..content.len() {
            let fs = fs.duplicate();
            fs.set_contents(&path, &content[..len]);
            assert_eq!(open(&fs).unwrap_err().kind(), ErrorKind::Corruption);
        }
        let fs = fs.duplicate();
        fs.set_contents(&path, &[&content[..], b"x"].concat());
        assert_eq!(open(&fs).unwrap_err().kind(), ErrorKind::Corruption);
        if path.file_name().unwrap() != "root" {
            fs.remove(&path).unwrap();
            let error = open(&fs).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert!(error.message().contains("is missing"), "{error}");
        }
    }
}

#[test]
fn a_file_of_another_checkpoint_is_noticed() {
    let fs = FaultFs::new();
    let (mut store, _) = open(&fs).unwrap();
    let [first, second, _] = three();
    store.write(&first).unwrap();
    let part = Path::new("/data/manifest/00000000000000000005/1.part");
    let old = fs.contents(part).unwrap();
    store.write(&second).unwrap();
    fs.set_contents(Path::new("/data/manifest/00000000000000000009/1.part"), &old);
    let error = open(&fs).unwrap_err();
    assert!(error.message().contains("replaced"), "{error}");
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let fs = FaultFs::new();
    open(&fs).unwrap().0.write(&checkpoint(3, Vec::new())).unwrap();
    let path = &fs.files()[0];
    let mut content = fs.contents(path).unwrap();
    content[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let crc = crc32c::crc32c(&content[..28]);
    content[28..32].copy_from_slice(&crc.to_le_bytes());
    fs.set_contents(path, &content);
    let error = open(&fs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 2"), "{error}");
}

#[test]
fn foreign_files_are_left_alone() {
    let fs = FaultFs::new();
    let (mut store, _) = open(&fs).unwrap();
    let foreign = [Path::new("/data/manifest/notes"), Path::new("/data/bitmaps/7.del")];
    foreign.iter().for_each(|path| fs.set_contents(path, b"mine"));
    for checkpoint in three() {
        store.write(&checkpoint).unwrap();
    }
    open(&fs).unwrap();
    assert!(foreign.iter().all(|path| fs.contents(path).is_some()));
}

/// What is known of the checkpoints `all` over crashes: the one before `durable`, counted from 1, is
/// there, or a later one up to `tried`.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    durable: usize,
    tried: usize,
}

impl Known {
    /// Opens and checks. What is read is there to stay.
    fn open(&mut self, fs: &FaultFs, all: &[Checkpoint]) -> Result<ManifestStore> {
        let (store, found) = open(fs)?;
        let count = found.map_or(0, |found| {
            let index = all.iter().position(|c| c.seq == found.seq).unwrap();
            assert_same(&found, &all[index]);
            index + 1
        });
        assert!(count >= self.durable && count <= self.tried, "{count}, {self:?}");
        self.durable = count;
        Ok(store)
    }

    /// Opens and writes the checkpoints that are not there.
    fn work(&mut self, fs: &FaultFs, all: &[Checkpoint]) -> Result<()> {
        let mut store = self.open(fs, all)?;
        while let Some(next) = all.get(self.durable) {
            self.tried = self.tried.max(self.durable + 1);
            store.write(next)?;
            self.durable += 1;
        }
        Ok(())
    }
}

/// Has `fault` strike at every call, with some seeds; then perhaps another process goes on while the power is still on;
/// then the power goes, also during the recovery from that.
fn survive(fault: Fault, repeat: Repeat, seeds: u64) {
    let all = three();
    let calls = {
        let fs = FaultFs::new();
        Known::default().work(&fs, &all).unwrap();
        fs.operation_count()
    };
    for (at, seed) in (0..calls).flat_map(|at| (0..seeds).map(move |seed| (at, seed))) {
        let fs = FaultFs::seeded(seed);
        let mut known = Known::default();
        fs.inject(at, fault, repeat);
        let _ = known.work(&fs, &all);
        fs.clear_faults();
        if seed % 3 > 0 {
            let _ = known.open(&fs, &all).map(drop);
        }
        if seed % 3 > 1 {
            fs.inject(fs.operation_count() + at * 5 % 23, Fault::PowerCut, Repeat::Once);
            let _ = known.work(&fs, &all);
        }
        let found = fs.crash(seed);
        found.inject(at * 7 % 31, Fault::PowerCut, Repeat::Once);
        let _ = known.work(&found, &all);
        let found = found.crash(seed + 100);
        if let Err(e) = known.work(&found, &all) {
            panic!("{fault:?} at {at}, seed {seed}: {e}");
        }
        assert!(names(&found).iter().all(|name| !name.ends_with(".tmp")));
    }
}

#[test]
fn a_power_cut_at_any_call_leaves_the_checkpoint_before_or_the_new_one() {
    survive(Fault::PowerCut, Repeat::Once, 6);
}

#[test]
fn so_does_a_kill_at_any_call_and_a_power_cut_later() {
    survive(Fault::Killed, Repeat::Once, 6);
}

#[test]
fn so_does_an_error_at_any_call() {
    survive(Fault::Device, Repeat::Once, 3);
    survive(Fault::Device, Repeat::Forever, 3);
    survive(Fault::Sync, Repeat::Once, 3);
    survive(Fault::NoSpace, Repeat::Once, 3);
}

#[test]
fn a_failed_sync_ends_writing_and_a_full_disk_does_not() {
    let [first, second, _] = three();
    let fs = FaultFs::new();
    let (mut store, _) = open(&fs).unwrap();
    store.write(&first).unwrap();
    fs.inject(fs.operation_count(), Fault::NoSpace, Repeat::Once);
    assert_eq!(store.write(&second).unwrap_err().kind(), ErrorKind::ResourceExhausted);
    store.write(&second).unwrap();
    assert_same(&open(&fs).unwrap().1.unwrap(), &second);
    fs.inject(fs.operation_count(), Fault::Sync, Repeat::Once);
    let third =
        checkpoint(20, vec![table(9, vec![segment(9, 90, RoaringBitmap::from_iter(0..9))])]);
    assert_eq!(store.write(&third).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.write(&third).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_same(&open(&fs).unwrap().1.unwrap(), &second);
}
