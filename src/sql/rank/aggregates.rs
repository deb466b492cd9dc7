//! Aggregates of the key over key ranges: counts, ends, medians, percentiles. The rows that matter are found by rank.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;

use super::input::KeyInput;
use super::{Answer, Steps, percentile_disc};
use crate::engine::{self, EncodedKey, KeyRange};
use crate::sql::explain;
use crate::sql::semantics::percentile;

/// One row of aggregates.
#[derive(Debug)]
pub(super) struct Aggregates {
    input: KeyInput,
    aggregates: Vec<Aggregate>,
}

#[derive(Debug)]
struct Aggregate {
    function: Arc<AggregateFunctionExpr>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Count,
    Min(Arc<dyn PhysicalExpr>),
    Max(Arc<dyn PhysicalExpr>),
    Median(Arc<dyn PhysicalExpr>),
    /// Between neighbours as their distance says; from the largest down (`true`).
    Between(Arc<dyn PhysicalExpr>, f64, bool),
    /// The first value with at least this share of the rows up to it; from the largest down (`true`).
    At(Arc<dyn PhysicalExpr>, f64, bool),
}

impl Aggregates {
    /// `None` where one of the functions needs more than ranks.
    pub(super) fn new(input: &KeyInput, functions: &[Arc<AggregateFunctionExpr>]) -> Option<Self> {
        let aggregates = functions
            .iter()
            .map(|function| Aggregate::new(input, function))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { input: input.clone(), aggregates })
    }

    fn count(&self) -> engine::Result<u64> {
        self.input.table.count_all(&self.input.ranges)
    }

    /// The ranks of `count` rows that matter, ascending.
    fn ranks(&self, count: u64) -> Vec<u64> {
        let mut ranks = BTreeSet::new();
        for aggregate in &self.aggregates {
            if count > 0 && aggregate.argument().is_some() {
                let (low, high, _) = aggregate.ranks(count);
                ranks.extend([low, high]);
            }
        }
        ranks.into_iter().collect()
    }
}

/// Whether a function counts all rows.
pub(super) fn counts_rows(input: &KeyInput, function: &AggregateFunctionExpr) -> bool {
    function.fun().name() == "count"
        && !function.is_distinct()
        && function.expressions().iter().all(|e| input.never_null(e))
}

impl Aggregate {
    fn new(input: &KeyInput, function: &Arc<AggregateFunctionExpr>) -> Option<Self> {
        let arguments = function.expressions();
        let kind = match (function.fun().name(), arguments.as_slice()) {
            ("count", _) => counts_rows(input, function).then_some(Kind::Count)?,
            // Repeats move neither end.
            ("min", [value]) => Kind::Min(input.ordered(value)?),
            ("max", [value]) => Kind::Max(input.ordered(value)?),
            _ if function.is_distinct() => return None,
            ("median", [value]) => Kind::Median(input.ordered(value)?),
            ("approx_median", [value]) => Kind::Between(input.ordered(value)?, 0.5, false),
            ("percentile_cont" | "approx_percentile_cont", [value, share]) => {
                Kind::Between(input.ordered(value)?, wanted(share)?, descending(function))
            }
            ("percentile_disc", [value, share]) => {
                Kind::At(input.ordered(value)?, wanted(share)?, descending(function))
            }
            _ => return None,
        };
        Some(Self { function: Arc::clone(function), kind })
    }

    /// The ranks of the rows that decide, of `count` rows; and for two of them how far the value is from the first to the second.
    fn ranks(&self, count: u64) -> (u64, u64, f64) {
        let last = count.saturating_sub(1);
        let one = |rank| (rank, rank, 0.0);
        match &self.kind {
            Kind::Count | Kind::Min(_) => one(0),
            Kind::Max(_) => one(last),
            Kind::Median(_) => (last / 2, count / 2, 0.0),
            Kind::Between(_, share, descending) => {
                let (low, high, weight) = percentile::place(*share, count);
                match descending {
                    true => (last - low, last - high, weight),
                    false => (low, high, weight),
                }
            }
            Kind::At(_, share, descending) => {
                let rank = percentile_disc::rank(*share, count);
                one(if *descending { last - rank } else { rank })
            }
        }
    }

