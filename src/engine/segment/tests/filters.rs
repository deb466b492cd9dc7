//! Filters in the index file: keys that are there are always found, and those that are not cost few chunks.

use super::keys::{KEYS, behind, write_wide};
use super::*;

const ROWS: usize = 40_000;
const PATH: &str = "/data/tables/7/42.idx";
const ALL: [FilterUse; 3] = [FilterUse::InMemory, FilterUse::Read, FilterUse::First];

/// Every other row of `rows`, and the keys of the others, which are absent.
fn write_half(store: &SegmentStore, key: &[usize], rows: usize) -> (Written, KeyColumn) {
    let (all_fs, all_store) = memory_store(64 << 20);
    let all = write_wide(&all_store, key, rows);
    drop(all_fs);
    let pick = |odd: u32| -> Vec<u32> { (0..rows as u32 / 2).map(|i| 2 * i + odd).collect() };
    let batch = arrow::compute::take_record_batch(&all.batch, &UInt32Array::from(pick(0))).unwrap();
    let ids: Vec<u32> = key.iter().map(|i| *i as u32 + 1).collect();
    let written = write(store, &batch, key, &options(&ids, 16 << 10, false), 5000).unwrap();
    (written, all.keys.take(&pick(1)).unwrap())
}

fn chunks_in_memory(segment: &Segment) -> usize {
    segment.resident_chunks()
}

#[test]
fn what_is_there_is_found_and_nothing_else_whatever_the_cache_holds() {
    for key in KEYS {
        let (_, store) = memory_store(64 << 20);
        let (written, absent) = write_half(&store, key, ROWS);
        let count = written.keys.len();
        for (cache_bytes, filters) in [0, 40 << 10, 200 << 10, 64 << 20]
            .into_iter()
            .flat_map(|bytes| ALL.map(|filters| (bytes, filters)))
        {
            let small = behind(&store, cache_bytes);
            let segment = Segment::open(&small, written.meta.clone(), &written.codec);
            for row in (0..count).map(|i| i * 7919 % count).step_by(499) {
                let found = segment.locate(&written.keys.get(row), filters).unwrap();
                assert_eq!(found, Some(row as u64));
                assert_eq!(segment.locate(&absent.get(row), filters).unwrap(), None);
            }
            let segment = Segment::open(&small, written.meta.clone(), &written.codec);
            // Few of a chunk, and many.
            for step in [197, 1] {
                let rows: Vec<u32> = (0..count as u32).rev().step_by(step).collect();
                let wanted = written.keys.take(&rows).unwrap();
                let (positions, found) = segment.locate_batch(&wanted, filters).unwrap();
                assert!(found.iter().all(|found| *found));
                assert_eq!(positions, rows);
                let wanted = absent.take(&rows).unwrap();
                let (_, found) = segment.locate_batch(&wanted, filters).unwrap();
                assert!(!found.contains(&true), "{key:?}");
            }
            assert!(small.cache.used_bytes() <= cache_bytes);
        }
    }
}

/// Each key of all, where a chunk begins and ends as well, by the filters: few at a time, so that they are asked.
#[test]
fn no_key_is_ruled_out() {
    for key in KEYS {
        let (_, store) = memory_store(64 << 20);
        let (written, _) = write_half(&store, key, ROWS);
        let small = behind(&store, 0);
        let segment = Segment::open(&small, written.meta.clone(), &written.codec);
        let hot = written.open();
        hot.keys(0..written.keys.len() as u64).unwrap();
        for offset in 0..199 {
            let rows: Vec<u32> = (offset..written.keys.len() as u32).step_by(199).collect();
            let wanted = written.keys.take(&rows).unwrap();
            let found = segment.locate_batch(&wanted, FilterUse::Read).unwrap();
            assert_eq!(found, (rows.clone(), vec![true; wanted.len()]), "{key:?}");
            let found = hot.locate_batch(&wanted, FilterUse::First).unwrap();
            assert_eq!(found, (rows, vec![true; wanted.len()]), "{key:?}");
        }
    }
}

