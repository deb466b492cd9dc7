//! Measures, run by hand: `cargo test --release --no-default-features --lib segment::tests::speed -- --ignored --nocapture --test-threads 1`.

use std::hint::black_box;
use std::time::Instant;

use super::*;
use crate::engine::fs::OsFs;

/// Rows, unless `SPEED_ROWS` says otherwise.
const ROWS: usize = 10_000_000;
const SEGMENT_ROWS: usize = 1 << 20;
const BATCH_ROWS: usize = 64 << 10;

/// A key in order with jitter, two measurements, a counter: 32 bytes a row.
fn rows(start: usize, rows: usize) -> RecordBatch {
    let schema = schema(&[
        ("at", DataType::Int64, false),
        ("a", DataType::Float64, false),
        ("b", DataType::Float64, false),
        ("n", DataType::Int64, false),
    ]);
    let mix = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let range = start..start + rows;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(
            range.clone().map(|i| i as i64 * 1000 + (mix(i) >> 55) as i64),
        )),
        Arc::new(Float64Array::from_iter_values(range.clone().map(|i| mix(i) as f64 / 1e9))),
        Arc::new(Float64Array::from_iter_values(range.clone().map(|i| (mix(i + 7) >> 11) as f64))),
        Arc::new(Int64Array::from_iter_values(range.map(|i| mix(i + 3) as i64))),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

fn row_count() -> usize {
    std::env::var("SPEED_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(ROWS)
}

/// A clock of the time that this thread has run, which other load on the machine does not stretch; and of
/// the time that passed.
struct Timer(u64, Instant);

impl Timer {
    fn start() -> Self {
        Self(Self::on_cpu(), Instant::now())
    }

    fn on_cpu() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    }

    fn nanos(&self) -> u64 {
        Self::on_cpu() - self.0
    }
}

fn report(what: &str, rows: usize, timer: Timer) {
    let (cpu, wall) = (timer.nanos() as f64, timer.1.elapsed().as_nanos() as f64);
    println!(
        "{what:44} {:8.2} ns/row on the CPU, {:8.2} passed",
        cpu / rows as f64,
        wall / rows as f64
    );
}

#[test]
#[ignore = "a measurement"]
fn write_and_read() {
    let row_count = row_count();
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore {
        vfs: Arc::new(OsFs),
        dir: dir.path().into(),
        cache: Arc::new(Cache::new(4 << 30)),
    };
    store.create_table_dir(TABLE).unwrap();
    let batches: Vec<RecordBatch> = (0..row_count)
        .step_by(BATCH_ROWS)
        .map(|start| rows(start, BATCH_ROWS.min(row_count - start)))
        .collect();
    let codec = KeyCodec::new(&[DataType::Int64]).unwrap();
    for compact in [false, true] {
        let options = options(&[1], 128 << 10, compact);
        let mut metas = Vec::new();
        let (started, mut encoding, mut finishing) = (Timer::start(), 0.0, 0.0);
        for (id, batches) in batches.chunks(SEGMENT_ROWS / BATCH_ROWS).enumerate() {
            let id = SegmentId(id as u64 + if compact { 1000 } else { 0 });
            let mut writer =
                SegmentWriter::create(&store, TABLE, id, batches[0].schema(), &codec, &options)
                    .unwrap();
            for batch in batches {
                let encode = Timer::start();
                let keys = codec.encode(&[batch.column(0).clone()]).unwrap();
                encoding += encode.nanos() as f64;
                writer.write(batch, &keys).unwrap();
            }
            let finish = Timer::start();
            metas.push(writer.finish().unwrap());
            finishing += finish.nanos() as f64;
        }
        store.sync_table_dir(TABLE).unwrap();
        report(if compact { "write, compact" } else { "write" }, row_count, started);
        let train: u64 = metas.iter().map(|m| m.train_nanos).sum();
        println!(
            "  of it encoding keys {:.2}, finish and sync {:.2}, training {:.2}",
            encoding / row_count as f64,
            finishing / row_count as f64,
            train as f64 / row_count as f64
        );
        let data: u64 = metas.iter().map(|m| m.data_bytes).sum();
        let index: u64 = metas.iter().map(|m| m.index_bytes).sum();
        println!(
            "  {:.2} + {:.2} bytes/row",
            data as f64 / row_count as f64,
            index as f64 / row_count as f64
        );
        read(&store, &metas, &codec, row_count);
    }
}

