//! CREATE INDEX: there is no index but that of the key. One on columns that the key begins with is there already; any other is
//! refused, rather than read and ignored.

use datafusion::sql::sqlparser::ast;

use crate::engine::{KeyKind, TableMeta, Transaction};
use crate::sql::context::{StatementContext, fold};
use crate::sql::dml::refuse;
use crate::sql::{Error, Result};

/// Runs CREATE INDEX: it does nothing, or fails.
pub(super) fn create_index(
    context: &StatementContext,
    transaction: &Transaction,
    create: &ast::CreateIndex,
) -> Result<()> {
    refuse(&[
        ("CREATE INDEX ... INCLUDE", !create.include.is_empty()),
        ("CREATE INDEX ... WHERE", create.predicate.is_some()),
        ("CREATE INDEX ... WITH", !create.with.is_empty()),
        ("CREATE INDEX ... NULLS NOT DISTINCT", create.nulls_distinct == Some(false)),
    ])?;
    let name = context.table_name(&create.table_name)?;
    let plan_context = context.plan_context(&transaction.snapshot());
    let table = plan_context.table(&name).ok_or_else(|| plan_context.unknown_table(&name))?;
    if is_given_by_key(table.meta(), create) {
        return Ok(());
    }
    let list = create.columns.iter().map(|c| c.column.expr.to_string()).collect::<Vec<_>>();
    Err(Error::unsupported(format!(
        "CREATE INDEX on {name} ({}) is not supported: a table is indexed by its key alone. Let the key begin with these \
         columns (ALTER TABLE ... CLUSTER BY), or keep a second table with such a key",
        list.join(", ")
    )))
}

/// Whether the key begins with the columns of an index, and is unique where the index is to be.
fn is_given_by_key(meta: &TableMeta, create: &ast::CreateIndex) -> bool {
    let key: Vec<&str> =
        meta.key_indices().into_iter().map(|i| meta.columns[i].field.name().as_str()).collect();
    let columns: Option<Vec<String>> = create
        .columns
        .iter()
        .map(|column| match &column.column.expr {
            ast::Expr::Identifier(ident) if column.operator_class.is_none() => Some(fold(ident)),
            _ => None,
        })
        .collect();
    let Some(columns) = columns else { return false };
    let begins = columns.len() <= key.len() && columns.iter().zip(&key).all(|(c, k)| c == k);
    let unique = meta.key_kind == KeyKind::Primary && columns.len() == key.len();
    begins && !columns.is_empty() && (!create.unique || unique)
}