#[test]
fn absent_keys_cost_few_chunks() {
    for key in KEYS {
        let (_, store) = memory_store(64 << 20);
        let (written, absent) = write_half(&store, key, 4 * ROWS);
        let some = absent.take(&(0..80_000).step_by(400).collect::<Vec<u32>>()).unwrap();
        let chunks = |run: &dyn Fn(&Segment)| {
            let segment = written.open_cold();
            run(&segment);
            chunks_in_memory(&segment)
        };
        let all = chunks(&|segment| {
            segment.find_batch(&some).unwrap();
        });
        assert!(all >= 12, "{key:?}: the test needs some chunks, not {all}");
        let batched = chunks(&|segment| {
            assert!(!segment.locate_batch(&some, FilterUse::Read).unwrap().1.contains(&true));
        });
        let single = chunks(&|segment| {
            for i in 0..some.len() {
                assert_eq!(segment.locate(&some.get(i), FilterUse::Read).unwrap(), None);
            }
        });
        // One key in a hundred passes its filter.
        assert!(batched <= 5 && single <= 5, "{key:?}: {batched} and {single} of {all}");
        // Filters that are not in memory are not read where the key is likely there.
        let unasked = chunks(&|segment| {
            segment.locate_batch(&some, FilterUse::InMemory).unwrap();
        });
        assert_eq!(unasked, all);
        // Once they are, they are asked.
        let asked = chunks(&|segment| {
            segment.locate_batch(&some, FilterUse::Read).unwrap();
            segment.locate_batch(&some, FilterUse::InMemory).unwrap();
        });
        assert_eq!(asked, batched);
    }
}

#[test]
fn a_model_whose_filters_alone_are_asked_is_not_evicted() {
    for key in [KEYS[0], KEYS[2]] {
        let (fs, store) = memory_store(64 << 20);
        let (written, absent) = write_half(&store, key, ROWS);
        let small = behind(&store, 4 << 20);
        let segment = Segment::open(&small, written.meta.clone(), &written.codec);
        let ask = |row: usize| {
            assert_eq!(segment.locate(&absent.get(row), FilterUse::Read).unwrap(), None);
        };
        (0..4).for_each(|_| (500..520).for_each(ask));
        let before = fs.operation_count();
        for id in 100..3_000 {
            let other =
                CacheKey { segment: SegmentId(id), part: crate::engine::cache::CachePart::Footer };
            let value: ArrayRef = Arc::new(Int32Array::from(vec![1]));
            small.cache.get_or_load(other, || Ok((value, 8 << 10))).unwrap();
            ask(500 + id as usize % 20);
        }
        assert_eq!(fs.operation_count(), before, "{key:?}: nothing was read again");
    }
}

#[test]
fn a_damaged_filter_is_never_trusted_and_the_index_rebuilt() {
    for key in KEYS {
        let (fs, store) = memory_store(64 << 20);
        let (written, absent) = write_half(&store, key, ROWS);
        let sound = fs.contents(PATH.as_ref()).unwrap();
        let trailer = sound.len() - 80;
        let u64_at = |at: usize| u64::from_le_bytes(sound[at..at + 8].try_into().unwrap()) as usize;
        let start = 16 + u64_at(trailer + 40);
        let filters = start..start + u64_at(trailer + 60);
        assert!(filters.len() > ROWS / 2 && filters.len() < ROWS);
        let mut damaged = sound.clone();
        // All keys would be absent.
        damaged[filters].fill(0);
        for batched in [false, true] {
            fs.set_contents(PATH.as_ref(), &damaged);
            let segment = written.open_cold();
            assert_eq!(segment.verify().unwrap_err().kind(), ErrorKind::Corruption);
            for row in (0..written.keys.len()).step_by(601) {
                let keys = written.keys.slice(row, 1);
                let found = if batched {
                    segment.locate_batch(&keys, FilterUse::Read).unwrap().1[0]
                } else {
                    segment.locate(&keys.get(0), FilterUse::Read).unwrap() == Some(row as u64)
                };
                assert!(found, "{key:?}: row {row}");
                let none = segment.locate(&absent.get(row), FilterUse::Read).unwrap();
                assert_eq!(none, None);
            }
            assert!(fs.contents(PATH.as_ref()).unwrap() == sound, "written anew as it was");
            segment.verify().unwrap();
        }
    }
}

