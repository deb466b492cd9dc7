//! Reads key ranges of a table in key order: what DataFusion's plans have at their leaves.

use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::{SortOptions, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Constraint, Constraints, ScalarValue, Statistics};
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
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SortOrderPushdownResult,
};

use super::explain;
use super::queries::Query;
use super::semantics::floats::canonical_array;
use crate::engine::{
    self, EncodedKey, KeyColumn, KeyKind, KeyRange, ROW_ADDRESS_COLUMN, RowAddress, ScanRequest,
    TableSnapshot,
};

/// A partition of its own is worth this many rows.
const MIN_PARTITION_ROWS: u64 = 64 * 1024;

/// Batches that are read ahead of the one who asks.
const READ_AHEAD: usize = 2;

/// Rows of a batch at most.
const BATCH_ROWS: usize = 32 * 1024;

/// Rows gathered from short ranges before they are passed on.
const GATHER_ROWS: usize = 8 * 1024;

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
        let ordering: Vec<PhysicalSortExpr> = key
            .iter()
            .map(|position| {
                let name = self.schema.field(*position).name();
                PhysicalSortExpr::new(Arc::new(Column::new(name, *position)), options)
            })
            .collect();
        let mut equivalences = match ordering.is_empty() {
            true => EquivalenceProperties::new(Arc::clone(&self.schema)),
            false => {
                EquivalenceProperties::new_with_orderings(Arc::clone(&self.schema), [ordering])
            }
        };
        let meta = self.table.meta();
        if meta.key_kind == KeyKind::Primary && key.len() == meta.key.len() {
            equivalences
                .set_constraints(Constraints::new_unverified(vec![Constraint::PrimaryKey(key)]));
        }
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
        reader.query = context.session_config().get_extension::<Query>();
        let (offset, limit) = (self.offset, self.limit);
        let mut builder =
            RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), READ_AHEAD);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            reader
                .read(&ranges, offset, limit, |batch| sender.blocking_send(Ok(batch)).is_ok())
                .map(|_| ())
        });
        Ok(builder.build())
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
        if descending == self.reverse {
            return Ok(SortOrderPushdownResult::Exact { inner: Arc::new(self.clone()) });
        }
        if self.offset > 0 || self.limit.is_some() {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let mut scan = self.clone();
        scan.reverse = descending;
        scan.partitions.reverse();
        for ranges in &mut scan.partitions {
            ranges.reverse();
        }
        scan.refresh();
        Ok(SortOrderPushdownResult::Exact { inner: Arc::new(scan) })
    }
}

/// A batch with the addresses of its rows as the last column.
fn with_addresses(batch: &RecordBatch, rows: &[RowAddress]) -> Result<RecordBatch> {
    let mut fields = batch.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(ROW_ADDRESS_COLUMN, DataType::UInt64, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0))));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Reads on a blocking thread.
pub(crate) struct Reader {
    table: TableSnapshot,
    schema: SchemaRef,
    projection: Vec<usize>,
    /// The position that means the row address.
    address: usize,
    reverse: bool,
    metrics: BaselineMetrics,
    /// What the rows are for: it counts them, and may be stopped.
    pub(crate) query: Option<Arc<Query>>,
}

impl Reader {
    /// Reads the columns `projection` (the position after the last means the row address), as batches of
    /// `schema`.
    pub(crate) fn new(
        table: TableSnapshot,
        schema: SchemaRef,
        projection: Vec<usize>,
        reverse: bool,
    ) -> Self {
        let metrics = BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let address = table.meta().columns.len();
        Self { table, schema, projection, address, reverse, metrics, query: None }
    }

