//! Keys that are in memory in part: what is read, evicted, damaged, counted.

use super::*;
use crate::engine::cache::CachePart;

/// Rows whose keys of each form take several chunks.
fn wide_rows(rows: usize) -> RecordBatch {
    let mut random = 1u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        random >> 11
    };
    let mut numbers: Vec<i64> = (0..rows).map(|_| next() as i64).collect();
    numbers.sort_unstable();
    let names: Vec<String> = numbers.iter().map(|n| format!("customer {n:020}")).collect();
    let schema = schema(&[
        ("n", DataType::Int64, false),
        ("name", DataType::Utf8, false),
        ("m", DataType::Int64, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(numbers.clone())),
        Arc::new(StringArray::from(names)),
        Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|i| i * 7))),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

pub(super) const KEYS: [&[usize]; 4] = [&[0], &[0, 2], &[1], &[1, 2]];

pub(super) fn write_wide(store: &SegmentStore, key: &[usize], rows: usize) -> Written {
    let ids: Vec<u32> = key.iter().map(|i| *i as u32 + 1).collect();
    write(store, &wide_rows(rows), key, &options(&ids, 16 << 10, false), 5000).unwrap()
}

pub(super) fn behind(store: &SegmentStore, cache_bytes: usize) -> SegmentStore {
    SegmentStore { cache: Arc::new(Cache::new(cache_bytes)), ..store.clone() }
}

#[test]
fn a_cold_lookup_reads_a_few_blocks_of_the_index() {
    for key in KEYS {
        let (_, store) = memory_store(64 << 20);
        let written = write_wide(&store, key, 40_000);
        let cold = reopened(&store);
        let segment = Segment::open(&cold, written.meta.clone(), &written.codec);
        for row in [30_000, 30_001] {
            assert_eq!(segment.find(&written.keys.get(row)).unwrap(), (row as u64, true));
        }
        let used = cold.cache.used_bytes() as u64;
        assert!(used < written.meta.index_bytes / 3, "{used} of {}", written.meta.index_bytes);
        // What is in memory is found without the cache being asked.
        let before = cold.cache.stats();
        assert_eq!(segment.find(&written.keys.get(30_002)).unwrap(), (30_002, true));
        assert_eq!(cold.cache.stats(), before);
    }
}

#[test]
fn every_answer_is_right_whatever_the_cache_evicts() {
    for key in KEYS {
        let (_, store) = memory_store(64 << 20);
        let written = write_wide(&store, key, 40_000);
        let sorted: Vec<EncodedKey> = (0..40_000).map(|i| written.keys.get(i)).collect();
        // Room for nothing, for a chunk, for some, for all.
        for cache_bytes in [0, 40 << 10, 200 << 10, 64 << 20] {
            let small = behind(&store, cache_bytes);
            let segment = Segment::open(&small, written.meta.clone(), &written.codec);
            for row in (0..40_000u64).map(|i| i * 7919 % 40_000).step_by(499) {
                let key = &sorted[row as usize];
                assert_eq!(segment.find(key).unwrap(), (row, true));
                assert_eq!(segment.lower_bound(key).unwrap(), row);
                assert_eq!(segment.upper_bound(key).unwrap(), row + 1);
                assert!(small.cache.used_bytes() <= cache_bytes);
            }
            let rows: Vec<u32> = (0..40_000).rev().step_by(31).collect();
            let (positions, found) =
                segment.find_batch(&written.keys.take(&rows).unwrap()).unwrap();
            assert_eq!(positions, rows);
            assert!(found.iter().all(|f| *f));
            let keys = segment.keys(123..39_000).unwrap();
            assert!((0..keys.len()).all(|i| keys.get(i) == sorted[123 + i]));
            assert!(small.cache.used_bytes() <= cache_bytes);
        }
    }
}

#[test]
fn evicted_keys_are_not_found_in_memory_any_more() {
    for key in [KEYS[0], KEYS[2]] {
        let (fs, store) = memory_store(64 << 20);
        let written = write_wide(&store, key, 40_000);
        let small = behind(&store, 4 << 20);
        let segment = Segment::open(&small, written.meta.clone(), &written.codec);
        segment.keys(0..40_000).unwrap();
        let whole = small.cache.used_bytes();
        assert!(whole as u64 > written.meta.index_bytes / 2);
        // Another segment object of the same cache sees the same chunks, and loses them, too.
        let twin = Segment::open(&small, written.meta.clone(), &written.codec);
        let before = fs.operation_count();
        twin.keys(0..40_000).unwrap();
        assert_eq!(fs.operation_count(), before);
        assert_eq!(small.cache.used_bytes(), whole);
        for id in 100..2_000 {
            let key = CacheKey { segment: SegmentId(id), part: CachePart::Footer };
            for _ in 0..4 {
                let value: ArrayRef = Arc::new(Int32Array::from(vec![1]));
                small.cache.get_or_load(key, || Ok((value, 4 << 10))).unwrap();
            }
        }
        assert!(segment.is_cold() && twin.is_cold());
        assert_eq!(twin.find(&written.keys.get(77)).unwrap(), (77, true));
        assert!(fs.operation_count() > before, "read again");
    }
}

