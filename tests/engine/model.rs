//! Random operations, compared with a naive model after every step; the database is flushed, compacted,
//! checkpointed and reopened in between.

use std::ops::Bound;

use omendb::engine::{
    Engine, ErrorKind, KeyKind, KeyRange, KeySpec, OnConflict, Options, ScanRequest, Table,
};
use proptest::prelude::*;

use crate::{keys, pairs, rows, schema, small};

#[derive(Debug, Clone)]
enum Step {
    Insert(Vec<(i64, i64)>, u8),
    Delete(Vec<i64>),
    Truncate,
    Flush,
    Compact,
    Retrain,
    Checkpoint,
    Reopen,
}

fn key() -> impl Strategy<Value = i64> {
    prop_oneof![
        10 => -60_i64..60,
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
        2 => 1_000_000_i64..1_000_400,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let few = prop::collection::vec((key(), 0_i64..1000), 1..12);
    let many = prop::collection::vec((key(), 0_i64..1000), 60..400);
    let run = (0_i64..2000, 60_usize..400)
        .prop_map(|(from, len)| (from..from + len as i64).map(|k| (k * 3, k)).collect::<Vec<_>>());
    prop_oneof![
        6 => (few, 0_u8..3).prop_map(|(r, p)| Step::Insert(r, p)),
        2 => (many, 0_u8..3).prop_map(|(r, p)| Step::Insert(r, p)),
        2 => (run, 0_u8..3).prop_map(|(r, p)| Step::Insert(r, p)),
        4 => prop::collection::vec(key(), 1..40).prop_map(Step::Delete),
        1 => Just(Step::Truncate),
        2 => Just(Step::Flush),
        2 => Just(Step::Compact),
        1 => Just(Step::Retrain),
        2 => Just(Step::Checkpoint),
        3 => Just(Step::Reopen),
    ]
}

/// Rows in the order that the table has to keep.
#[derive(Debug, Default, Clone)]
struct Model {
    unique: bool,
    ordered: bool,
    rows: Vec<(i64, i64)>,
}

impl Model {
    fn insert(&mut self, new: &[(i64, i64)], policy: OnConflict) -> bool {
        let mut next = self.rows.clone();
        for row in new {
            let old = next.iter().position(|r| r.0 == row.0).filter(|_| self.unique);
            match (old, policy) {
                (None, _) => next.push(*row),
                (Some(_), OnConflict::Error) => return false,
                (Some(_), OnConflict::Ignore) => {}
                (Some(i), OnConflict::Replace) => next[i] = *row,
            }
        }
        if self.ordered {
            next.sort_by_key(|r| r.0);
        }
        self.rows = next;
        true
    }

    fn delete(&mut self, keys: &[i64]) -> u64 {
        let before = self.rows.len();
        self.rows.retain(|r| !keys.contains(&r.0));
        (before - self.rows.len()) as u64
    }
}

fn range(table: &Table, lower: Bound<i64>, upper: Bound<i64>) -> KeyRange {
    let bound = |b: Bound<i64>| b.map(|k| keys(&[k]).remove(0));
    let snapshot = table.snapshot().unwrap();
    snapshot.codec().range(&[], bound(lower), bound(upper)).unwrap()
}

fn read(table: &Table, request: &ScanRequest) -> Vec<(i64, i64)> {
    let scan = table.snapshot().unwrap().scan(request).unwrap();
    let expected = scan.row_count();
    let mut all = Vec::new();
    for batch in scan {
        let batch = batch.unwrap();
        assert!(batch.num_rows() > 0 && batch.num_rows() <= request.batch_rows);
        all.extend(pairs(&batch));
    }
    assert_eq!(all.len() as u64, expected);
    all
}

/// Compares everything that can be asked with the model.
fn check(table: &Table, model: &Model, at: (i64, i64), page: (u64, u64)) {
    let snapshot = table.snapshot().unwrap();
    assert_eq!(snapshot.row_count(), model.rows.len() as u64);
    let mut request = ScanRequest::new(KeyRange::all());
    request.batch_rows = 17;
    assert_eq!(read(table, &request), model.rows);
    request.reverse = true;
    let mut backwards = model.rows.clone();
    backwards.reverse();
    assert_eq!(read(table, &request), backwards);
    request.offset = page.0;
    request.limit = Some(page.1);
    let cut = |rows: &[(i64, i64)]| -> Vec<(i64, i64)> {
        rows.iter().copied().skip(page.0 as usize).take(page.1 as usize).collect()
    };
    assert_eq!(read(table, &request), cut(&backwards));
    request.reverse = false;
    assert_eq!(read(table, &request), cut(&model.rows));
    if model.ordered {
        check_range(table, model, at, page);
    }
}

fn check_range(table: &Table, model: &Model, at: (i64, i64), page: (u64, u64)) {
    let snapshot = table.snapshot().unwrap();
    let (low, high) = (at.0.min(at.1), at.0.max(at.1));
    for (lower, upper) in [
        (Bound::Included(low), Bound::Excluded(high)),
        (Bound::Excluded(low), Bound::Included(high)),
        (Bound::Unbounded, Bound::Included(low)),
        (Bound::Included(high), Bound::Unbounded),
    ] {
        let within = |k: i64| std::ops::RangeBounds::contains(&(lower, upper), &k);
        let expected: Vec<_> = model.rows.iter().copied().filter(|r| within(r.0)).collect();
        let keys = range(table, lower, upper);
        assert_eq!(snapshot.count(&keys).unwrap(), expected.len() as u64);
        let explained = snapshot.explain(&keys).unwrap();
        assert_eq!(explained.row_count, expected.len() as u64);
        assert_eq!(read(table, &ScanRequest::new(keys.clone())), expected);
        let nth = snapshot.nth_key(&keys, page.0).unwrap();
        let model_nth = expected.get(page.0 as usize).map(|r| r.0);
        assert_eq!(nth.is_some(), model_nth.is_some());
        if let (Some(nth), Some(expected)) = (nth, model_nth) {
            assert!(
                range(table, Bound::Included(expected), Bound::Included(expected)).contains(&nth)
            );
        }
        let parts = snapshot.split(&[keys], 4).unwrap();
        let mut joined = Vec::new();
        for range in parts.into_iter().flat_map(|part| part.ranges) {
            joined.extend(read(table, &ScanRequest::new(range)));
        }
        assert_eq!(joined, expected);
    }
    let wanted: Vec<i64> = (-20..20).rev().collect();
    let (found, has) = table.get_many(&keys(&wanted)).unwrap();
    let expected: Vec<_> =
        wanted.iter().map(|k| model.rows.iter().find(|r| r.0 == *k).copied()).collect();
    assert_eq!(has, expected.iter().map(Option::is_some).collect::<Vec<_>>());
    for (key, expected) in wanted.iter().zip(&expected) {
        let row = table.get(&keys(&[*key])).unwrap();
        assert_eq!(row.map(|row| pairs(&row)), expected.map(|row| vec![row]));
    }
    assert_eq!(pairs(&found), expected.into_iter().flatten().collect::<Vec<_>>());
    for several in [&[][..], &[1, 2]] {
        assert_eq!(table.get(&keys(several)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

fn run(kind: KeyKind, steps: Vec<Step>, at: (i64, i64), page: (u64, u64), options: Options) {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = Engine::open(dir.path(), options.clone()).unwrap();
    let key = match kind {
        KeyKind::Primary => KeySpec::primary(["key"]),
        KeyKind::Cluster => KeySpec::cluster(["key"]),
        KeyKind::RowId => KeySpec::row_id(),
    };
    engine.create_table("t", &schema(), &key).unwrap();
    let mut model = Model {
        unique: kind == KeyKind::Primary,
        ordered: kind != KeyKind::RowId,
        rows: Vec::new(),
    };
    for step in steps {
        let table = engine.table("t").unwrap();
        match step {
            Step::Insert(new, policy) => {
                let policy =
                    [OnConflict::Error, OnConflict::Ignore, OnConflict::Replace][policy as usize];
                let done = engine.write(|txn| txn.insert(table.id(), &rows(&new), policy));
                let before = model.rows.len();
                if model.insert(&new, policy) {
                    let done = done.unwrap();
                    let (given, after) = (new.len() as u64, model.rows.len() as u64);
                    // Every row given is added, is left out, or takes the place of one.
                    assert_eq!(
                        before as u64 + given - done.ignored_count - done.replaced_count,
                        after
                    );
                    if policy != OnConflict::Replace || !model.unique {
                        assert_eq!(done.inserted_count, given - done.ignored_count);
                    }
                } else {
                    assert_eq!(done.unwrap_err().kind(), ErrorKind::DuplicateKey);
                }
            }
            Step::Delete(gone) if model.ordered => {
                assert_eq!(table.delete(&keys(&gone)).unwrap(), model.delete(&gone));
            }
            Step::Delete(_) => {}
            Step::Truncate => {
                let count = engine.write(|txn| txn.truncate(table.id())).unwrap();
                assert_eq!(count, model.rows.len() as u64);
                model.rows.clear();
            }
            Step::Flush => engine.flush(None).unwrap(),
            Step::Compact => {
                engine.compact(table.id()).unwrap();
            }
            Step::Retrain => {
                engine.retrain(table.id()).unwrap();
            }
            Step::Checkpoint => engine.checkpoint().unwrap(),
            Step::Reopen => {
                drop(table);
                drop(engine);
                engine = Engine::open(dir.path(), options.clone()).unwrap();
            }
        }
        check(&engine.table("t").unwrap(), &model, at, page);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn unique_keys(
        steps in prop::collection::vec(step(), 1..14),
        at in (key(), key()),
        page in (0_u64..80, 0_u64..80),
    ) {
        run(KeyKind::Primary, steps, at, page, small());
    }

    #[test]
    fn repeating_keys(
        steps in prop::collection::vec(step(), 1..14),
        at in (key(), key()),
        page in (0_u64..80, 0_u64..80),
    ) {
        run(KeyKind::Cluster, steps, at, page, small());
    }

    #[test]
    fn no_keys(
        steps in prop::collection::vec(step(), 1..10),
        page in (0_u64..80, 0_u64..80),
    ) {
        run(KeyKind::RowId, steps, (0, 0), page, small());
    }
}
