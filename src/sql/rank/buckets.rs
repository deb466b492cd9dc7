//! Counts of time buckets over key ranges: `date_trunc` and `date_bin` of the key rise with it, so that a bucket is a stretch of
//! positions. A walk finds where each one ends and which key begins the next; empty buckets cost nothing.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::aggregates::counts_rows;
use super::input::KeyInput;
use super::{Answer, Steps};
use crate::engine::{EncodedKey, KeyRange, KeyWalk};
use crate::sql::explain;
use crate::sql::key_filter::{KeyColumns, ValueSet, compare};

/// So many buckets are found as fast as they are asked for, however few rows they have.
const FEW_BUCKETS: u64 = 64;

/// Rows that the ordinary plan reads and groups in about the time that finding a bucket takes.
const ROWS_OF_A_BUCKET: u64 = 128;

/// Buckets of a batch.
const BATCH_BUCKETS: usize = 1024;

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// A row for each bucket that has rows: its value, and its number of rows once or more.
#[derive(Debug)]
pub(super) struct Buckets {
    input: KeyInput,
    /// The bucket of a key, over the batch of the input.
    bucket: Arc<dyn PhysicalExpr>,
    /// The same of a column of the bucket's own type.
    again: Arc<dyn PhysicalExpr>,
    /// A column of that type.
    schema: SchemaRef,
    /// How far from the beginning of a bucket the next one has surely begun, in nanoseconds; short of the one after it.
    reach: i128,
    counts: usize,
}

impl Buckets {
    /// `None` where the groups are no buckets of the key, something else than rows is counted, or reading the rows is likely faster.
    pub(super) fn new(
        input: &KeyInput,
        group: &Arc<dyn PhysicalExpr>,
        functions: &[Arc<AggregateFunctionExpr>],
    ) -> Result<Option<Self>> {
        if !functions.iter().all(|f| counts_rows(input, f)) {
            return Ok(None);
        }
        let Some(bucket) = input.of_key(group) else { return Ok(None) };
        let Some(rising) = Rising::new(input, &bucket) else { return Ok(None) };
        let data_type = rising.function.return_type().clone();
        let schema = Arc::new(Schema::new(vec![Field::new("bucket", data_type, false)]));
        let mut arguments = rising.function.args().to_vec();
        arguments[1] = Arc::new(Column::new("bucket", 0));
        let again = Arc::clone(&bucket).with_new_children(arguments)?;
        let counts = functions.len();
        let reach = rising.reach;
        let input = input.clone();
        let buckets = Self { input, bucket, again, schema, reach, counts };
        Ok(if buckets.pays()? { Some(buckets) } else { None })
    }

    /// Whether buckets are few beside the rows.
    fn pays(&self) -> Result<bool> {
        let table = &self.input.table;
        let (mut rows, mut span) = (0, 0);
        for range in &self.input.ranges {
            let mut walk = table.walk(range)?;
            rows += walk.row_count();
            let all = walk.until(&Bound::Unbounded)?;
            let (Some(first), Some(last)) = (walk.first()?, &all.last) else { continue };
            let ends =
                self.nanoseconds(&self.input.values(&self.bucket, &[first, last.clone()])?)?;
            span += ends[1] - ends[0];
            walk.pass(&all);
        }
        // The reach of a month is longer than a month, but never twice as long.
        let most = (span / (self.reach / 2).max(1)) as u64 + self.input.ranges.len() as u64;
        let buckets = most.min(rows);
        Ok(buckets <= FEW_BUCKETS || buckets.saturating_mul(ROWS_OF_A_BUCKET) <= rows)
    }

    /// Timestamps in nanoseconds.
    fn nanoseconds(&self, values: &ArrayRef) -> Result<Vec<i128>> {
        let DataType::Timestamp(unit, _) = values.data_type() else {
            return Err(DataFusionError::Internal("a bucket is a timestamp".to_owned()));
        };
        let step = SECOND / ticks(*unit);
        let plain = arrow::compute::cast(values, &DataType::Int64)?;
        let plain = plain.as_any().downcast_ref::<Int64Array>();
        let values = plain.into_iter().flat_map(|p| p.values());
        Ok(values.map(|v| i128::from(*v) * step).collect())
    }

