use std::path::Path;

use arrow::array::{Int64Array, RecordBatch};
use proptest::prelude::*;

use super::*;
use crate::engine::fs::fault::{Fault, FaultFs, Repeat};
use crate::engine::proto::tests as samples;

const DIR: &str = "/data/wal";

type Opened = Result<(Wal, WalRecovery, Vec<WalRecord>)>;

fn open_from(fs: &FaultFs, from: u64) -> Opened {
    let mut records = Vec::new();
    let (wal, recovery) =
        Wal::open(Arc::new(fs.clone()), Path::new(DIR), SeqNo(from), &mut |record| {
            records.push(record);
            Ok(())
        })?;
    assert_eq!(recovery.record_count, records.len() as u64);
    Ok((wal, recovery, records))
}

fn open(fs: &FaultFs) -> Opened {
    open_from(fs, 1)
}

/// A record whose bytes follow from its number.
fn record(seq: u64) -> WalRecord {
    let ops = vec![
        WalOp::PutSchema(format!("schema {seq}")),
        WalOp::PutSchema("x".repeat(seq as usize % 23)),
    ];
    WalRecord { seq: SeqNo(seq), ops }
}

fn encoded(record: &WalRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    bytes
}

fn append(wal: &mut Wal, first: u64, count: u64) -> Result<()> {
    let records: Vec<_> = (first..first + count).map(|seq| encoded(&record(seq))).collect();
    wal.append(SeqNo(first), SeqNo(first + count - 1), &records)
}

/// Checks that `records` are those numbered `first` and up, each as it was written, and returns how many.
fn check_records(records: &[WalRecord], first: u64) -> u64 {
    for (seq, found) in (first..).zip(records) {
        assert_eq!(found.seq.0, seq);
        assert_eq!(encoded(found), encoded(&record(seq)));
    }
    records.len() as u64
}

fn log_files(fs: &FaultFs) -> Vec<PathBuf> {
    fs.files().into_iter().filter(|p| p.starts_with(DIR)).collect()
}

#[test]
fn records_come_back_in_order() {
    let fs = FaultFs::new();
    let (mut wal, recovery, records) = open(&fs).unwrap();
    assert!(records.is_empty() && recovery.torn_bytes == 0 && wal.len_bytes() == 0);
    append(&mut wal, 1, 1).unwrap();
    append(&mut wal, 2, 5).unwrap();
    let bytes = wal.len_bytes();
    assert_eq!(recovery.next_seq, None);
    let (mut wal, recovery, records) = open(&fs).unwrap();
    assert_eq!(check_records(&records, 1), 6);
    assert_eq!((recovery.torn_bytes, wal.len_bytes()), (0, bytes));
    assert_eq!(recovery.next_seq, Some(SeqNo(7)));
    append(&mut wal, 7, 1).unwrap();
    let (_, _, records) = open_from(&fs, 4).unwrap();
    assert_eq!(check_records(&records, 4), 4);
}

#[test]
fn the_system_s_files_do_as_well() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/wal");
    let open = || {
        let mut records = Vec::new();
        let vfs = Arc::new(crate::engine::fs::OsFs);
        let visit = &mut |record| {
            records.push(record);
            Ok(())
        };
        let (wal, recovery) = Wal::open(vfs, &dir, SeqNo(1), visit).unwrap();
        (wal, recovery.torn_bytes, check_records(&records, 1))
    };
    let (mut wal, ..) = open();
    append(&mut wal, 1, 3).unwrap();
    wal.rotate().unwrap();
    append(&mut wal, 4, 2).unwrap();
    append(&mut wal, 6, 1).unwrap();
    let (newest, end) = (wal.files[1].path.clone(), wal.files[1].end);
    drop(wal);
    std::fs::OpenOptions::new().write(true).open(newest).unwrap().set_len(end - 10).unwrap();
    let (mut wal, torn_bytes, count) = open();
    assert!(torn_bytes > 0 && count == 5);
    append(&mut wal, 6, 1).unwrap();
    let (_, torn_bytes, count) = open();
    assert_eq!((torn_bytes, count), (0, 6));
}

