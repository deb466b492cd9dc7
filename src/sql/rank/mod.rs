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
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};

use tokio::runtime::Handle;

use super::reader::{ReadStream, Steps};
pub(crate) use rule::KeyRanks;
pub(crate) use sample::{Sample, SamplePlanner, Sampling};

/// Rows that are told from positions.
trait Answer: fmt::Debug + std::marker::Send + Sync {
    /// What it is, in a line of EXPLAIN.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// The number of rows, where it is known beforehand.
    fn row_count(&self) -> Option<u64>;

    /// The rows, as batches of `schema`; those after the first `limit` need not come. May read files.
    fn rows(self: Arc<Self>, schema: &SchemaRef, limit: Option<u64>) -> Box<dyn Steps>;
}

/// The first rows of an answer.
struct Limited {
    answer: Box<dyn Steps>,
    left: u64,
    metrics: BaselineMetrics,
}

impl Steps for Limited {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(batch) = self.answer.next()? else { return Ok(None) };
        let rows = (batch.num_rows() as u64).min(self.left);
        self.left -= rows;
        self.metrics.record_output(rows as usize);
        Ok(Some(batch.slice(0, rows as usize)))
    }
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
        let answer = Arc::clone(&self.answer).rows(&self.schema, self.limit);
        let rows = Limited { answer, left: self.limit.unwrap_or(u64::MAX), metrics };
        let stream = ReadStream::new(Handle::current(), vec![rows]);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
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