fn read(store: &SegmentStore, metas: &[SegmentMeta], codec: &KeyCodec, row_count: usize) {
    let open = |store: &SegmentStore| -> Vec<Segment> {
        metas.iter().map(|meta| Segment::open(store, meta.clone(), codec)).collect()
    };
    let cold = SegmentStore { cache: Arc::new(Cache::new(4 << 30)), ..store.clone() };
    let segments = open(&cold);
    let scan = || {
        for segment in &segments {
            for group in 0..segment.group_count() {
                for field in 1..=4 {
                    black_box(segment.column(FieldId(field), group).unwrap());
                }
            }
        }
    };
    let started = Timer::start();
    scan();
    report("  decode all columns (page cache warm)", row_count, started);
    let started = Timer::start();
    scan();
    report("  again, from the cache", row_count, started);

    let cold = SegmentStore { cache: Arc::new(Cache::new(4 << 30)), ..store.clone() };
    let segments = open(&cold);
    let fields: Vec<FieldId> = (1..=4).map(FieldId).collect();
    let started = Timer::start();
    for segment in &segments {
        black_box(segment.lower_bound(&EncodedKey::U64(1 << 63 | 5)).unwrap());
        black_box(segment.take(&fields, &[]).unwrap());
    }
    println!(
        "  first touch of keys and footer {:.1} us/segment",
        started.nanos() as f64 / 1e3 / segments.len() as f64
    );
    let started = Timer::start();
    let takes = segments.len() * 8;
    for segment in &segments {
        for group in 0..segment.group_count() {
            black_box(
                segment.take(&fields, &[segment.group_rows(group).start as u32 + 99]).unwrap(),
            );
        }
    }
    println!("  cold take of one row {:.1} us", started.nanos() as f64 / 1e3 / takes as f64);

    let keys = segments[0].keys(0..segments[0].meta().row_count).unwrap();
    let probes = keys
        .take(&(0..1u32 << 20).map(|i| i.wrapping_mul(0x9e37_79b1) >> 12).collect::<Vec<_>>())
        .unwrap();
    let started = Timer::start();
    black_box(segments[0].find_batch(&probes).unwrap());
    report("  find_batch, random", probes.len(), started);
    let started = Timer::start();
    for i in 0..probes.len() {
        black_box(segments[0].lower_bound(&probes.get(i)).unwrap());
    }
    report("  lower_bound one by one, random", probes.len(), started);
}

#[test]
#[ignore = "a measurement"]
fn sort() {
    let mix = |i: u64| {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
    };
    let row_count = row_count();
    let n = row_count as u64;
    let sets: [(&str, KeyColumn); 5] = [
        ("uniform u64", KeyColumn::U64((0..n).map(mix).collect())),
        ("32 bits", KeyColumn::U64((0..n).map(|i| mix(i) >> 32).collect())),
        (
            "a day of microseconds",
            KeyColumn::U64(
                (0..n)
                    .map(|i| (1 << 63 | 1_700_000_000_000_000) + mix(i) % 86_400_000_000)
                    .collect(),
            ),
        ),
        ("nearly sorted", KeyColumn::U64((0..n).map(|i| i * 1000 + mix(i) % 100_000).collect())),
        (
            "u128, 32 + 64 bits",
            KeyColumn::U128(
                (0..n).map(|i| u128::from(mix(i) % 1000) << 64 | u128::from(mix(i + 1))).collect(),
            ),
        ),
    ];
    for (what, keys) in sets {
        let started = Timer::start();
        let order = keys.sort_indices();
        report(&format!("sort_indices, {what}"), row_count, started);
        let KeyColumn::U64(keys) = &keys else { continue };
        let started = Timer::start();
        let mut pairs: Vec<(u64, u32)> = keys.iter().copied().zip(0..).collect();
        pairs.sort_unstable();
        report("  sort_unstable of pairs", row_count, started);
        assert!(order.iter().zip(&pairs).all(|(a, b)| *a == b.1));
    }
}