#[test]
fn numbers_have_no_gaps() {
    let fs = FaultFs::new();
    let (mut wal, ..) = open(&fs).unwrap();
    append(&mut wal, 1, 2).unwrap();
    for (first, last, count) in [(4, 4, 1), (2, 2, 1), (3, 4, 1), (3, 3, 2)] {
        let records = vec![encoded(&record(first)); count];
        let error = wal.append(SeqNo(first), SeqNo(last), &records).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    append(&mut wal, 3, 1).unwrap();
    assert_eq!(check_records(&open(&fs).unwrap().2, 1), 3);
}

#[test]
fn files_are_rotated_and_removed() {
    let fs = FaultFs::new();
    let (mut wal, ..) = open(&fs).unwrap();
    wal.rotate().unwrap();
    for first in [1, 11, 21] {
        append(&mut wal, first, 10).unwrap();
        wal.rotate().unwrap();
        wal.rotate().unwrap();
    }
    assert_eq!(log_files(&fs).len(), 4);
    wal.remove_below(SeqNo(10)).unwrap();
    assert_eq!(log_files(&fs).len(), 4);
    wal.remove_below(SeqNo(11)).unwrap();
    assert_eq!(log_files(&fs).len(), 3);
    let (mut wal, _, records) = open_from(&fs, 11).unwrap();
    assert_eq!(check_records(&records, 11), 20);
    wal.remove_below(SeqNo(99)).unwrap();
    assert_eq!(log_files(&fs).len(), 1);
    append(&mut wal, 31, 1).unwrap();
    assert_eq!(check_records(&open_from(&fs, 31).unwrap().2, 31), 1);
}

#[test]
fn missing_records_are_noticed() {
    let fs = FaultFs::new();
    let (mut wal, ..) = open(&fs).unwrap();
    for first in [1, 11, 21] {
        append(&mut wal, first, 10).unwrap();
        wal.rotate().unwrap();
    }
    drop(wal);
    let without = |index: usize| {
        let fs = fs.duplicate();
        fs.remove(&log_files(&fs)[index]).unwrap();
        fs
    };
    let fails = |fs: &FaultFs, from: u64| {
        let error = open_from(fs, from).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    };
    fails(&without(0), 1);
    fails(&without(0), 0);
    fails(&without(1), 5);
    fails(&fs, 32);
    // What a checkpoint holds is not needed: a crash may bring removed files back, and not all of them.
    assert_eq!(check_records(&open_from(&without(0), 11).unwrap().2, 11), 20);
    assert_eq!(check_records(&open_from(&without(1), 21).unwrap().2, 21), 10);
    assert_eq!(check_records(&open_from(&without(1), 25).unwrap().2, 25), 6);
    assert_eq!(open_from(&fs, 31).unwrap().2.len(), 0);
}

/// A log of two files: 1..=6 in the older, 7..=12 in the newer, in groups of one to three.
fn small_log() -> FaultFs {
    let fs = FaultFs::new();
    let (mut wal, ..) = open(&fs).unwrap();
    for (first, count) in [(1, 1), (2, 2), (4, 3)] {
        append(&mut wal, first, count).unwrap();
    }
    wal.rotate().unwrap();
    for (first, count) in [(7, 2), (9, 3), (12, 1)] {
        append(&mut wal, first, count).unwrap();
    }
    let newest = log_files(&fs).pop().unwrap();
    let end = wal.files[1].end as usize;
    // Space set aside is of no interest to most tests.
    let content = fs.contents(&newest).unwrap();
    let mark = GroupHeader::decode(&content[end..]).unwrap();
    assert_eq!(mark, GroupHeader::mark(end as u64, 13, 7));
    let rest = &content[end + GROUP_HEADER_LEN..];
    assert!(content.len() as u64 == GROWTH_BYTES && rest.iter().all(|b| *b == 0));
    // Nor are marks: after a power cut they may be missing.
    fs.set_contents(&newest, &content[..end]);
    fs
}

/// [`small_log`] with the mark after its last group, as a process that is killed leaves it.
fn marked_log() -> FaultFs {
    let fs = small_log();
    let newest = log_files(&fs).pop().unwrap();
    let mut content = fs.contents(&newest).unwrap();
    content.extend(GroupHeader::mark(content.len() as u64, 13, 7).encode());
    content.extend([0; 200]);
    fs.set_contents(&newest, &content);
    fs
}

#[test]
fn damage_before_a_mark_is_no_torn_write() {
    let whole = marked_log();
    let newest = log_files(&whole).pop().unwrap();
    let content = whole.contents(&newest).unwrap();
    let mark = content.len() - 200 - GROUP_HEADER_LEN;
    for at in 0..content.len() {
        let fs = whole.duplicate();
        let mut flipped = content.clone();
        flipped[at] ^= 0x10;
        fs.set_contents(&newest, &flipped);
        match open(&fs) {
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corruption, "{e}");
                assert!(at < mark, "byte {at}: {e}");
            }
            Ok((mut wal, recovery, records)) => {
                assert!(at >= mark, "byte {at} was taken");
                assert_eq!(check_records(&records, 1), 12);
                assert!(recovery.torn_bytes > 0);
                append(&mut wal, 13, 2).unwrap();
                assert_eq!(check_records(&open(&fs).unwrap().2, 1), 14);
            }
        }
    }
}

