//! Random changes through SQL, held against a map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use crate::engine::Options;
use crate::sql::testing::TestDatabase;
use crate::sql::{Outcome, Result};

/// Keys and values are small, so that they meet often.
type Model = BTreeMap<i64, Option<i64>>;

#[derive(Debug, Clone, Copy)]
enum OnConflict {
    Error,
    Nothing,
    Add,
    Replace,
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<(i64, Option<i64>)>, OnConflict, bool),
    InsertMany(Vec<(i64, Option<i64>)>, OnConflict),
    InsertSelect { below: i64, shift: i64, on_conflict: OnConflict },
    Add { from: i64, to: i64, amount: i64, returning: bool },
    Shift { from: i64, by: i64 },
    UpdateMany(Vec<(i64, Option<i64>)>),
    DeleteRange { from: i64, to: i64, returning: bool },
    DeleteNulls,
    DeleteMany(Vec<i64>),
    DeleteCorrelated,
    Truncate,
    Flush,
    Compact,
}

fn key() -> impl Strategy<Value = i64> {
    -20i64..20
}

fn rows() -> impl Strategy<Value = Vec<(i64, Option<i64>)>> {
    prop::collection::vec((key(), prop::option::weighted(0.8, 0i64..100)), 1..12)
}

fn on_conflict() -> impl Strategy<Value = OnConflict> {
    prop::sample::select(vec![
        OnConflict::Error,
        OnConflict::Nothing,
        OnConflict::Add,
        OnConflict::Replace,
    ])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (rows(), on_conflict(), any::<bool>()).prop_map(|(r, c, b)| Op::Insert(r, c, b)),
        3 => (rows(), on_conflict()).prop_map(|(r, c)| Op::InsertMany(r, c)),
        1 => (key(), 0i64..30, on_conflict())
            .prop_map(|(below, shift, on_conflict)| Op::InsertSelect { below, shift, on_conflict }),
        2 => (key(), key(), 1i64..5, any::<bool>())
            .prop_map(|(from, to, amount, returning)| Op::Add { from, to, amount, returning }),
        2 => (key(), -2i64..3).prop_map(|(from, by)| Op::Shift { from, by }),
        2 => rows().prop_map(Op::UpdateMany),
        2 => (key(), key(), any::<bool>())
            .prop_map(|(from, to, returning)| Op::DeleteRange { from, to, returning }),
        1 => Just(Op::DeleteNulls),
        2 => prop::collection::vec(key(), 1..6).prop_map(Op::DeleteMany),
        1 => Just(Op::DeleteCorrelated),
        1 => Just(Op::Truncate),
        1 => Just(Op::Flush),
        1 => Just(Op::Compact),
    ]
}

fn clause(on_conflict: OnConflict) -> &'static str {
    match on_conflict {
        OnConflict::Error => "",
        OnConflict::Nothing => " ON CONFLICT DO NOTHING",
        OnConflict::Add => " ON CONFLICT (k) DO UPDATE SET v = t.v + excluded.v",
        OnConflict::Replace => " ON CONFLICT (k) DO UPDATE SET v = excluded.v",
    }
}

/// What one INSERT does to the model; `None` is an error.
fn insert(
    model: &mut Model,
    rows: &[(i64, Option<i64>)],
    on_conflict: OnConflict,
    one_statement: bool,
) -> Option<u64> {
    let before = model.clone();
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for (k, v) in rows {
        let again = !seen.insert(*k);
        match (model.get(k).copied(), on_conflict) {
            (None, _) => {
                model.insert(*k, *v);
            }
            (Some(_), OnConflict::Nothing) => continue,
            (Some(_), OnConflict::Error) => {
                *model = before;
                return None;
            }
            (Some(_), _) if again && one_statement => {
                *model = before;
                return None;
            }
            (Some(old), OnConflict::Add) => {
                model.insert(*k, old.zip(*v).map(|(a, b)| a + b));
            }
            (Some(_), OnConflict::Replace) => {
                model.insert(*k, *v);
            }
        }
        count += 1;
    }
    Some(count)
}