#[test]
fn keys_in_use_outlast_a_scan() {
    for key in [KEYS[0], KEYS[2]] {
        let (fs, store) = memory_store(64 << 20);
        let written = write_wide(&store, key, 40_000);
        let small = behind(&store, 4 << 20);
        let segment = Segment::open(&small, written.meta.clone(), &written.codec);
        let hot = |row: usize| {
            assert_eq!(segment.find(&written.keys.get(row)).unwrap(), (row as u64, true));
        };
        (500..520).for_each(hot);
        let before = fs.operation_count();
        for id in 100..3_000 {
            let key = CacheKey { segment: SegmentId(id), part: CachePart::Footer };
            let value: ArrayRef = Arc::new(Int32Array::from(vec![1]));
            small.cache.get_or_load(key, || Ok((value, 8 << 10))).unwrap();
            hot(500 + id as usize % 20);
        }
        assert_eq!(fs.operation_count(), before, "nothing was read again");
    }
}

#[test]
fn a_damaged_chunk_is_never_trusted_and_the_index_rebuilt() {
    for key in KEYS {
        let (fs, store) = memory_store(64 << 20);
        let written = write_wide(&store, key, 40_000);
        let path = Path::new("/data/tables/7/42.idx");
        let sound = fs.contents(path).unwrap();
        for at in [16, 40_000, sound.len() / 2] {
            let cold = reopened(&store);
            let segment = Segment::open(&cold, written.meta.clone(), &written.codec);
            // The directory is in memory when the damage comes.
            segment.find(&written.keys.get(39_999)).unwrap();
            let mut damaged = sound.clone();
            damaged[at] ^= 4;
            fs.set_contents(path, &damaged);
            let error = segment.verify().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(error.message().contains("42.idx"), "{error}");
            let keys = segment.keys(0..40_000).unwrap();
            assert!((0..40_000).all(|i| keys.get(i) == written.keys.get(i)));
            assert_eq!(fs.contents(path).unwrap(), sound, "written anew as it was");
            segment.verify().unwrap();
        }
    }
}

#[test]
fn an_index_that_cannot_be_written_anew_serves_from_memory() {
    let (fs, store) = memory_store(64 << 20);
    let written = write_wide(&store, &[1], 40_000);
    let path = Path::new("/data/tables/7/42.idx");
    store.vfs.remove(path).unwrap();
    let segment = written.open_cold();
    let before = fs.operation_count();
    // Fails at whatever is created.
    let first_create = {
        let probe = memory_store(64 << 20);
        let twin = write_wide(&probe.1, &[1], 40_000);
        probe.1.vfs.remove(path).unwrap();
        let start = probe.0.operation_count();
        twin.open_cold().find(&twin.keys.get(5)).unwrap();
        let trace = probe.0.trace();
        let at = (start as usize..).find(|i| trace[*i].0 == Operation::Create).unwrap();
        at as u64 - start
    };
    fs.inject(before + first_create, Fault::NoSpace, Repeat::Once);
    assert_eq!(segment.find(&written.keys.get(5)).unwrap(), (5, true));
    assert!(fs.contents(path).is_none());
    let before = fs.operation_count();
    for row in (0..40_000).step_by(997) {
        assert_eq!(segment.find(&written.keys.get(row)).unwrap(), (row as u64, true));
    }
    assert_eq!(fs.operation_count(), before, "from memory");
}

#[test]
fn threads_that_read_while_others_evict_agree() {
    let (_, store) = memory_store(64 << 20);
    let written = write_wide(&store, &[0], 40_000);
    let small = behind(&store, 100 << 10);
    let segment = Segment::open(&small, written.meta.clone(), &written.codec);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (segment, written) = (&segment, &written);
            scope.spawn(move || {
                for i in 0..2_000u64 {
                    let row = (i * 7919 + thread * 10_007) % 40_000;
                    let key = written.keys.get(row as usize);
                    assert_eq!(segment.find(&key).unwrap(), (row, true));
                }
            });
        }
    });
    assert!(small.cache.used_bytes() <= 100 << 10);
}
