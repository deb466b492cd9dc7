//! Reads key ranges of a table in key order: what DataFusion's plans have at their leaves.

use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SortOrderPushdownResult,
};
use tokio::runtime::Handle;

use super::explain;
use super::memory::Shared;
use super::queries::Query;
use super::reader::{ReadStream, Reader};
use crate::engine::{self, KeyKind, KeyRange, TableSnapshot};

/// A partition of its own is worth this many rows.
const MIN_PARTITION_ROWS: u64 = 64 * 1024;

/// Reads key ranges of a table, in key order within each partition.
#[derive(Debug, Clone)]
pub(crate) struct ScanExec {
    table: TableSnapshot,
    schema: SchemaRef,
    /// Columns by position; the position after the last means the row address.
    projection: Vec<usize>,
    /// For each partition, the ranges it reads one after the other.
    partitions: Vec<Vec<KeyRange>>,
    reverse: bool,
    /// What else the rows were asked to be ordered by after their whole key, which leaves nothing to order.
    after_key: Vec<PhysicalSortExpr>,
    /// Rows to pass over first. Only with one partition.
    offset: u64,
    /// Rows of each partition at most.
    limit: Option<u64>,
    properties: Arc<PlanProperties>,
    statistics: OnceLock<Arc<Statistics>>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    /// Reads `ranges` (disjoint, ascending) of a table in one partition. `provided` is the schema
    /// that `projection` counts in.
    pub(crate) fn new(
        table: TableSnapshot,
        provided: &Schema,
        projection: Vec<usize>,
        ranges: Vec<KeyRange>,
    ) -> Result<Self> {
        let schema = Arc::new(provided.project(&projection)?);
        let mut scan = Self {
            properties: Arc::new(PlanProperties::new(
                EquivalenceProperties::new(Arc::clone(&schema)),
                Partitioning::UnknownPartitioning(1),
                EmissionType::Incremental,
                Boundedness::Bounded,
            )),
            table,
            schema,
            projection,
            partitions: vec![ranges],
            reverse: false,
            after_key: Vec::new(),
            offset: 0,
            limit: None,
            statistics: OnceLock::new(),
            metrics: ExecutionPlanMetricsSet::new(),
        };
        scan.refresh();
        Ok(scan)
    }

