//! DEFAULT expressions of columns: kept as SQL text, evaluated once a statement where they are constant.

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;

use super::cast::{CastPolicy, ColumnDefault, cast_array, cast_error};
use super::context::PlanContext;
use super::dialect::OmenDialect;
use super::dml::evaluate::prepare;
use super::error::{Error, Result};
use crate::engine::{Column, TableMeta};

/// The expression of a DEFAULT; NULL where there is none.
pub(crate) fn expression(column: &Column) -> Result<ast::Expr> {
    match &column.default_sql {
        None => Ok(ast::Expr::value(ast::Value::Null)),
        Some(sql) => parse(sql),
    }
}

fn parse(sql: &str) -> Result<ast::Expr> {
    Parser::new(&OmenDialect)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|e| Error::internal(format!("the DEFAULT {sql} cannot be read: {e}")))
}

/// What a column gets where a statement gives it no value.
pub(crate) fn column_default(
    context: &PlanContext,
    meta: &TableMeta,
    column: usize,
) -> Result<ColumnDefault> {
    let column = &meta.columns[column];
    let data_type = column.field.data_type();
    if column.default_sql.is_none() {
        return Ok(ColumnDefault::Constant(ScalarValue::try_from(data_type)?));
    }
    let default = compile(context, &expression(column)?)?;
    let ColumnDefault::Constant(value) = &default else {
        return Ok(default);
    };
    let given = value.to_array_of_size(1)?;
    let cast = cast_array(&given, data_type, CastPolicy::Assign).map_err(|f| {
        let error = cast_error(&meta.name.to_string(), &column.field, &given, &f, |row| row as u64);
        Error::new(error.code(), format!("the DEFAULT of a column: {}", error.message()))
    })?;
    Ok(ColumnDefault::Constant(ScalarValue::try_from_array(&cast, 0)?))
}

/// Compiles a DEFAULT, with the checks of one: it refers to no column and no table.
pub(crate) fn compile(context: &PlanContext, expression: &ast::Expr) -> Result<ColumnDefault> {
    let none = DFSchema::empty();
    let planned = context.expression(expression, &none)?;
    let has_parameter = datafusion::common::tree_node::TreeNode::exists(&planned, |e| {
        Ok(matches!(e, Expr::Placeholder(_)))
    })?;
    if has_parameter {
        return Err(Error::unsupported("a parameter in DEFAULT is not supported"));
    }
    match prepare(context, planned, &none, None, "DEFAULT")? {
        Expr::Literal(value, _) => Ok(ColumnDefault::Constant(value)),
        other => Ok(ColumnDefault::PerRow(context.state().create_physical_expr(other, &none)?)),
    }
}
