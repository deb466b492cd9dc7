//! What positions answer: aggregates of the key, counts of time buckets, samples. Rules of the physical optimizer put a [`RankExec`] where
//! DataFusion would read rows.

mod aggregates;
mod buckets;
mod input;
pub(crate) mod percentile_disc;
mod rule;
mod sample;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};

pub(crate) use rule::KeyRanks;
pub(crate) use sample::{Sample, SamplePlanner, Sampling};

/// Batches that are made ahead of the one who asks.
const READ_AHEAD: usize = 2;

/// Gives batches to whoever wants them, until he says no.
type Send<'a> = dyn FnMut(RecordBatch) -> bool + 'a;

/// Rows that are told from positions.
trait Answer: fmt::Debug + std::marker::Send + Sync {
    /// What it is, in a line of EXPLAIN.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// The number of rows, where it is known beforehand.
    fn row_count(&self) -> Option<u64>;

    /// Gives at most `limit` rows of `schema` to `send`. May read files.
    fn run(&self, schema: &SchemaRef, limit: Option<u64>, send: &mut Send<'_>) -> Result<()>;
}

/// The leaf of a plan that is answered from positions.
#[derive(Debug, Clone)]
pub(crate) struct RankExec {
    answer: Arc<dyn Answer>,
    schema: SchemaRef,
    limit: Option<u64>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RankExec {
    /// Rows of `schema`, in the order that is given, if any.
    fn new(answer: Arc<dyn Answer>, schema: SchemaRef, order: Vec<PhysicalSortExpr>) -> Self {
        let equivalences = match order.is_empty() {
            true => EquivalenceProperties::new(Arc::clone(&schema)),
            false => EquivalenceProperties::new_with_orderings(Arc::clone(&schema), [order]),
        };
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            answer,
            schema,
            limit: None,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for RankExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RankExec: ")?;
        self.answer.describe(f)?;
        match self.limit {
            Some(limit) => write!(f, ", limit={limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for RankExec {
    fn name(&self) -> &'static str {
        "RankExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(DataFusionError::Internal(format!(
                "RankExec has no partition {partition}"
            )));
        }
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (answer, schema, limit) = (Arc::clone(&self.answer), self.schema.clone(), self.limit);
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&schema), READ_AHEAD);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            let mut left = limit.unwrap_or(u64::MAX);
            answer.run(&schema, limit, &mut |batch| {
                let rows = (batch.num_rows() as u64).min(left);
                left -= rows;
                metrics.record_output(rows as usize);
                let batch = batch.slice(0, rows as usize);
                sender.blocking_send(Ok(batch)).is_ok() && left > 0
            })
        });
        Ok(builder.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(rows) = self.answer.row_count() {
            let rows = self.limit.map_or(rows, |limit| rows.min(limit));
            statistics.num_rows = Precision::Exact(rows as usize);
        }
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let mut changed = self.clone();
        changed.limit = limit.map(|l| l as u64);
        Some(Arc::new(changed))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit.map(|l| l as usize)
    }
}