/// The next group takes the place of the mark, and may be torn there in any way.
#[test]
fn a_write_torn_over_a_mark_is_dropped() {
    let before = marked_log();
    let newest = log_files(&before).pop().unwrap();
    let old = before.contents(&newest).unwrap();
    let start = old.len() - 200 - GROUP_HEADER_LEN;
    let after = before.duplicate();
    append(&mut open(&after).unwrap().0, 13, 3).unwrap();
    let mut new = after.contents(&newest).unwrap();
    new.truncate(start + 1024);
    let end = open(&after).unwrap().0.files[1].end as usize;
    let written = |from: usize, to: usize| {
        let mut torn = old.clone();
        torn.resize(new.len(), 0);
        torn[from..to].copy_from_slice(&new[from..to]);
        let fs = before.duplicate();
        fs.set_contents(&newest, &torn);
        let (mut wal, _, records) = open(&fs).unwrap();
        let count = check_records(&records, 1);
        // Mark and group begin alike.
        assert_eq!(count, if torn[..end] == new[..end] { 15 } else { 12 }, "{from}..{to}");
        append(&mut wal, count + 1, 1).unwrap();
        assert_eq!(check_records(&open(&fs).unwrap().2, 1), count + 1);
    };
    for at in start..=end {
        written(start, at);
        written(at, end);
    }
}

#[test]
fn logs_of_the_version_before_open_and_go_on() {
    let fs = small_log();
    for path in log_files(&fs) {
        let mut content = fs.contents(&path).unwrap();
        content[8..12].copy_from_slice(&1_u32.to_le_bytes());
        let crc = crc32c::crc32c(&content[..28]);
        content[28..32].copy_from_slice(&crc.to_le_bytes());
        fs.set_contents(&path, &content);
    }
    let newest = log_files(&fs).pop().unwrap();
    let (mut wal, _, records) = open(&fs).unwrap();
    assert_eq!(check_records(&records, 1), 12);
    append(&mut wal, 13, 1).unwrap();
    let end = wal.files[1].end as usize;
    assert!(fs.contents(&newest).unwrap()[end..].iter().all(|b| *b == 0), "no marks in it");
    wal.rotate().unwrap();
    append(&mut wal, 14, 1).unwrap();
    assert_eq!(check_records(&open(&fs).unwrap().2, 1), 14);
}