    fn argument(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        match &self.kind {
            Kind::Count => None,
            Kind::Min(e) | Kind::Max(e) | Kind::Median(e) => Some(e),
            Kind::Between(e, ..) | Kind::At(e, ..) => Some(e),
        }
    }

    /// Its value of `count` rows, where `key` gives the keys at its ranks.
    fn value<'a>(
        &self,
        input: &KeyInput,
        count: u64,
        key: impl Fn(u64) -> Result<&'a EncodedKey>,
    ) -> Result<ScalarValue> {
        let Some(argument) = self.argument() else {
            let count = i64::try_from(count);
            let count = count.map_err(|_| {
                DataFusionError::Execution("the count does not fit BIGINT".to_owned())
            })?;
            return Ok(ScalarValue::Int64(Some(count)));
        };
        let (low, high, weight) = self.ranks(count);
        let keys = if low == high {
            vec![key(low)?.clone()]
        } else {
            vec![key(low)?.clone(), key(high)?.clone()]
        };
        let values = input.values(argument, &keys)?;
        match &self.kind {
            // The function's own arithmetic on the rows in the middle.
            Kind::Median(_) => {
                let mut median = self.function.create_accumulator()?;
                median.update_batch(&[values])?;
                median.evaluate()
            }
            Kind::Between(..) => percentile::interpolate(&values, weight, values.data_type()),
            _ => ScalarValue::try_from_array(&values, 0),
        }
    }
}

/// The share that a percentile asks for: `None` where DataFusion must judge it.
fn wanted(share: &Arc<dyn PhysicalExpr>) -> Option<f64> {
    let share = match share.downcast_ref::<Literal>()?.value() {
        ScalarValue::Float64(Some(share)) => *share,
        ScalarValue::Float32(Some(share)) => f64::from(*share),
        value @ ScalarValue::Decimal128(Some(_), ..) => {
            match value.cast_to(&DataType::Float64).ok()? {
                ScalarValue::Float64(share) => share?,
                _ => return None,
            }
        }
        _ => return None,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

fn descending(function: &AggregateFunctionExpr) -> bool {
    function.order_bys().first().is_some_and(|sort| sort.options.descending)
}

impl Answer for Aggregates {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self
            .aggregates
            .iter()
            .map(|a| a.function.human_display().unwrap_or_else(|| a.function.name()))
            .collect();
        let table = &self.input.table;
        write!(f, "table={}, aggregates=[{}]", table.meta().name, names.join(", "))?;
        let ranks = self.count().map(|count| self.ranks(count)).map_err(|_| fmt::Error)?;
        write!(f, ", ranks={ranks:?}")?;
        let ranges: Vec<&KeyRange> = self.input.ranges.iter().collect();
        write!(f, ", {}", explain::summary(table, &ranges).map_err(|_| fmt::Error)?)
    }

    fn row_count(&self) -> Option<u64> {
        Some(1)
    }

    fn rows(self: Arc<Self>, schema: &SchemaRef, _limit: Option<u64>) -> Box<dyn Steps> {
        Box::new(OneRow { aggregates: Some(self), schema: Arc::clone(schema) })
    }
}

/// The row of aggregates, once.
struct OneRow {
    aggregates: Option<Arc<Aggregates>>,
    schema: SchemaRef,
}

impl Steps for OneRow {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.aggregates.take().map(|aggregates| aggregates.row(&self.schema)).transpose()
    }
}

impl Aggregates {
    fn row(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let count = self.count()?;
        let ranks = self.ranks(count);
        let keys = self.input.table.nth_keys(&self.input.ranges, &ranks)?;
        let key = |rank: u64| {
            let at = ranks.binary_search(&rank).ok().and_then(|i| keys.get(i));
            at.ok_or_else(|| DataFusionError::Internal(format!("there is no key of rank {rank}")))
        };
        let mut columns = Vec::with_capacity(self.aggregates.len());
        for (aggregate, field) in self.aggregates.iter().zip(schema.fields()) {
            let value = if count == 0 && aggregate.argument().is_some() {
                ScalarValue::try_from(field.data_type())?
            } else {
                aggregate.value(&self.input, count, key)?
            };
            columns.push(value.to_array()?);
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