    /// Where the bucket after this one begins, as the lower bound of its keys; `None` where that is past all time.
    fn next(&self, bucket: &ArrayRef) -> Result<Option<Bound<EncodedKey>>> {
        let DataType::Timestamp(unit, zone) = bucket.data_type() else {
            return Err(DataFusionError::Internal("a bucket is a timestamp".to_owned()));
        };
        let far = (self.nanoseconds(bucket)?[0] + self.reach) / (SECOND / ticks(*unit));
        let Ok(far) = i64::try_from(far) else { return Ok(None) };
        let far =
            ScalarValue::Int64(Some(far)).cast_to(&DataType::Timestamp(*unit, zone.clone()))?;
        let far = RecordBatch::try_new(Arc::clone(&self.schema), vec![far.to_array()?])?;
        // Past the end of what dates can say there are no keys either.
        let Ok(begin) = self.again.evaluate(&far) else { return Ok(None) };
        let begin = ScalarValue::try_from_array(&begin.into_array(1)?, 0)?;
        let table = &self.input.table;
        let columns = KeyColumns::new(table.meta());
        let set = compare(columns.types()[0], Operator::GtEq, &begin);
        let Some(set) = set.filter(|_| !begin.is_null()) else { return Ok(None) };
        let mut sets = vec![ValueSet::all(); columns.types().len()];
        sets[0] = set;
        let (ranges, ..) = columns.ranges(table.codec(), &sets)?;
        Ok(ranges.into_iter().next().map(|range| range.lower))
    }

    /// Passes over the rows of the bucket of the first key. Says how many they are.
    fn pass(&self, walk: &mut KeyWalk, bucket: &ArrayRef) -> Result<u64> {
        let end = self.next(bucket)?.unwrap_or(Bound::Unbounded);
        let ahead = walk.until(&end)?;
        if let Some(last) = &ahead.last
            && self.input.values(&self.bucket, std::slice::from_ref(last))?.as_ref()
                == bucket.as_ref()
        {
            walk.pass(&ahead);
            return Ok(ahead.row_count);
        }
        // The next bucket began before the bound: by halves of what is ahead.
        let (mut low, mut high) = (1, walk.row_count());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(key) = walk.nth(middle)? else { break };
            if self.input.values(&self.bucket, &[key])?.as_ref() == bucket.as_ref() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let end = walk.nth(low)?.map_or(Bound::Unbounded, Bound::Included);
        let ahead = walk.until(&end)?;
        walk.pass(&ahead);
        Ok(ahead.row_count)
    }

    fn batch(&self, schema: &SchemaRef, found: Vec<(ArrayRef, u64)>) -> Result<RecordBatch> {
        let parts: Vec<&dyn Array> = found.iter().map(|(bucket, _)| bucket.as_ref()).collect();
        let mut columns = vec![arrow::compute::concat(&parts)?];
        let counts = found.iter().map(|(_, count)| i64::try_from(*count).ok());
        let counts: Int64Array = counts.collect();
        columns.extend((0..self.counts).map(|_| Arc::new(counts.clone()) as ArrayRef));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

impl Answer for Buckets {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.input.table;
        write!(f, "table={}, counts of buckets={}", table.meta().name, self.bucket)?;
        let ranges: Vec<&KeyRange> = self.input.ranges.iter().collect();
        write!(f, ", {}", explain::summary(table, &ranges).map_err(|_| fmt::Error)?)
    }

    fn row_count(&self) -> Option<u64> {
        None
    }

    fn rows(self: Arc<Self>, schema: &SchemaRef, limit: Option<u64>) -> Box<dyn Steps> {
        let most = limit.map_or(BATCH_BUCKETS, |l| BATCH_BUCKETS.min(l as usize)).max(1);
        let schema = Arc::clone(schema);
        Box::new(Walking { buckets: self, schema, most, range: 0, walk: None, begun: None })
    }
}

/// Buckets that are found as they are asked for.
struct Walking {
    buckets: Arc<Buckets>,
    schema: SchemaRef,
    /// Buckets of a batch.
    most: usize,
    /// The range that the walk goes through, or the next one.
    range: usize,
    walk: Option<KeyWalk>,
    /// A bucket that may go on.
    begun: Option<(ArrayRef, u64)>,
}

impl Steps for Walking {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let input = &self.buckets.input;
        let mut found: Vec<(ArrayRef, u64)> = Vec::with_capacity(self.most);
        while let Some(range) = input.ranges.get(self.range) {
            let mut walk = match self.walk.take() {
                Some(walk) => walk,
                None => input.table.walk(range)?,
            };
            let Some(key) = walk.first()? else {
                self.range += 1;
                continue;
            };
            let bucket = input.values(&self.buckets.bucket, &[key])?;
            let count = self.buckets.pass(&mut walk, &bucket)?;
            self.walk = Some(walk);
            match &mut self.begun {
                // It goes on where a bound came early, or where one range follows another.
                Some(begun) if begun.0.as_ref() == bucket.as_ref() => begun.1 += count,
                begun => found.extend(begun.replace((bucket, count))),
            }
            if found.len() >= self.most {
                return self.buckets.batch(&self.schema, found).map(Some);
            }
        }
        found.extend(self.begun.take());
        match found.is_empty() {
            true => Ok(None),
            false => self.buckets.batch(&self.schema, found).map(Some),
        }
    }
}