/// An index file as it was before there were filters.
fn without_filters(file: &[u8]) -> Vec<u8> {
    let trailer = file.len() - 80;
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let count = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let (keys, filters, directory) =
        (16 + number(trailer + 40), number(trailer + 60), number(trailer + 52));
    let directory = keys + filters..keys + filters + directory;
    let chunks = count(directory.start);
    let places = directory.start..directory.start + 4 + 8 * chunks;
    let mut model = places.end;
    if filters > 0 {
        model += 4 + 8 * count(model) + 4 + 4 * chunks;
    }
    let mut out = file[..keys].to_vec();
    out[8] = 2;
    let kept = [&file[places], &file[model..directory.end]].concat();
    out.extend_from_slice(&kept);
    out.extend_from_slice(&file[directory.end..trailer]);
    let mut end = file[trailer..].to_vec();
    end[36..40].copy_from_slice(&crc32c::crc32c(&kept).to_le_bytes());
    end[48] = 2;
    end[52..60].copy_from_slice(&(kept.len() as u64).to_le_bytes());
    end[60..68].fill(0);
    let crc = crc32c::crc32c(&end[..68]);
    end[68..72].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&end);
    out
}

#[test]
fn a_file_of_the_version_before_filters_is_read_as_it_is() {
    for key in KEYS {
        let (fs, store) = memory_store(64 << 20);
        let (written, absent) = write_half(&store, key, ROWS);
        let old = without_filters(&fs.contents(PATH.as_ref()).unwrap());
        fs.set_contents(PATH.as_ref(), &old);
        let segment = written.open_cold();
        segment.verify().unwrap();
        for row in (0..written.keys.len()).step_by(997) {
            let found = segment.locate(&written.keys.get(row), FilterUse::Read).unwrap();
            assert_eq!(found, Some(row as u64));
            assert_eq!(segment.locate(&absent.get(row), FilterUse::Read).unwrap(), None);
        }
        let (_, found) = segment.locate_batch(&absent, FilterUse::Read).unwrap();
        assert!(!found.contains(&true));
        assert!(fs.contents(PATH.as_ref()).unwrap() == old, "not written anew");
    }
}

#[test]
fn keys_in_order_have_no_filters() {
    let (fs, store) = memory_store(64 << 20);
    write_events(&store, 20_000, 8192, false);
    let file = fs.contents(PATH.as_ref()).unwrap();
    let trailer = file.len() - 80;
    assert_eq!(file[trailer + 60..trailer + 68], [0; 8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Keys of any spread, repeats and all: the first of equal ones is found, and no other.
    #[test]
    fn answers_are_those_of_the_sorted_keys(
        mut keys in prop::collection::vec(any::<i64>(), 1..3_000),
        shift in 0..60_u32,
        extra in prop::collection::vec(any::<i64>(), 50),
        cache_bytes in prop::sample::select(vec![0, 20_000, 1 << 20]),
    ) {
        keys.iter_mut().for_each(|key| *key >>= shift);
        keys.sort_unstable();
        let schema = schema(&[("key", DataType::Int64, false)]);
        let column: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
        let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
        let (_, store) = memory_store(1 << 20);
        let written = write(&store, &batch, &[0], &options(&[1], 1 << 10, true), 700).unwrap();
        let small = behind(&store, cache_bytes);
        let segment = Segment::open(&small, written.meta.clone(), &written.codec);
        let near = keys.iter().step_by(7).flat_map(|key| [*key, key.wrapping_add(1)]);
        let wanted: Vec<i64> = near.chain(extra.iter().map(|key| key >> shift)).collect();
        let column: ArrayRef = Arc::new(Int64Array::from(wanted.clone()));
        let encoded = written.codec.encode(&[column]).unwrap();
        for filters in ALL {
            let (positions, found) = segment.locate_batch(&encoded, filters).unwrap();
            for (i, key) in wanted.iter().enumerate() {
                let first = keys.partition_point(|k| k < key);
                let expected = keys.get(first).filter(|k| *k == key).map(|_| first as u64);
                let one = segment.locate(&encoded.get(i), filters).unwrap();
                prop_assert_eq!(one, expected);
                prop_assert_eq!(found[i].then_some(u64::from(positions[i])), expected);
            }
        }
    }
}
