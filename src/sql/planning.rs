//! Planning can be stopped, and the plans that come out of it are bounded.
//!
//! Planning runs on one thread from its beginning to its end. A flag of that thread says whether somebody still waits for it
//! ([`Watch`]); DataFusion's rules look at it between the nodes of a plan, wrapped as [`Stoppable`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::ExecutionPlan;

use super::code::Code;
use super::error::{Error, Result};
use super::limits::too_complex;
use super::semantics::bounded::folding;
use super::workers::drop_on_large_stack;

/// Nodes of a plan at most, and how deep they may nest.
const MAX_PLAN_NODES: u64 = 20_000;
const MAX_PLAN_LEVELS: u64 = 3_000;

/// Types in types that a client must still be able to read.
const MAX_TYPE_LEVELS: usize = 64;

/// Texts up to here become no tree that a small stack could not drop.
const MAX_SHALLOW_TEXT: usize = 2_048;

thread_local! {
    /// Whether nobody waits any more for what the thread plans.
    static ABANDONED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

thread_local! {
    /// When the planning that the thread is at must be done.
    static DEADLINE: Cell<Option<Deadline>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Deadline {
    limit: Duration,
    end: Instant,
}

/// Plans within a time, or what is left of the time of the planning that this is part of. Statements that plan in the midst of their
/// work, as changes do, are held to the limit by this.
pub(crate) fn within<T>(limit: Duration, plan: impl FnOnce() -> T) -> T {
    /// Also where planning panics.
    struct Reset(Option<Deadline>);
    impl Drop for Reset {
        fn drop(&mut self) {
            DEADLINE.set(self.0);
        }
    }
    let before = DEADLINE.get();
    let _reset = Reset(before);
    let own = || Instant::now().checked_add(limit).map(|end| Deadline { limit, end });
    DEADLINE.set(before.or_else(own));
    plan()
}

/// Held by who waits for planning: dropped, it stops it.
#[derive(Debug, Default)]
pub(crate) struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    /// What the working thread looks at.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// Does `work` under a flag.
pub(crate) fn watched<T>(flag: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    let before = ABANDONED.replace(Some(flag));
    let result = work();
    ABANDONED.set(before);
    result
}

/// An error where nobody waits any more for what this thread plans.
pub(crate) fn check_stopped() -> Result<()> {
    if let Some(Deadline { limit, end }) = DEADLINE.get()
        && Instant::now() > end
    {
        return Err(Error::new(
            Code::StatementTimeout,
            format!("planning took longer than the limit of {limit:?}"),
        ));
    }
    let stopped = ABANDONED
        .with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)));
    match stopped {
        true => Err(Error::new(
            Code::QueryCanceled,
            "planning was stopped: it took too long, or the client gave the call up",
        )),
        false => Ok(()),
    }
}

/// A rule that stops where planning is stopped.
#[derive(Debug)]
pub(crate) struct Stoppable<R: ?Sized>(Arc<R>);

impl<R: ?Sized> Stoppable<R> {
    /// Wraps a rule.
    pub(crate) fn new(rule: Arc<R>) -> Self {
        Self(rule)
    }
}

impl AnalyzerRule for Stoppable<dyn AnalyzerRule + Send + Sync> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> DfResult<LogicalPlan> {
        check_stopped()?;
        folding(|| self.0.analyze(plan, config))
    }
}

impl OptimizerRule for Stoppable<dyn OptimizerRule + Send + Sync> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        check_stopped()?;
        folding(|| self.0.rewrite(plan, config))
    }
}

impl PhysicalOptimizerRule for Stoppable<dyn PhysicalOptimizerRule + Send + Sync> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        check_stopped()?;
        folding(|| self.0.optimize(plan, config))
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        check_stopped()?;
        folding(|| self.0.optimize_with_context(plan, context))
    }
}

/// Refuses a plan that is too large for the rules to walk. What several nodes share is looked at once and counted each time.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    let size = measure(plan, &mut HashMap::new())?;
    if size.nodes > MAX_PLAN_NODES || size.levels > MAX_PLAN_LEVELS {
        return Err(too_complex(format!(
            "the plan would have {} nodes on {} levels; at most {MAX_PLAN_NODES} on {MAX_PLAN_LEVELS} are planned",
            size.nodes, size.levels
        )));
    }
    if plan.schema().fields().iter().any(|f| nests_beyond(f.data_type(), MAX_TYPE_LEVELS)) {
        return Err(too_complex(format!(
            "a column's type nests deeper than the limit of {MAX_TYPE_LEVELS} levels"
        )));
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Size {
    nodes: u64,
    levels: u64,
}

impl Size {
    fn add(&mut self, input: Self) {
        self.nodes = self.nodes.saturating_add(input.nodes);
        self.levels = self.levels.max(input.levels);
    }
}

fn measure(plan: &LogicalPlan, known: &mut HashMap<usize, Size>) -> Result<Size> {
    let mut size = Size::default();
    for input in plan.inputs() {
        let address = std::ptr::from_ref(input).addr();
        let of_input = match known.get(&address) {
            Some(size) => *size,
            None => {
                let measured = measure(input, known)?;
                known.insert(address, measured);
                measured
            }
        };
        size.add(of_input);
    }
    if let LogicalPlan::TableScan(scan) = plan
        && let Some(view) = scan.source.get_logical_plan()
    {
        size.add(measure(&view, known)?);
    }
    if !matches!(plan, LogicalPlan::Values(_)) {
        plan.apply_expressions(|e| {
            e.apply(|e| {
                let (Expr::ScalarSubquery(subquery)
                | Expr::Exists(datafusion::logical_expr::expr::Exists { subquery, .. })
                | Expr::InSubquery(datafusion::logical_expr::expr::InSubquery {
                    subquery, ..
                })) = e
                else {
                    return Ok(TreeNodeRecursion::Continue);
                };
                size.add(measure(&subquery.subquery, known)?);
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
    }
    size.nodes = size.nodes.saturating_add(1);
    size.levels += 1;
    Ok(size)
}

fn nests_beyond(data_type: &DataType, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return true };
    match data_type {
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _)
        | DataType::Map(f, _) => nests_beyond(f.data_type(), levels),
        DataType::Struct(fields) => fields.iter().any(|f| nests_beyond(f.data_type(), levels)),
        DataType::Dictionary(_, value) => nests_beyond(value, levels),
        _ => false,
    }
}

/// A tree that may be deep: where it is, it is dropped on a large stack.
#[derive(Debug)]
pub(crate) struct Deep<T: Send + 'static> {
    tree: ManuallyDrop<T>,
    deep: bool,
}

impl<T: Send + 'static> Deep<T> {
    /// A tree made of a text.
    pub(crate) fn of_text(sql: &str, tree: T) -> Self {
        Self { tree: ManuallyDrop::new(tree), deep: sql.len() > MAX_SHALLOW_TEXT }
    }

    /// A tree that may be deeper than its text.
    pub(crate) fn new(tree: T) -> Self {
        Self { tree: ManuallyDrop::new(tree), deep: true }
    }
}

impl<T: Send + 'static> Deref for Deep<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.tree
    }
}

impl<T: Send + 'static> Drop for Deep<T> {
    fn drop(&mut self) {
        // SAFETY: nothing reads the tree after this, which runs once.
        let tree = unsafe { ManuallyDrop::take(&mut self.tree) };
        match self.deep {
            true => drop_on_large_stack(tree),
            false => drop(tree),
        }
    }
}