#[test]
fn a_log_cut_anywhere_is_a_prefix_or_an_error() {
    let whole = small_log();
    let files = log_files(&whole);
    for (index, path) in files.iter().enumerate() {
        let content = whole.contents(path).unwrap();
        let mut counts = std::collections::BTreeSet::new();
        for (len, zeroes) in (0..content.len()).flat_map(|len| [(len, 0), (len, 100), (len, 5000)])
        {
            let fs = whole.duplicate();
            if content[len..].iter().all(|b| *b == 0) && zeroes > 0 {
                continue; // Only zeroes are cut off, and come back.
            }
            let mut cut = content[..len].to_vec();
            cut.resize(len + zeroes, 0);
            fs.set_contents(path, &cut);
            match open(&fs) {
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Corruption, "{e}");
                    assert!(
                        index == 0 || (len < FILE_HEADER_LEN && len + zeroes > FILE_HEADER_LEN),
                        "{e}"
                    );
                    assert!(
                        e.message().contains(path.file_name().unwrap().to_str().unwrap()),
                        "{e}"
                    );
                }
                Ok((mut wal, recovery, records)) => {
                    assert_eq!(index, 1, "an older file cut at {len} was taken");
                    let count = check_records(&records, 1);
                    counts.insert(count);
                    // Whatever was cut off, the log goes on from there.
                    append(&mut wal, count + 1, 2).unwrap();
                    let again = open(&fs).unwrap();
                    assert_eq!(check_records(&again.2, 1), count + 2);
                    assert_eq!(again.1.torn_bytes, 0);
                    assert!(recovery.torn_bytes <= len as u64);
                }
            }
        }
        assert!(index == 0 || counts.into_iter().eq([6, 8, 11]));
    }
}

#[test]
fn a_log_with_any_byte_flipped_is_a_prefix_or_an_error() {
    let whole = small_log();
    let last_group = open(&whole).unwrap().0.files[1].end as usize - {
        let fs = small_log();
        let newest = log_files(&fs).pop().unwrap();
        let mut group = Vec::new();
        let header = GroupHeader {
            record_count: 0,
            payload_len: 0,
            first_seq: 12,
            last_seq: 12,
            offset: 0,
            durable_through: 0,
            file_first_seq: 7,
            payload_crc: 0,
        };
        encode_group(&mut group, &[encoded(&record(12))], header).unwrap();
        assert!(fs.contents(&newest).unwrap().len() > group.len());
        group.len()
    };
    for (index, path) in log_files(&whole).iter().enumerate() {
        let content = whole.contents(path).unwrap();
        for at in 0..content.len() {
            for mask in [0x01, 0x80, 0xff] {
                let fs = whole.duplicate();
                let mut flipped = content.clone();
                flipped[at] ^= mask;
                fs.set_contents(path, &flipped);
                match open(&fs) {
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Corruption, "{e}");
                        assert!(index == 0 || at < last_group, "byte {at} of the last group: {e}");
                        assert!(e.message().contains("offset"), "{e}");
                    }
                    Ok((_, _, records)) => {
                        // Only the last group of all has nothing after it to vouch for it.
                        assert!(
                            index == 1 && at >= last_group,
                            "byte {at} of file {index} was taken"
                        );
                        assert_eq!(check_records(&records, 1), 11);
                    }
                }
            }
        }
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let fs = small_log();
    let path = log_files(&fs).pop().unwrap();
    let mut content = fs.contents(&path).unwrap();
    content[8..12].copy_from_slice(&3_u32.to_le_bytes());
    let crc = crc32c::crc32c(&content[..28]);
    content[28..32].copy_from_slice(&crc.to_le_bytes());
    fs.set_contents(&path, &content);
    let error = open(&fs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 3"), "{error}");
}

