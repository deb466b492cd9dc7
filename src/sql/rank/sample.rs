//! `TABLESAMPLE`: rows picked by position, before anything else is asked of them; only these are read.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast;
use roaring::RoaringTreemap;

use super::{Answer, RankExec, Steps};
use crate::engine::{KeyKind, KeyRange, TableSnapshot};
use crate::sql::provider::EngineTable;
use crate::sql::semantics::floats::canonical_array;

/// Rows that are read at once.
const BATCH_ROWS: usize = 8 * 1024;

/// How rows are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Any rows, all sets of them alike.
    Bernoulli,
    /// One of each of equal stretches in key order.
    System,
}

/// What TABLESAMPLE asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampling {
    pub(super) method: Method,
    /// Of all rows, between 0 and 1.
    pub(super) share: f64,
    /// The same rows of the same state for the same seed.
    pub(super) seed: u64,
    pub(super) repeatable: bool,
}

impl Sampling {
    /// Reads the clause; what it may not say is an error.
    fn new(sample: &ast::TableSample) -> Result<Self> {
        let refused = |what: &str| Err(DataFusionError::Plan(format!("TABLESAMPLE {what}")));
        let method = match sample.name {
            Some(ast::TableSampleMethod::Bernoulli) => Method::Bernoulli,
            Some(ast::TableSampleMethod::System) => Method::System,
            _ => return refused("needs a method: BERNOULLI or SYSTEM"),
        };
        if sample.bucket.is_some() || sample.offset.is_some() {
            return refused("takes a percentage, no buckets and no offset");
        }
        let Some(quantity) = &sample.quantity else { return refused("needs a percentage") };
        if !matches!(quantity.unit, None | Some(ast::TableSampleUnit::Percent)) {
            return refused("takes a percentage, not a number of rows");
        }
        let Some(percent) = number(&quantity.value) else {
            return refused("takes a percentage that is a number");
        };
        if !(0.0..=100.0).contains(&percent) {
            return refused(&format!("takes a percentage between 0 and 100, not {percent}"));
        }
        let seed = match &sample.seed {
            None => None,
            Some(seed) => match number(&ast::Expr::Value(seed.value.clone())) {
                Some(seed) => Some(seed.to_bits()),
                None => return refused("REPEATABLE takes a number"),
            },
        };
        let random = || RandomState::new().hash_one(0);
        Ok(Self {
            method,
            share: percent / 100.0,
            seed: seed.unwrap_or_else(random),
            repeatable: seed.is_some(),
        })
    }

    /// How many of `count` rows it picks.
    fn rows(&self, count: u64) -> u64 {
        ((count as f64 * self.share).round() as u64).min(count)
    }

    /// Their ranks, ascending.
    pub(super) fn ranks(&self, count: u64) -> Box<dyn Iterator<Item = u64> + Send> {
        let wanted = self.rows(count);
        let mut random = Random(self.seed);
        match self.method {
            Method::System => Box::new((0..wanted).map(move |i| {
                let at = |i: u64| (u128::from(count) * u128::from(i) / u128::from(wanted)) as u64;
                at(i) + random.below(at(i + 1) - at(i))
            })),
            Method::Bernoulli => {
                // Floyd: the fewer of those picked and those left out.
                let few = wanted.min(count - wanted);
                let mut picked = RoaringTreemap::new();
                for last in count - few..count {
                    let rank = random.below(last + 1);
                    if !picked.insert(rank) {
                        picked.insert(last);
                    }
                }
                if few == wanted {
                    Box::new(picked.into_iter())
                } else {
                    Box::new((0..count).filter(move |rank| !picked.contains(*rank)))
                }
            }
        }
    }
}

fn number(expr: &ast::Expr) -> Option<f64> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(text, false) => text.parse().ok(),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => Some(-number(expr)?),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr } => number(expr),
        _ => None,
    }
}

/// SplitMix64: seeds that differ little give numbers that have nothing in common.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is above 0. Its bias is less than one in 2^64 / `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

/// Plans `table TABLESAMPLE ...`.
#[derive(Debug)]
pub(crate) struct SamplePlanner;