fn harness() -> TestDatabase {
    let harness = TestDatabase::new(Options { bulk_rows: 8, ..TestDatabase::options() });
    harness.execute("CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT)").unwrap();
    harness
}

fn pairs(batches: &[RecordBatch]) -> Vec<(i64, Option<i64>)> {
    batches
        .iter()
        .flat_map(|batch| {
            let keys = batch.column(0).as_primitive::<Int64Type>();
            let values = batch.column(1).as_primitive::<Int64Type>();
            keys.values().iter().copied().zip(values.iter()).collect::<Vec<_>>()
        })
        .collect()
}

fn bind(rows: &[(i64, Option<i64>)]) -> RecordBatch {
    let keys: Int64Array = rows.iter().map(|(k, _)| Some(*k)).collect();
    let values: Int64Array = rows.iter().map(|(_, v)| *v).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("0", Arc::new(keys) as _, true),
        ("1", Arc::new(values) as _, true),
    ])
    .unwrap()
}

fn sql_value(value: Option<i64>) -> String {
    value.map_or("NULL".to_owned(), |v| v.to_string())
}

/// Runs `op` on both; gives what SQL did and the number of rows that the model changed.
fn apply(harness: &TestDatabase, model: &mut Model, op: &Op) -> (Result<Outcome>, Option<u64>) {
    match op {
        Op::Insert(rows, on_conflict, returning) => {
            let values: Vec<String> =
                rows.iter().map(|(k, v)| format!("({k}, {})", sql_value(*v))).collect();
            let returning = if *returning { " RETURNING k, v" } else { "" };
            let sql = format!(
                "INSERT INTO t VALUES {}{}{returning}",
                values.join(", "),
                clause(*on_conflict)
            );
            (harness.execute(&sql), insert(model, rows, *on_conflict, true))
        }
        Op::InsertMany(rows, on_conflict) => {
            let sql = format!("INSERT INTO t (k, v) VALUES (?, ?){}", clause(*on_conflict));
            (harness.execute_with(&sql, &bind(rows)), insert(model, rows, *on_conflict, false))
        }
        Op::InsertSelect { below, shift, on_conflict } => {
            let sql = format!(
                "INSERT INTO t SELECT k + {shift}, v FROM t WHERE k < {below}{}",
                clause(*on_conflict)
            );
            let rows: Vec<_> = model.range(..below).map(|(k, v)| (k + shift, *v)).collect();
            (harness.execute(&sql), insert(model, &rows, *on_conflict, true))
        }
        Op::Add { from, to, amount, returning } => {
            let returning = if *returning { " RETURNING k, v" } else { "" };
            let sql =
                format!("UPDATE t SET v = v + {amount} WHERE k BETWEEN {from} AND {to}{returning}");
            let mut count = 0;
            for (k, v) in model.iter_mut().filter(|(k, _)| (*from..=*to).contains(*k)) {
                let _ = k;
                *v = v.map(|v| v + amount);
                count += 1;
            }
            (harness.execute(&sql), Some(count))
        }
        Op::Shift { from, by } => {
            let sql = format!("UPDATE t SET k = k + {by} WHERE k >= {from}");
            let moved: Vec<_> = model.range(from..).map(|(k, v)| (k + by, *v)).collect();
            let mut after: Model = model.range(..from).map(|(k, v)| (*k, *v)).collect();
            let clash = moved.iter().any(|(k, _)| after.contains_key(k));
            let count = moved.len() as u64;
            after.extend(moved);
            if !clash {
                *model = after;
            }
            (harness.execute(&sql), (!clash).then_some(count))
        }
        Op::UpdateMany(rows) => {
            let mut count = 0;
            if let [(k, v)] = rows.as_slice() {
                let sql = format!("UPDATE t SET v = v - {} WHERE t.k = {k}", sql_value(*v));
                let found = model.get_mut(k).map(|old| *old = old.zip(*v).map(|(a, b)| a - b));
                return (harness.execute(&sql), Some(found.iter().count() as u64));
            }
            for (k, v) in rows {
                if let Some(old) = model.get_mut(k) {
                    *old = old.zip(*v).map(|(a, b)| a - b);
                    count += 1;
                }
            }
            let sql = "UPDATE t SET v = v - $2 WHERE k = $1";
            (harness.execute_with(sql, &bind(rows)), Some(count))
        }
        Op::DeleteRange { from, to, returning } => {
            let returning = if *returning { " RETURNING *" } else { "" };
            let sql = format!("DELETE FROM t WHERE k >= {from} AND k < {to}{returning}");
            let before = model.len();
            model.retain(|k, _| !(*from..*to).contains(k));
            (harness.execute(&sql), Some((before - model.len()) as u64))
        }
        Op::DeleteNulls => {
            let before = model.len();
            model.retain(|_, v| v.is_some());
            let outcome = harness.execute("DELETE FROM t WHERE v IS NULL");
            (outcome, Some((before - model.len()) as u64))
        }
        Op::DeleteMany(keys) => {
            let rows: Vec<_> = keys.iter().map(|k| (*k, None)).collect();
            let before = model.len();
            model.retain(|k, _| !keys.contains(k));
            if let [k] = keys.as_slice() {
                let outcome = harness.execute(&format!("DELETE FROM t WHERE ({k} = k)"));
                return (outcome, Some((before - model.len()) as u64));
            }
            let outcome = harness
                .execute_with("DELETE FROM t WHERE k = ?", &bind(&rows).project(&[0]).unwrap());
            (outcome, Some((before - model.len()) as u64))
        }
        Op::DeleteCorrelated => {
            let sql = "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t AS o WHERE o.v = t.k)";
            let values: BTreeSet<i64> = model.values().copied().flatten().collect();
            let before = model.len();
            model.retain(|k, _| !values.contains(k));
            (harness.execute(sql), Some((before - model.len()) as u64))
        }
        Op::Truncate => {
            let count = model.len() as u64;
            model.clear();
            (harness.execute("TRUNCATE t"), Some(count))
        }
        Op::Flush | Op::Compact => {
            let engine = harness.database.engine();
            if matches!(op, Op::Flush) {
                engine.flush(None).unwrap();
            } else {
                let id = engine.snapshot().table(&"t".into()).unwrap().id();
                engine.compact(id).unwrap();
            }
            (Ok(Outcome { affected_count: Some(0), returned: None, held: None }), Some(0))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn changes_do_what_a_map_does(ops in prop::collection::vec(op(), 1..25)) {
        let harness = harness();
        let mut model = Model::new();
        for op in &ops {
            let (outcome, wanted) = apply(&harness, &mut model, op);
            match (&outcome, wanted) {
                (Ok(outcome), Some(count)) => {
                    prop_assert_eq!(outcome.affected_count, Some(count), "{:?}", op);
                    if let Some((_, batches)) = &outcome.returned {
                        let returned = pairs(batches);
                        prop_assert_eq!(returned.len() as u64, count, "{:?}", op);
                        if !matches!(op, Op::DeleteRange { .. }) {
                            for (k, v) in returned {
                                prop_assert_eq!(model.get(&k), Some(&v), "{:?}", op);
                            }
                        }
                    }
                }
                (Err(_), None) => {}
                (Ok(_), None) => prop_assert!(false, "{op:?} went through"),
                (Err(e), Some(_)) => prop_assert!(false, "{op:?}: {e}"),
            }
            let wanted: Vec<_> = model.iter().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(pairs(&harness.query("SELECT k, v FROM t ORDER BY k").unwrap()), wanted, "after {:?}", op);
        }
    }
}