    /// Gives the rows of `ranges` to `send` until that says no. Says whether it never did.
    pub(crate) fn read(
        &self,
        ranges: &[KeyRange],
        offset: u64,
        limit: Option<u64>,
        mut send: impl FnMut(RecordBatch) -> bool,
    ) -> Result<bool> {
        if ranges.len() < 2 {
            return self.read_each(ranges, offset, limit, send);
        }
        if self.table.points(&ranges[..2])?.is_some()
            && ranges.iter().all(|r| r.as_point().is_some())
        {
            return self.read_points(ranges, offset, limit, send);
        }
        // Many ranges, such as the points of an IN list, bring few rows each: these are gathered.
        let mut pending = Vec::new();
        let mut rows = 0;
        let mut failure = None;
        let gather = |batch: RecordBatch| {
            rows += batch.num_rows();
            pending.push(batch);
            if rows < GATHER_ROWS {
                return true;
            }
            rows = 0;
            match concat_batches(&self.schema, &std::mem::take(&mut pending)) {
                Ok(gathered) => send(gathered),
                Err(e) => {
                    failure = Some(e);
                    false
                }
            }
        };
        let complete = self.read_each(ranges, offset, limit, gather)?;
        if let Some(e) = failure {
            return Err(e.into());
        }
        if !complete {
            return Ok(false);
        }
        if pending.is_empty() {
            return Ok(true);
        }
        Ok(send(concat_batches(&self.schema, &pending)?))
    }

    /// The columns to read: all of the projection but row addresses.
    fn stored(&self) -> Vec<usize> {
        self.projection.iter().copied().filter(|p| *p != self.address).collect()
    }

    /// The rows of points, looked up many at a time.
    fn read_points(
        &self,
        ranges: &[KeyRange],
        mut offset: u64,
        mut limit: Option<u64>,
        mut send: impl FnMut(RecordBatch) -> bool,
    ) -> Result<bool> {
        let columns = self.stored();
        for ranges in ranges.chunks(GATHER_ROWS) {
            let timer = self.metrics.elapsed_compute().timer();
            let keys: Vec<&EncodedKey> = ranges.iter().filter_map(KeyRange::as_point).collect();
            let keys = KeyColumn::from_keys(self.table.codec().form(), keys)?;
            let mut rows: Vec<RowAddress> =
                self.table.locate(&keys)?.into_iter().flatten().collect();
            let skipped = offset.min(rows.len() as u64);
            rows.drain(..skipped as usize);
            offset -= skipped;
            if let Some(limit) = &mut limit {
                rows.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                *limit -= rows.len() as u64;
            }
            if !rows.is_empty() {
                let mut batch = self.table.take(&rows, Some(&columns))?;
                if self.projection.contains(&self.address) {
                    batch = with_addresses(&batch, &rows)?;
                }
                let batch = self.shape(batch)?;
                drop(timer);
                self.has_read(batch.num_rows())?;
                if !send(batch) {
                    return Ok(false);
                }
            }
            if limit == Some(0) {
                break;
            }
        }
        Ok(true)
    }

    fn read_each(
        &self,
        ranges: &[KeyRange],
        mut offset: u64,
        mut limit: Option<u64>,
        mut send: impl FnMut(RecordBatch) -> bool,
    ) -> Result<bool> {
        for range in ranges {
            if limit == Some(0) {
                break;
            }
            if offset > 0 {
                let rows = self.table.count(range)?;
                if rows <= offset {
                    offset -= rows;
                    continue;
                }
            }
            let request = ScanRequest {
                range: range.clone(),
                projection: Some(self.stored()),
                row_address: self.projection.contains(&self.address),
                reverse: self.reverse,
                offset: std::mem::take(&mut offset),
                limit,
                batch_rows: BATCH_ROWS,
            };
            let mut scan = self.table.scan(&request)?;
            loop {
                let batch = {
                    let _timer = self.metrics.elapsed_compute().timer();
                    match scan.next() {
                        Some(batch) => self.shape(batch?)?,
                        None => break,
                    }
                };
                let rows = batch.num_rows();
                self.has_read(rows)?;
                limit = limit.map(|l| l.saturating_sub(rows as u64));
                if !send(batch) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Counts rows. An error where what they are for was stopped.
    fn has_read(&self, rows: usize) -> Result<()> {
        self.metrics.record_output(rows);
        let Some(query) = &self.query else { return Ok(()) };
        query.read(rows);
        query.check().map_err(|e| DataFusionError::External(Box::new(e)))
    }

    /// The engine's batch with the plan's schema, the row address in its place. Floats may have been stored in any form.
    fn shape(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = batch.columns().iter().map(canonical_array).collect();
        if let Some(place) = self.projection.iter().position(|p| *p == self.address)
            && let Some(address) = columns.pop()
        {
            columns.insert(place, address);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}
