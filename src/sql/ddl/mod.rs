//! Definitions: CREATE, ALTER and DROP, compiled to the engine's transactions. A clause that means
//! something and is not implemented is refused by name.

mod alter;
mod create;
mod index;
mod view;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast;

use super::context::{CATALOG, StatementContext, fold};
use super::dml::refuse;
use super::{Error, Outcome, Result};
use crate::engine::{self, ROW_ADDRESS_COLUMN, Transaction};

/// Schemas that the database itself fills.
const RESERVED_SCHEMAS: [&str; 2] = ["information_schema", "omendb"];

/// Runs one statement in `transaction`. Blocks; runs on a worker thread inside the runtime.
pub(crate) fn execute(
    context: &StatementContext,
    transaction: &mut Transaction,
    statement: &ast::Statement,
    parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    if parameters.is_some_and(|p| p.num_columns() > 0) {
        return Err(Error::data("a definition takes no parameters"));
    }
    use ast::Statement as S;
    match statement {
        S::CreateTable(create) => create::create_table(context, transaction, create)?,
        S::CreateView(create) => view::create_view(context, transaction, create)?,
        S::CreateSchema { .. } => create_schema(transaction, statement)?,
        S::AlterTable(alter) => alter::alter_table(context, transaction, alter)?,
        S::Drop { .. } => drop_objects(context, transaction, statement)?,
        S::CreateIndex(create) => index::create_index(context, transaction, create)?,
        other => return Err(Error::unsupported(format!("{other} is not supported"))),
    }
    Ok(Outcome::definition())
}

fn create_schema(transaction: &mut Transaction, statement: &ast::Statement) -> Result<()> {
    let ast::Statement::CreateSchema {
        schema_name,
        if_not_exists,
        with,
        options,
        default_collate_spec,
        clone,
    } = statement
    else {
        return Err(Error::internal("not a CREATE SCHEMA"));
    };
    refuse(&[
        ("CREATE SCHEMA ... WITH", with.is_some()),
        ("CREATE SCHEMA ... OPTIONS", options.is_some()),
        ("CREATE SCHEMA ... DEFAULT COLLATE", default_collate_spec.is_some()),
        ("CREATE SCHEMA ... CLONE", clone.is_some()),
    ])?;
    let ast::SchemaName::Simple(name) = schema_name else {
        return Err(Error::unsupported("CREATE SCHEMA ... AUTHORIZATION is not supported"));
    };
    let name = schema_name_of(name)?;
    if RESERVED_SCHEMAS.contains(&name.as_str()) {
        return Err(engine::Error::already_exists(format!("schema {name} exists"))
            .of(engine::ObjectKind::Schema)
            .into());
    }
    let exists = transaction.snapshot().schemas().iter().any(|s| **s == *name);
    if exists && *if_not_exists {
        return Ok(());
    }
    Ok(transaction.create_schema(&name)?)
}

fn schema_name_of(name: &ast::ObjectName) -> Result<String> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(fold)).collect();
    match parts.as_deref() {
        Some([schema]) => Ok(schema.clone()),
        Some([catalog, schema]) if catalog == CATALOG => Ok(schema.clone()),
        _ => Err(Error::syntax(format!("\"{name}\" is not the name of a schema"))),
    }
}

fn drop_objects(
    context: &StatementContext,
    transaction: &mut Transaction,
    statement: &ast::Statement,
) -> Result<()> {
    let ast::Statement::Drop {
        object_type,
        if_exists,
        names,
        cascade,
        purge,
        temporary,
        table,
        ..
    } = statement
    else {
        return Err(Error::internal("not a DROP"));
    };
    let verb = format!("DROP {object_type}");
    refuse(&[
        (&format!("{verb} ... CASCADE"), *cascade),
        (&format!("{verb} ... PURGE"), *purge),
        ("DROP TEMPORARY", *temporary),
        (&format!("{verb} ... ON"), table.is_some()),
    ])?;
    for name in names {
        match object_type {
            ast::ObjectType::Schema => {
                let name = schema_name_of(name)?;
                let exists = transaction.snapshot().schemas().iter().any(|s| **s == *name);
                if exists || !if_exists {
                    transaction.drop_schema(&name)?;
                }
            }
            ast::ObjectType::Table => {
                let plan = context.plan_context(&transaction.snapshot());
                let name = context.table_name(name)?;
                match plan.snapshot().table(&name) {
                    Some(table) => transaction.drop_table(table.id())?,
                    None if plan.snapshot().view(&name).is_some() => {
                        return Err(engine::Error::invalid(format!(
                            "{name} is a view; use DROP VIEW"
                        ))
                        .into());
                    }
                    None if *if_exists => {}
                    None => return Err(plan.unknown_table(&name)),
                }
            }
            ast::ObjectType::View => view::drop_view(context, transaction, name, *if_exists)?,
            other => return Err(Error::unsupported(format!("DROP {other} is not supported"))),
        }
    }
    Ok(())
}

/// Refuses column names that the database itself uses.
pub(crate) fn check_column_names(schema: &Schema) -> Result<()> {
    match schema.fields().iter().any(|f| f.name() == ROW_ADDRESS_COLUMN) {
        false => Ok(()),
        true => Err(engine::Error::invalid(format!(
            "the column name \"{ROW_ADDRESS_COLUMN}\" is reserved"
        ))
        .into()),
    }
}