    /// Returns at most so many rows.
    pub(crate) fn with_limit(mut self, limit: Option<u64>) -> Self {
        self.limit = match (self.limit, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.refresh();
        self
    }

    /// Passes over `skip` more rows first, and returns at most `fetch` of the rest. `None` where several
    /// partitions have no common order to count in.
    pub(crate) fn with_positions(&self, skip: u64, fetch: Option<u64>) -> Option<Self> {
        if self.partitions.len() != 1 {
            return None;
        }
        let mut scan = self.clone();
        scan.offset = self.offset.saturating_add(skip);
        scan.limit = self.limit.map(|l| l.saturating_sub(skip));
        Some(scan.with_limit(fetch))
    }

    /// The same rows in one partition, in key order.
    pub(crate) fn in_one_partition(&self) -> Self {
        let mut scan = self.clone();
        scan.partitions = vec![self.partitions.concat()];
        scan.refresh();
        scan
    }

    /// The table and all that is read of it, ascending; `None` where rows are passed over or left out.
    pub(crate) fn whole_ranges(&self) -> Option<(&TableSnapshot, Vec<KeyRange>)> {
        if self.offset > 0 || self.limit.is_some() {
            return None;
        }
        let mut ranges = self.partitions.concat();
        if self.reverse {
            ranges.reverse();
        }
        Some((&self.table, ranges))
    }

    /// Where the first key column is in its output.
    pub(crate) fn key_column(&self) -> Option<usize> {
        self.key_columns().first().copied()
    }

    /// The columns it returns that the rows are ordered by, as positions in its output.
    fn key_columns(&self) -> Vec<usize> {
        let meta = self.table.meta();
        if meta.key_kind == KeyKind::RowId {
            return Vec::new();
        }
        meta.key_indices()
            .iter()
            .map_while(|column| self.projection.iter().position(|p| p == column))
            .collect()
    }

    /// Derives what follows from the other fields.
    fn refresh(&mut self) {
        let options = SortOptions { descending: self.reverse, nulls_first: self.reverse };
        let key = self.key_columns();
        let mut ordering: Vec<PhysicalSortExpr> = key
            .iter()
            .map(|position| {
                let name = self.schema.field(*position).name();
                PhysicalSortExpr::new(Arc::new(Column::new(name, *position)), options)
            })
            .collect();
        ordering.extend(self.after_key.iter().cloned());
        // Nothing is said of the key's being unique: DataFusion's projections put that upon other columns, and leave out
        // sorts that are needed.
        let equivalences = match ordering.is_empty() {
            true => EquivalenceProperties::new(Arc::clone(&self.schema)),
            false => {
                EquivalenceProperties::new_with_orderings(Arc::clone(&self.schema), [ordering])
            }
        };
        self.properties = Arc::new(
            PlanProperties::new(
                equivalences,
                Partitioning::UnknownPartitioning(self.partitions.len()),
                EmissionType::Incremental,
                Boundedness::Bounded,
            )
            .with_scheduling_type(SchedulingType::Cooperative),
        );
        self.statistics = OnceLock::new();
        self.metrics = ExecutionPlanMetricsSet::new();
    }

    /// Rows that a partition returns, exactly, from the index.
    fn partition_rows(&self, ranges: &[KeyRange]) -> engine::Result<u64> {
        let rows = self.table.count_all(ranges)?.saturating_sub(self.offset);
        Ok(self.limit.map_or(rows, |limit| rows.min(limit)))
    }

    /// Rows that it returns, exactly, from the index.
    fn row_count(&self) -> engine::Result<u64> {
        if let Some(Precision::Exact(rows)) = self.statistics.get().map(|s| s.num_rows) {
            return Ok(rows as u64);
        }
        let mut rows = 0;
        for ranges in &self.partitions {
            rows += self.partition_rows(ranges)?;
        }
        Ok(rows)
    }

    fn compute_statistics(&self, partitions: &[Vec<KeyRange>]) -> engine::Result<Statistics> {
        let mut rows = 0;
        for ranges in partitions {
            rows += self.partition_rows(ranges)?;
        }
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(rows as usize);
        for (field, column) in
            self.schema.fields().iter().zip(statistics.column_statistics.iter_mut())
        {
            if !field.is_nullable() {
                column.null_count = Precision::Exact(0);
            }
        }
        let Some(first) = self.key_columns().first().copied() else { return Ok(statistics) };
        let column = &mut statistics.column_statistics[first];
        if self.table.meta().key_kind == KeyKind::Primary && self.table.meta().key.len() == 1 {
            column.distinct_count = Precision::Exact(rows as usize);
        }
        if rows > 0 && self.offset == 0 && self.limit.is_none() {
            self.set_bounds(partitions, column)?;
        }
        Ok(statistics)
    }

    /// Sets the smallest and the largest value of the first key column.
    fn set_bounds(
        &self,
        partitions: &[Vec<KeyRange>],
        column: &mut ColumnStatistics,
    ) -> engine::Result<()> {
        let (mut low, mut high) = (None::<ScalarValue>, None::<ScalarValue>);
        // Ranges that the partitions share out are in order, ascending or descending, as a whole; a few
        // at each end may be empty.
        let mut ranges: Vec<&KeyRange> = partitions.iter().flatten().collect();
        if self.reverse {
            ranges.reverse();
        }
        for range in &ranges {
            if let Some(key) = self.table.first_key(range)? {
                low = scalar(&key);
                break;
            }
        }
        for range in ranges.iter().rev() {
            if let Some(key) = self.table.last_key(range)? {
                high = scalar(&key);
                break;
            }
        }
        if let (Some(low), Some(high)) = (low, high) {
            column.min_value = Precision::Exact(low);
            column.max_value = Precision::Exact(high);
        }
        Ok(())
    }

    /// Cuts the ranges into at most `parts` partitions of equally many rows, or nearly so where keys repeat.
    fn split(&self, parts: usize) -> engine::Result<Vec<Vec<KeyRange>>> {
        let Some((_, ranges)) = self.whole_ranges() else { return Ok(self.partitions.clone()) };
        let rows = self.table.count_all(&ranges)?;
        let parts = (parts as u64).min(rows / MIN_PARTITION_ROWS) as usize;
        let parts = self.table.split(&ranges, parts)?;
        let mut partitions: Vec<Vec<KeyRange>> = parts.into_iter().map(|p| p.ranges).collect();
        if self.reverse {
            partitions.reverse();
            partitions.iter_mut().for_each(|ranges| ranges.reverse());
        }
        Ok(partitions)
    }

    /// Cuts the keys into parts, in the scan's order, each with about as many of the rows it reads. None where it reads
    /// no more than a number of rows.
    pub(crate) fn parts(&self, count: usize) -> engine::Result<Option<Vec<KeyRange>>> {
        let Some((table, ranges)) = self.whole_ranges() else { return Ok(None) };
        key_parts(table, &ranges, count, self.reverse).map(Some)
    }

    /// Reads only what lies in a part of the keys.
    pub(crate) fn within(&self, part: &KeyRange) -> engine::Result<Self> {
        check_part(&self.table, part)?;
        let mut scan = self.clone();
        for ranges in &mut scan.partitions {
            *ranges = intersect(ranges, part);
        }
        scan.refresh();
        Ok(scan)
    }
}

/// Cuts all keys into at most `count` parts, each with about as many of the rows of `ranges` (disjoint, ascending); the last
/// part comes first with `reverse`.
pub(crate) fn key_parts(
    table: &TableSnapshot,
    ranges: &[KeyRange],
    count: usize,
    reverse: bool,
) -> engine::Result<Vec<KeyRange>> {
    let cut = table.split(ranges, count)?;
    let mut parts = Vec::with_capacity(cut.len().max(1));
    let mut lower = Bound::Unbounded;
    for part in cut.iter().skip(1) {
        let key = match part.ranges.first().map(|range| &range.lower) {
            Some(Bound::Included(key)) => Some(key.clone()),
            Some(Bound::Excluded(key)) => key.successor(),
            Some(Bound::Unbounded) | None => None,
        };
        let Some(key) = key else { continue };
        parts.push(KeyRange { lower, upper: Bound::Excluded(key.clone()) });
        lower = Bound::Included(key);
    }
    parts.push(KeyRange { lower, upper: Bound::Unbounded });
    if reverse {
        parts.reverse();
    }
    Ok(parts)
}

/// Refuses a part of other keys than the table's.
pub(crate) fn check_part(table: &TableSnapshot, part: &KeyRange) -> engine::Result<()> {
    let form = table.codec().form();
    let fits = [&part.lower, &part.upper].into_iter().all(|bound| match bound {
        Bound::Included(key) | Bound::Excluded(key) => key.form() == form,
        Bound::Unbounded => true,
    });
    match fits {
        true => Ok(()),
        false => Err(engine::Error::invalid(format!(
            "the ticket names keys of another kind than those of table {}",
            table.meta().name
        ))),
    }
}

/// What of `ranges` lies in a part of the keys.
pub(crate) fn intersect(ranges: &[KeyRange], part: &KeyRange) -> Vec<KeyRange> {
    ranges.iter().map(|range| range.intersect(part)).filter(|range| !range.is_empty()).collect()
}

/// Rows that the scans of a plan read, exactly.
pub(crate) fn rows_to_read(plan: &Arc<dyn ExecutionPlan>) -> engine::Result<u64> {
    let mut rows = match plan.downcast_ref::<ScanExec>() {
        Some(scan) => scan.row_count()?,
        None => 0,
    };
    for child in plan.children() {
        rows += rows_to_read(child)?;
    }
    Ok(rows)
}

/// The first column of a key of one row.
fn scalar(key: &[arrow::array::ArrayRef]) -> Option<ScalarValue> {
    ScalarValue::try_from_array(key.first()?, 0).ok()
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.table.meta().name;
        write!(f, "ScanExec: table={name}")?;
        let names: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        write!(f, ", columns=[{}]", names.join(", "))?;
        if self.reverse {
            f.write_str(", order=descending")?;
        }
        if self.partitions.len() > 1 {
            write!(f, ", partitions={}", self.partitions.len())?;
        }
        if self.offset > 0 {
            write!(f, ", offset={}", self.offset)?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        let ranges: Vec<&KeyRange> = self.partitions.iter().flatten().collect();
        match explain::summary(&self.table, &ranges) {
            Ok(summary) => write!(f, ", {summary}"),
            Err(e) => write!(f, ", ranges cannot be explained: {e}"),
        }
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
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

    fn repartitioned(
        &self,
        target_partitions: usize,
        _config: &ConfigOptions,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if self.offset > 0 || self.limit.is_some() || target_partitions <= self.partitions.len() {
            return Ok(None);
        }
        let partitions = self.split(target_partitions)?;
        if partitions.len() <= self.partitions.len() {
            return Ok(None);
        }
        let mut scan = self.clone();
        scan.partitions = partitions;
        scan.refresh();
        Ok(Some(Arc::new(scan)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let ranges = self
            .partitions
            .get(partition)
            .ok_or_else(|| {
                DataFusionError::Internal(format!("a scan has no partition {partition}"))
            })?
            .clone();
        let mut reader = Reader::new(
            self.table.clone(),
            Arc::clone(&self.schema),
            self.projection.clone(),
            self.reverse,
        );
        reader.metrics = BaselineMetrics::new(&self.metrics, partition);
        let config = context.session_config();
        reader.query = config.get_extension::<Query>();
        reader.sharer = config.get_extension::<Shared>().map(|results| results.join());
        let reading = reader.read(ranges, self.offset, self.limit)?;
        let stream = ReadStream::new(Handle::current(), vec![reading]);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        if let Some(partition) = args.partition() {
            let ranges = self.partitions.get(partition).cloned().unwrap_or_default();
            return Ok(Arc::new(self.compute_statistics(&[ranges])?));
        }
        if let Some(statistics) = self.statistics.get() {
            return Ok(Arc::clone(statistics));
        }
        let statistics = Arc::new(self.compute_statistics(&self.partitions)?);
        Ok(Arc::clone(self.statistics.get_or_init(|| statistics)))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let mut scan = self.clone();
        scan.limit = limit.map(|l| l as u64);
        scan.refresh();
        Some(Arc::new(scan))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit.map(|l| l as usize)
    }

    /// ORDER BY the key, or its first columns, in either direction needs no sort.
    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let key = self.key_columns();
        let in_key_order = order.iter().enumerate().all(|(i, sort)| {
            let column = sort.expr.downcast_ref::<Column>();
            match (column, key.get(i)) {
                (Some(column), Some(position)) => column.index() == *position,
                // A unique key leaves nothing for later columns to order.
                (_, None) => {
                    self.table.meta().key_kind == KeyKind::Primary
                        && key.len() == self.table.meta().key.len()
                }
                _ => false,
            }
        });
        let descending = order.first().is_some_and(|s| s.options.descending);
        let one_way =
            order.iter().take(key.len()).all(|sort| sort.options.descending == descending);
        if key.is_empty() || order.is_empty() || !in_key_order || !one_way {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let mut scan = self.clone();
        scan.after_key = order.iter().skip(key.len()).cloned().collect();
        if descending == self.reverse {
            scan.refresh();
            return Ok(SortOrderPushdownResult::Exact { inner: Arc::new(scan) });
        }
        if self.offset > 0 || self.limit.is_some() {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        scan.reverse = descending;
        scan.partitions.reverse();
        for ranges in &mut scan.partitions {
            ranges.reverse();
        }
        scan.refresh();
        Ok(SortOrderPushdownResult::Exact { inner: Arc::new(scan) })
    }
}