/// Keys of text: the index, and beside it what stood in its place before, all keys encoded from the columns
/// and searched in one array.
#[test]
#[ignore = "a measurement"]
fn text_keys() {
    let row_count = row_count().min(SEGMENT_ROWS);
    fn mix(i: u64) -> u64 {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) % 1_000_000_007
    }
    type Make = fn(u64) -> String;
    let sets: [(&str, Make); 3] = [
        ("names", |i| format!("customer-{:012}", mix(i))),
        ("addresses", |i| {
            let (shop, item) = (mix(i) % 300, mix(i + 7));
            format!("https://www.example.org/{shop}/item/{item:x}?page={}", i % 9)
        }),
        ("128 bits in hexadecimal", |i| {
            let word = |i| mix(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!("{:016x}{:016x}", word(i), word(i + 1))
        }),
    ];
    for (what, make) in sets {
        let mut names: Vec<String> = (0..row_count as u64).map(make).collect();
        names.sort();
        println!("{what}: {}", names[row_count / 2]);
        text_set(&names);
    }
}

fn text_set(names: &[String]) {
    let row_count = names.len();
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore {
        vfs: Arc::new(OsFs),
        dir: dir.path().into(),
        cache: Arc::new(Cache::new(4 << 30)),
    };
    store.create_table_dir(TABLE).unwrap();
    let schema = schema(&[("name", DataType::Utf8, false), ("n", DataType::Int64, false)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(Int64Array::from_iter_values(0..row_count as i64)),
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let started = Timer::start();
    let written =
        write(&store, &batch, &[0], &options(&[1], 128 << 10, false), BATCH_ROWS).unwrap();
    report("  write, keys encoded", row_count, started);
    let per_key = |bytes: u64| bytes as f64 / row_count as f64;
    println!(
        "  index {:.2} bytes/key, {:.2} ns/key to make; encoded keys {:.2} bytes/key",
        per_key(written.meta.index_bytes),
        written.meta.train_nanos as f64 / row_count as f64,
        per_key(written.keys.memory_bytes() as u64)
    );
    let probes: Vec<u32> = (0..1u64 << 17)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as u32)
        .map(|i| i % row_count as u32)
        .collect();
    let probes = written.keys.take(&probes).unwrap();
    let one: Vec<EncodedKey> = (0..probes.len()).map(|i| probes.get(i)).collect();

    let cold = reopened(&store);
    let segment = Segment::open(&cold, written.meta.clone(), &written.codec);
    let started = Timer::start();
    black_box(segment.find(&one[0]).unwrap());
    println!(
        "  first lookup {:.0} us, {} KiB in memory then",
        started.nanos() as f64 / 1e3,
        cold.cache.used_bytes() >> 10
    );
    let started = Timer::start();
    let parts: Vec<KeyColumn> = (0..segment.group_count())
        .map(|g| written.codec.encode(&[segment.column(FieldId(1), g).unwrap().unwrap()]).unwrap())
        .collect();
    let before = KeyColumn::concat(&parts.iter().collect::<Vec<_>>()).unwrap();
    println!(
        "  before: {:.0} us, {} KiB",
        started.nanos() as f64 / 1e3,
        before.memory_bytes() >> 10
    );
    for _ in 0..2 {
        let started = Timer::start();
        one.iter().for_each(|key| assert!(black_box(segment.find(key).unwrap()).1));
        report("  find, one by one, random", one.len(), started);
        let started = Timer::start();
        one.iter().for_each(|key| {
            let at = before.lower_bound(key);
            assert!(black_box(before.compare_at(at, key)).is_eq());
        });
        report("    before", one.len(), started);
    }
    let started = Timer::start();
    black_box(segment.find_batch(&probes).unwrap());
    report("  find_batch, random", one.len(), started);
    let started = Timer::start();
    black_box(segment.keys(0..row_count as u64).unwrap());
    report("  keys of all rows", row_count, started);
    println!("  all in memory: {} KiB", cold.cache.used_bytes() >> 10);
}
