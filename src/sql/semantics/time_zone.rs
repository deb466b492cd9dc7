//! The session's time zone: text without an offset that becomes a TIMESTAMPTZ is a time there. Instants themselves are stored
//! and returned in UTC, unless a CAST makes them.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::cast::{CastPolicy, Failure, cast_array};
use crate::sql::types::UTC;

/// A session's time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeZone(Arc<str>);

impl TimeZone {
    pub(crate) fn new(name: &Arc<str>) -> Self {
        Self(Arc::clone(name))
    }

    pub(crate) fn utc() -> Self {
        Self(Arc::from(UTC))
    }

    /// Whether text is read as it would be without any zone.
    pub(crate) fn is_utc(&self) -> bool {
        *self.0 == *UTC
    }

    /// The type that SQL's name of `data_type` means in a cast.
    pub(crate) fn in_cast(&self, data_type: DataType) -> DataType {
        match data_type {
            DataType::Timestamp(unit, Some(_)) => {
                DataType::Timestamp(unit, Some(Arc::clone(&self.0)))
            }
            other => other,
        }
    }

    /// [`cast_array`] of what a statement gives: text is read in this zone.
    pub(crate) fn cast_array(
        &self,
        given: &ArrayRef,
        to: &DataType,
        policy: CastPolicy,
    ) -> Result<ArrayRef, Failure> {
        match to {
            DataType::Timestamp(_, Some(_)) if !self.is_utc() && is_text(given.data_type()) => {
                cast_array(&cast_array(given, &self.in_cast(to.clone()), policy)?, to, policy)
            }
            _ => cast_array(given, to, policy),
        }
    }

    /// A text as a value of a type with a zone; `None` where it is no such text, or cannot be read.
    fn read(&self, value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
        if value.is_null() || !is_text(&value.data_type()) {
            return None;
        }
        let array = self.cast_array(&value.to_array().ok()?, to, CastPolicy::Assign).ok()?;
        ScalarValue::try_from_array(&array, 0).ok()
    }
}

/// Whether values of the type are text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Reads text that is compared with a TIMESTAMPTZ in the session's zone. DataFusion would read it in the zone of the other
/// side, which is UTC for every column.
#[derive(Debug)]
pub(crate) struct TextInTimeZone;

impl AnalyzerRule for TextInTimeZone {
    fn name(&self) -> &str {
        "TextInTimeZone"
    }

    fn analyze(
        &self,
        plan: LogicalPlan,
        config: &ConfigOptions,
    ) -> datafusion::error::Result<LogicalPlan> {
        let Some(zone) = config.execution.time_zone.as_deref().map(Arc::from) else {
            return Ok(plan);
        };
        let zone = TimeZone::new(&zone);
        if zone.is_utc() {
            return Ok(plan);
        }
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            // A scan's own filters name its columns.
            let schema = match node.inputs().is_empty() {
                true => node.schema().as_ref().clone(),
                false => schema,
            };
            node.map_expressions(|expr| expr.transform_up(|expr| Ok(rewrite(expr, &schema, &zone))))
        })?;
        Ok(plan.data)
    }
}

fn rewrite(expr: Expr, schema: &DFSchema, zone: &TimeZone) -> Transformed<Expr> {
    let zoned = |expr: &Expr| match expr.get_type(schema) {
        Ok(data_type @ DataType::Timestamp(_, Some(_))) => Some(data_type),
        _ => None,
    };
    let read = |expr: &Expr, to: &DataType| match expr {
        Expr::Literal(value, metadata) => {
            Some(Expr::Literal(zone.read(value, to)?, metadata.clone()))
        }
        _ => None,
    };
    let or_same = |expr: Box<Expr>, to: &DataType| match read(&expr, to) {
        Some(read) => Box::new(read),
        None => expr,
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let (left, right) = match (zoned(&left), zoned(&right)) {
                (Some(to), None) => (left, or_same(right, &to)),
                (None, Some(to)) => (or_same(left, &to), right),
                _ => (left, right),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (low, high) = match zoned(&expr) {
                Some(to) => (or_same(low, &to), or_same(high, &to)),
                None => (low, high),
            };
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list = match zoned(&expr) {
                Some(to) => list.into_iter().map(|item| read(&item, &to).unwrap_or(item)).collect(),
                None => list,
            };
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        other => Transformed::no(other),
    }
}