#[test]
fn a_value_that_looks_like_a_group_is_no_group() {
    let fs = small_log();
    let newest = log_files(&fs).pop().unwrap();
    let stolen = fs.contents(&newest).unwrap();
    let (mut wal, ..) = open(&fs).unwrap();
    // A copy of the log inside the log: a torn write of it must not look like good groups.
    let big = WalRecord {
        seq: SeqNo(13),
        ops: vec![WalOp::DeleteKeys {
            table: TableId(1),
            keys: KeyColumn::Bytes(arrow::array::BinaryArray::from_iter_values(
                (0..8).map(|shift| &stolen[shift..]),
            )),
            row_ids: Vec::new(),
        }],
    };
    wal.append(SeqNo(13), SeqNo(13), &[encoded(&big)]).unwrap();
    let end = wal.files[1].end as usize;
    let mut content = fs.contents(&newest).unwrap();
    content[end - 20] ^= 1;
    content.truncate(end);
    fs.set_contents(&newest, &content);
    let (_, recovery, records) = open(&fs).unwrap();
    assert_eq!(check_records(&records, 1), 12);
    assert!(recovery.torn_bytes > stolen.len() as u64);
}

#[test]
fn a_failed_sync_ends_the_log() {
    for seed in 0..20 {
        let fs = FaultFs::seeded(seed);
        let (mut wal, ..) = open(&fs).unwrap();
        // More than a block, so that the last group is in another than the header.
        append(&mut wal, 1, 300).unwrap();
        fs.inject(fs.operation_count(), Fault::Sync, Repeat::Once);
        assert_eq!(append(&mut wal, 301, 1).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(append(&mut wal, 301, 1).unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(wal.rotate().unwrap_err().kind(), ErrorKind::ReadOnly);
        drop(wal);
        // What the next process reads, from the cache, it has to make durable.
        let (_wal, _, records) = open(&fs).unwrap();
        let count = check_records(&records, 1);
        assert!(count >= 300);
        let (_, _, records) = open(&fs.crash(seed)).unwrap();
        assert_eq!(check_records(&records, 1), count);
    }
}

#[test]
fn a_full_disk_takes_nothing_and_then_goes_on() {
    // Making a file takes space twice before the group does, twice; in a file there is, only the latter.
    for (before, at) in [(0, 0), (0, 1), (0, 2), (0, 5), (3, 0), (3, 1)] {
        let fs = FaultFs::new();
        let (mut wal, ..) = open(&fs).unwrap();
        if before > 0 {
            append(&mut wal, 1, before).unwrap();
            wal.rotate().unwrap();
        }
        fs.inject(fs.operation_count() + at, Fault::NoSpace, Repeat::Forever);
        let error = append(&mut wal, before + 1, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        fs.clear_faults();
        append(&mut wal, before + 1, 1).unwrap();
        assert_eq!(check_records(&open(&fs.crash(at)).unwrap().2, 1), before + 1);
    }
}

/// What is known of a log's records over crashes: `acknowledged` are there, no more than `tried`.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    acknowledged: u64,
    tried: u64,
}

impl Known {
    /// Opens the log and checks it. What is read is there to stay.
    fn open(&mut self, fs: &FaultFs) -> Result<Wal> {
        let from = self.acknowledged.saturating_sub(8).max(1);
        let (wal, _, records) = open_from(fs, from)?;
        let found = check_records(&records, from) + from - 1;
        assert!(found >= self.acknowledged && found <= self.tried, "{found}, {self:?}");
        self.acknowledged = found;
        Ok(wal)
    }

    /// Opens, appends, rotates and removes.
    fn work(&mut self, fs: &FaultFs) -> Result<()> {
        let mut wal = self.open(fs)?;
        for step in 0..6 {
            let count = step % 3 + 1;
            self.tried = self.tried.max(self.acknowledged + count);
            append(&mut wal, self.acknowledged + 1, count)?;
            self.acknowledged += count;
            if step % 2 == 1 {
                wal.rotate()?;
                wal.remove_below(SeqNo(self.acknowledged.saturating_sub(8)))?;
            }
        }
        Ok(())
    }
}

/// Has `fault` strike at every call, with some seeds; then perhaps another process goes on while the power is still on;
/// then the power goes, also during the recovery from that.
fn survive(fault: Fault, repeat: Repeat, seeds: u64) {
    let calls = {
        let fs = FaultFs::new();
        Known::default().work(&fs).unwrap();
        fs.operation_count()
    };
    for (at, seed) in (0..calls).flat_map(|at| (0..seeds).map(move |seed| (at, seed))) {
        let fs = FaultFs::seeded(seed);
        let mut known = Known::default();
        fs.inject(at, fault, repeat);
        let _ = known.work(&fs);
        fs.clear_faults();
        if seed % 3 > 0 {
            let _ = known.open(&fs).map(drop);
        }
        if seed % 3 > 1 {
            fs.inject(fs.operation_count() + at * 5 % 29, Fault::PowerCut, Repeat::Once);
            let _ = known.work(&fs);
        }
        let found = fs.crash(seed);
        found.inject(at * 7 % 11, Fault::PowerCut, Repeat::Once);
        let _ = known.work(&found);
        let found = found.crash(seed + 100);
        if let Err(e) = known.work(&found) {
            panic!("{fault:?} at {at}, seed {seed}: {e}");
        }
    }
}

/// An unfinished file vouches for the one before it. Removed, it must not come back later.
#[test]
fn an_unfinished_file_is_gone_before_anything_is_appended() {
    for seed in 0..60 {
        let fs = FaultFs::new();
        let (mut wal, ..) = open(&fs).unwrap();
        append(&mut wal, 1, 3).unwrap();
        fs.set_contents(&Path::new(DIR).join(file_name(4)), &[0; 17]);
        let (mut wal, ..) = open(&fs).unwrap();
        fs.inject(fs.operation_count() + 1, Fault::PowerCut, Repeat::Once);
        append(&mut wal, 4, 100).unwrap_err();
        let count = check_records(&open(&fs.crash(seed)).unwrap().2, 1);
        assert!(count == 3 || count == 103);
    }
}

#[test]
fn acknowledged_records_survive_a_power_cut_at_any_call() {
    survive(Fault::PowerCut, Repeat::Once, 6);
}

#[test]
fn acknowledged_records_survive_a_kill_at_any_call_and_a_power_cut_later() {
    survive(Fault::Killed, Repeat::Once, 6);
}

#[test]
fn acknowledged_records_survive_errors_at_any_call() {
    survive(Fault::Device, Repeat::Once, 3);
    survive(Fault::Device, Repeat::Forever, 3);
    survive(Fault::Sync, Repeat::Once, 3);
    survive(Fault::NoSpace, Repeat::Once, 3);
    survive(Fault::NoSpace, Repeat::Forever, 3);
}

#[test]
fn an_error_of_the_visitor_is_passed_on() {
    let fs = small_log();
    let mut seen = 0;
    let visit = &mut |_| {
        seen += 1;
        if seen == 5 { Err(Error::not_found("nothing to apply it to")) } else { Ok(()) }
    };
    let error = Wal::open(Arc::new(fs), Path::new(DIR), SeqNo(1), visit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn any_op() -> impl Strategy<Value = WalOp> {
    let id = || any::<u64>().prop_map(TableId);
    let added = (samples::any_segment(), samples::any_bitmap(150_000))
        .prop_map(|(meta, deleted)| AddedSegment { meta, deleted });
    prop_oneof![
        (any::<u64>(), ".{0,20}")
            .prop_map(|(id, name)| WalOp::PutTable(Arc::new(samples::table_meta(id, &name)))),
        id().prop_map(WalOp::DropTable),
        ".{0,20}".prop_map(WalOp::PutSchema),
        ".{0,20}".prop_map(WalOp::DropSchema),
        (".{0,9}", ".{0,9}", ".{0,60}")
            .prop_map(|(schema, name, sql)| WalOp::PutView(TableName::new(schema, name), sql)),
        ".{0,20}".prop_map(|name| WalOp::DropView(TableName::from(name.as_str()))),
        id().prop_map(WalOp::Truncate),
        (id(), any::<u64>(), any::<i32>(), 0..30_usize).prop_map(
            |(table, generation, first, rows)| {
                let batch = samples::batch(first.into(), rows);
                WalOp::Rows { table, generation: Generation(generation), batch }
            }
        ),
        (id(), samples::any_keys(), any::<bool>()).prop_map(|(table, keys, with_row_ids)| {
            let row_ids = if with_row_ids { (7..).take(keys.len()).collect() } else { Vec::new() };
            WalOp::DeleteKeys { table, keys, row_ids }
        }),
        (id(), any::<u64>(), samples::any_bitmap(3_000_000)).prop_map(
            |(table, segment, positions)| {
                WalOp::DeletePositions { table, segment: SegmentId(segment), positions }
            }
        ),
        (
            id(),
            any::<Option<u64>>(),
            prop::collection::vec(any::<u64>().prop_map(SegmentId), 0..4),
            prop::collection::vec(added, 0..3)
        )
            .prop_map(|(table, flushed_below, remove, add)| WalOp::EditSegments {
                table,
                flushed_below: flushed_below.map(Generation),
                remove,
                add
            }),
    ]
}

/// What of an operation `Debug` shows in full is compared through it; bitmaps, keys and batches show
/// less.
fn assert_same_op(a: &WalOp, b: &WalOp) {
    match (a, b) {
        (WalOp::PutTable(a), WalOp::PutTable(b)) => samples::assert_same_table(a, b),
        (WalOp::Rows { batch: x, .. }, WalOp::Rows { batch: y, .. }) => assert_eq!(x, y),
        (
            WalOp::DeletePositions { positions: x, .. },
            WalOp::DeletePositions { positions: y, .. },
        ) => {
            assert_eq!(x, y);
        }
        (WalOp::EditSegments { add: x, .. }, WalOp::EditSegments { add: y, .. }) => {
            assert!(x.iter().map(|s| &s.deleted).eq(y.iter().map(|s| &s.deleted)));
            assert!(x.iter().map(|s| &s.meta).eq(y.iter().map(|s| &s.meta)));
        }
        _ => assert_eq!(format!("{a:?}"), format!("{b:?}")),
    }
}

proptest! {
    #[test]
    fn records_of_every_kind_come_back(seq in any::<u64>(), ops in prop::collection::vec(any_op(), 0..6)) {
        let record = WalRecord { seq: SeqNo(seq), ops };
        let mut bytes = vec![1, 2, 3];
        record.encode(&mut bytes).unwrap();
        let decoded = WalRecord::decode(&bytes[3..]).unwrap();
        prop_assert_eq!(decoded.seq, record.seq);
        prop_assert_eq!(decoded.ops.len(), record.ops.len());
        for (a, b) in record.ops.iter().zip(&decoded.ops) {
            assert_same_op(a, b);
        }
    }

    #[test]
    fn damaged_records_do_no_harm(
        ops in prop::collection::vec(any_op(), 1..3),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = encoded(&WalRecord { seq: SeqNo(1), ops });
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = with;
        }
        if let Err(e) = WalRecord::decode(&bytes) {
            prop_assert_eq!(e.kind(), ErrorKind::Corruption);
        }
    }

    /// Whatever stands in a file, opening it ends.
    #[test]
    fn arbitrary_files_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), keep in 0..400_usize) {
        let fs = small_log();
        let path = log_files(&fs).pop().unwrap();
        let mut content = fs.contents(&path).unwrap();
        content.truncate(keep);
        content.extend_from_slice(&bytes);
        fs.set_contents(&path, &content);
        match open(&fs) {
            Ok((_, _, records)) => prop_assert!(check_records(&records, 1) >= 6),
            Err(e) => prop_assert_eq!(e.kind(), ErrorKind::Corruption),
        }
    }
}

#[test]
fn one_row_is_a_short_record() {
    let column = Arc::new(Int64Array::from(vec![1])) as arrow::array::ArrayRef;
    let batch = RecordBatch::try_from_iter([("a", column.clone()), ("b", column)]).unwrap();
    let rows = WalOp::Rows { table: TableId(1), generation: Generation(1), batch };
    let bytes = encoded(&WalRecord { seq: SeqNo(1), ops: vec![rows] });
    assert!(bytes.len() < 700, "{} bytes", bytes.len());
}
