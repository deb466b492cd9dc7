//! SHOW and DESCRIBE as queries over the system tables.

use datafusion::sql::sqlparser::ast::{self, Statement as S};

use super::code::Code;
use super::context::{PlanContext, fold};
use super::error::{Error, Result};
use super::parse::{self, Statement};
use crate::engine::TableName;

/// The query that answers a SHOW or DESCRIBE.
pub(crate) fn as_query(
    context: &PlanContext,
    statement: &ast::Statement,
) -> Result<ast::Statement> {
    let sql = match statement {
        S::ShowTables { show_options, extended: false, full: false, .. } => {
            let condition = restriction(context, show_options, "table_schema", "table_name")?;
            format!(
                "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables \
                 WHERE {condition} ORDER BY table_schema, table_name"
            )
        }
        S::ShowViews { show_options, .. } => {
            let condition = restriction(context, show_options, "table_schema", "table_name")?;
            format!(
                "SELECT table_catalog, table_schema, table_name, view_definition FROM information_schema.views \
                 WHERE {condition} ORDER BY table_schema, table_name"
            )
        }
        S::ShowSchemas { show_options, .. } if is_plain(show_options) => {
            "SELECT schema_name FROM information_schema.schemata ORDER BY schema_name".to_owned()
        }
        S::ShowColumns { show_options, .. } => {
            let Some(ast::ShowStatementIn { parent_name: Some(name), .. }) = &show_options.show_in
            else {
                return Err(Error::syntax("SHOW COLUMNS needs FROM and a table"));
            };
            columns(context, name)?
        }
        S::ExplainTable { table_name, .. } => columns(context, table_name)?,
        S::ShowVariable { variable } => variables(variable)?,
        other => return Err(Error::unsupported(format!("{other} is not supported"))),
    };
    match parse::parse_one(&sql, context.statement().database.options())? {
        Statement::Query(query) => Ok((**query).clone()),
        _ => Err(Error::internal("SHOW did not become a query")),
    }
}

fn is_plain(options: &ast::ShowStatementOptions) -> bool {
    options.show_in.is_none()
        && options.starts_with.is_none()
        && options.limit.is_none()
        && options.limit_from.is_none()
        && options.filter_position.is_none()
}

/// The condition that SHOW ... [IN schema] [LIKE pattern] means.
fn restriction(
    context: &PlanContext,
    options: &ast::ShowStatementOptions,
    schema: &str,
    name: &str,
) -> Result<String> {
    use ast::{ShowStatementFilter as F, ShowStatementFilterPosition as P};
    if options.starts_with.is_some() || options.limit.is_some() || options.limit_from.is_some() {
        return Err(Error::unsupported("SHOW takes IN and LIKE only"));
    }
    let mut condition = match options.show_in.as_ref().and_then(|i| i.parent_name.as_ref()) {
        Some(parent) => {
            let parts: Vec<String> =
                parent.0.iter().filter_map(|p| p.as_ident().map(fold)).collect();
            let parent = parts.last().map(String::as_str).unwrap_or_default();
            if !super::system::schemas(context.snapshot()).iter().any(|s| **s == *parent) {
                let message = format!("schema \"{parent}\" does not exist");
                return Err(Error::new(Code::InvalidSchemaName, message));
            }
            format!("{schema} = {}", text(parent))
        }
        None => format!("{schema} NOT IN ('information_schema', 'omendb')"),
    };
    match &options.filter_position {
        None => {}
        Some(P::Infix(F::Like(pattern)) | P::Suffix(F::Like(pattern))) => {
            condition.push_str(&format!(" AND {name} LIKE {}", text(pattern)));
        }
        Some(P::Infix(F::ILike(pattern)) | P::Suffix(F::ILike(pattern))) => {
            condition.push_str(&format!(" AND {name} ILIKE {}", text(pattern)));
        }
        Some(_) => return Err(Error::unsupported("SHOW takes IN and LIKE only")),
    }
    Ok(condition)
}

fn columns(context: &PlanContext, name: &ast::ObjectName) -> Result<String> {
    let TableName { schema, name } = context.statement().table_name(name)?;
    // Names a table that does not exist.
    context.provider(&TableName::new(schema.as_ref(), name.as_ref()))?;
    Ok(format!(
        "SELECT c.column_name, c.data_type, c.is_nullable, c.column_default, k.key FROM information_schema.columns AS c \
         LEFT JOIN (SELECT u.table_schema, u.table_name, u.column_name, t.constraint_type AS key \
         FROM information_schema.key_column_usage AS u JOIN information_schema.table_constraints AS t \
         ON u.constraint_name = t.constraint_name AND u.table_schema = t.table_schema AND u.table_name = t.table_name) AS k \
         ON c.table_schema = k.table_schema AND c.table_name = k.table_name AND c.column_name = k.column_name \
         WHERE c.table_schema = {} AND c.table_name = {} ORDER BY c.ordinal_position",
        text(&schema),
        text(&name)
    ))
}

fn variables(variable: &[ast::Ident]) -> Result<String> {
    let name = super::settings::name(variable);
    if name == "all" {
        return Ok("SELECT name, value, description FROM omendb.settings ORDER BY name".to_owned());
    }
    super::settings::check_name(&name)?;
    Ok(format!(
        "SELECT value AS {} FROM omendb.settings WHERE name = {}",
        super::error::quote(&name),
        text(&name)
    ))
}

/// A string literal.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