impl RelationPlanner for SamplePlanner {
    fn plan_relation(
        &self,
        mut relation: ast::TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let ast::TableFactor::Table { sample, alias, .. } = &mut relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(clause) = sample.take() else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let alias = alias.take();
        let (ast::TableSampleKind::BeforeTableAlias(clause)
        | ast::TableSampleKind::AfterTableAlias(clause)) = clause;
        let sampling = Sampling::new(&clause)?;
        let plan = context.plan(relation)?;
        let LogicalPlan::TableScan(mut scan) = plan else {
            return Err(only_tables());
        };
        let provider = source_as_provider(&scan.source)?;
        let table = provider.downcast_ref::<EngineTable>().ok_or_else(only_tables)?;
        scan.source = provider_as_source(Arc::new(table.sampled(sampling)));
        let planned = PlannedRelation::new(LogicalPlan::TableScan(scan), alias);
        Ok(RelationPlanning::Planned(Box::new(planned)))
    }
}

fn only_tables() -> DataFusionError {
    DataFusionError::Plan("TABLESAMPLE takes a table, not a view or a system table".to_owned())
}

/// The rows of a sample.
#[derive(Debug)]
pub(crate) struct Sample {
    table: TableSnapshot,
    sampling: Sampling,
    projection: Vec<usize>,
}

impl Sample {
    /// The plan that reads columns of a sample of a table.
    pub(crate) fn plan(
        table: &TableSnapshot,
        sampling: Sampling,
        projection: Vec<usize>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::new(table.schema().project(&projection)?);
        let order = key_order(table, &projection, &schema);
        let sample = Self { table: table.clone(), sampling, projection };
        let plan = RankExec::new(Arc::new(sample), schema, order);
        Ok(plan.with_fetch(limit).unwrap_or_else(|| Arc::new(plan)))
    }
}

/// The order of rows that come in key order.
fn key_order(
    table: &TableSnapshot,
    projection: &[usize],
    schema: &Schema,
) -> Vec<PhysicalSortExpr> {
    let meta = table.meta();
    if meta.key_kind == KeyKind::RowId {
        return Vec::new();
    }
    let options = SortOptions { descending: false, nulls_first: false };
    meta.key_indices()
        .iter()
        .map_while(|column| projection.iter().position(|p| p == column))
        .map(|at| {
            PhysicalSortExpr::new(Arc::new(Column::new(schema.field(at).name(), at)), options)
        })
        .collect()
}

impl Answer for Sample {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.table.row_count();
        let method = match self.sampling.method {
            Method::Bernoulli => "any of all",
            Method::System => "one of each stretch",
        };
        write!(
            f,
            "table={}, sample={} of {count} rows, {method}",
            self.table.meta().name,
            self.sampling.rows(count)
        )?;
        if self.sampling.repeatable { f.write_str(", repeatable") } else { Ok(()) }
    }

    fn row_count(&self) -> Option<u64> {
        Some(self.sampling.rows(self.table.row_count()))
    }

    fn rows(self: Arc<Self>, schema: &SchemaRef, limit: Option<u64>) -> Box<dyn Steps> {
        let wanted = limit.map_or(usize::MAX, |limit| limit as usize);
        let ranks = self.sampling.ranks(self.table.row_count()).take(wanted);
        Box::new(Sampled { ranks: Box::new(ranks), schema: Arc::clone(schema), sample: self })
    }
}

/// Rows of a sample that are read as they are asked for.
struct Sampled {
    sample: Arc<Sample>,
    schema: SchemaRef,
    ranks: Box<dyn Iterator<Item = u64> + Send>,
}

impl Steps for Sampled {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let some: Vec<u64> = self.ranks.by_ref().take(BATCH_ROWS).collect();
        if some.is_empty() {
            return Ok(None);
        }
        let table = &self.sample.table;
        let rows = table.nth_rows(&[KeyRange::all()], &some)?;
        let batch = table.take(&rows, Some(&self.sample.projection))?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = batch.columns().iter().map(canonical_array).collect();
        let schema = Arc::clone(&self.schema);
        Ok(Some(RecordBatch::try_new_with_options(schema, columns, &options)?))
    }
}
