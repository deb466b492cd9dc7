//! `lead` and `lag` with IGNORE NULLS: DataFusion's evaluation row by row loses count of the rows in gaps (apache/datafusion#25471);
//! that of whole partitions is right, and is what takes place here.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_window::lead_lag::{WindowShift, WindowShiftKind};
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

static LEAD: LazyLock<Arc<WindowUDF>> =
    LazyLock::new(|| Arc::new(WindowUDF::from(Shift { inner: WindowShift::lead() })));
static LAG: LazyLock<Arc<WindowUDF>> =
    LazyLock::new(|| Arc::new(WindowUDF::from(Shift { inner: WindowShift::lag() })));

/// The functions.
pub(crate) fn functions() -> [Arc<WindowUDF>; 2] {
    [Arc::clone(&LEAD), Arc::clone(&LAG)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift {
    inner: WindowShift,
}

impl WindowUDFImpl for Shift {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let whole = args.ignore_nulls();
        let inner = self.inner.partition_evaluator(args)?;
        Ok(if whole { Box::new(Whole { inner }) } else { inner })
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        self.inner.field(args)
    }

    /// The same function: its evaluator turns the offset when it is told that rows come in reverse.
    fn reverse_expr(&self) -> ReversedUDWF {
        ReversedUDWF::Reversed(Arc::clone(match self.inner.kind() {
            WindowShiftKind::Lag => &LAG,
            WindowShiftKind::Lead => &LEAD,
        }))
    }

    /// How far a limit above must let rows through. With IGNORE NULLS, of which nothing is known here, that is any number of rows
    /// for what looks ahead, as does a `lag` of a negative offset.
    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        let back = match args.get(1).map(|e| e.downcast_ref::<Literal>().map(Literal::value)) {
            None => true,
            Some(Some(ScalarValue::Int64(Some(offset)))) => *offset >= 0,
            Some(_) => false,
        };
        match self.inner.kind() {
            WindowShiftKind::Lag if back => LimitEffect::None,
            _ => LimitEffect::Unknown,
        }
    }
}

/// An evaluator that is given whole partitions.
#[derive(Debug)]
struct Whole {
    inner: Box<dyn PartitionEvaluator>,
}

impl PartitionEvaluator for Whole {
    fn evaluate_all(&mut self, values: &[ArrayRef], row_count: usize) -> Result<ArrayRef> {
        self.inner.evaluate_all(values, row_count)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.inner.evaluate(values, range)
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}