/// A function of the key that never falls as the key rises, and whose values are where buckets begin.
struct Rising<'a> {
    function: &'a ScalarFunctionExpr,
    reach: i128,
}

impl<'a> Rising<'a> {
    fn new(input: &KeyInput, bucket: &'a Arc<dyn PhysicalExpr>) -> Option<Self> {
        let function = bucket.downcast_ref::<ScalarFunctionExpr>()?;
        let literal = |i: usize| Some(function.args().get(i)?.downcast_ref::<Literal>()?.value());
        let reach = match (function.name(), function.args().len()) {
            ("date_trunc", 2) => granularity(literal(0)?.try_as_str()??)?,
            ("date_bin" | "time_bucket", 2) => interval(literal(0)?)?,
            ("date_bin" | "time_bucket", 3) => {
                literal(2)?;
                interval(literal(0)?)?
            }
            _ => return None,
        };
        // Elsewhere clocks are set back: an hour comes twice.
        let steady = match function.return_type() {
            DataType::Timestamp(_, None) => true,
            DataType::Timestamp(_, Some(zone)) => is_offset(zone),
            _ => false,
        };
        (steady && input.is_ordered(function.args().get(1)?)).then_some(Self { function, reach })
    }
}

/// Whether a time zone is always the same distance from UTC.
fn is_offset(zone: &str) -> bool {
    matches!(zone, "UTC" | "Etc/UTC" | "Z") || zone.starts_with(['+', '-'])
}

fn ticks(unit: arrow::datatypes::TimeUnit) -> i128 {
    use arrow::datatypes::TimeUnit as U;
    match unit {
        U::Second => 1,
        U::Millisecond => 1_000,
        U::Microsecond => 1_000_000,
        U::Nanosecond => SECOND,
    }
}

/// See [`Buckets::reach`].
fn granularity(name: &str) -> Option<i128> {
    Some(match name.to_lowercase().as_str() {
        "microsecond" => SECOND / 1_000_000,
        "millisecond" => SECOND / 1_000,
        "second" => SECOND,
        "minute" => 60 * SECOND,
        "hour" => 3_600 * SECOND,
        "day" => DAY,
        "week" => 7 * DAY,
        "month" => 32 * DAY,
        "quarter" => 93 * DAY,
        "year" => 367 * DAY,
        _ => return None,
    })
}

fn interval(value: &ScalarValue) -> Option<i128> {
    let nanoseconds = match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.days == 0 && i.nanoseconds == 0 => {
            i128::from(i.months) * 31 * DAY + DAY
        }
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => {
            i128::from(i.days) * DAY + i128::from(i.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            i128::from(i.days) * DAY + i128::from(i.milliseconds) * (SECOND / 1_000)
        }
        _ => return None,
    };
    (nanoseconds > 0).then_some(nanoseconds)
}
