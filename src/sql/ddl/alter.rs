//! ALTER TABLE. A change of the key writes the table anew, in the same transaction.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::Schema;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;

use super::create::{
    ColumnDefinition, check_defaults, column_names, constraint_refused, key_columns,
};
use crate::engine::{
    self, Column, ErrorKind as EngineKind, KeyKind, KeyRange, KeySpec, OnConflict, ScanRequest,
    TableId, TableMeta, TableName, TableSnapshot, Transaction,
};
use crate::sql::cast::{BatchCaster, CastPolicy, ColumnDefault};
use crate::sql::context::{StatementContext, fold};
use crate::sql::dml::refuse;
use crate::sql::{Error, Result, defaults, dml};

/// Runs ALTER TABLE: its operations one after the other.
pub(super) fn alter_table(
    context: &StatementContext,
    transaction: &mut Transaction,
    alter: &ast::AlterTable,
) -> Result<()> {
    refuse(&[
        ("ALTER TABLE ... LOCATION", alter.location.is_some()),
        ("ALTER TABLE ... ON CLUSTER", alter.on_cluster.is_some()),
        ("ALTER of such a table", alter.table_type.is_some()),
    ])?;
    let plan = context.plan_context(&transaction.snapshot());
    let name = context.table_name(&alter.name)?;
    if alter.if_exists
        && plan.snapshot().table(&name).is_none()
        && plan.snapshot().view(&name).is_none()
    {
        return Ok(());
    }
    let mut id = dml::table(&plan, &name)?.id();
    for operation in &alter.operations {
        let mut altering = Altering { context, transaction, id };
        altering.run(operation)?;
        id = altering.id;
    }
    Ok(())
}

/// A table while it is changed.
struct Altering<'a> {
    context: &'a StatementContext,
    transaction: &'a mut Transaction,
    id: TableId,
}

impl Altering<'_> {
    fn run(&mut self, operation: &ast::AlterTableOperation) -> Result<()> {
        use ast::AlterTableOperation as Op;
        match operation {
            Op::RenameTable {
                table_name: ast::RenameTableNameKind::To(name) | ast::RenameTableNameKind::As(name),
            } => self.rename(name),
            Op::RenameColumn { old_column_name, new_column_name } => {
                self.rename_column(&fold(old_column_name), &fold(new_column_name))
            }
            Op::AddColumn { if_not_exists, column_def, column_position: None, .. } => {
                self.add_column(*if_not_exists, column_def)
            }
            Op::DropColumn { column_names, if_exists, drop_behavior, .. } => {
                refuse(&[(
                    "DROP COLUMN ... CASCADE",
                    matches!(drop_behavior, Some(ast::DropBehavior::Cascade)),
                )])?;
                column_names.iter().try_for_each(|c| self.drop_column(&fold(c), *if_exists))
            }
            Op::AlterColumn { column_name, op } => self.alter_column(&fold(column_name), op),
            Op::AddConstraint { constraint, not_valid } => {
                refuse(&[("NOT VALID", *not_valid)])?;
                match constraint {
                    ast::TableConstraint::PrimaryKey(key) => {
                        self.set_key(&KeySpec::primary(key_columns(key)?))
                    }
                    other => Err(constraint_refused(other)),
                }
            }
            Op::ClusterBy { exprs } => self.set_key(&KeySpec::cluster(column_names(exprs)?)),
            other => Err(Error::unsupported(format!("ALTER TABLE ... {other} is not supported"))),
        }
    }

    fn table(&self) -> Result<TableSnapshot> {
        self.transaction
            .snapshot()
            .table_by_id(self.id)
            .ok_or_else(|| Error::internal("the table that is altered is gone"))
    }

    fn alter(&mut self, change: impl FnOnce(&mut TableMeta) -> engine::Result<()>) -> Result<()> {
        Ok(self.transaction.alter_table(self.id, change)?)
    }

    fn rename(&mut self, name: &ast::ObjectName) -> Result<()> {
        let old = self.table()?.meta().name.clone();
        let new = match name.0.as_slice() {
            // A bare name stays in the table's schema, whatever the session's is.
            [ast::ObjectNamePart::Identifier(ident)] => {
                TableName::new(Arc::clone(&old.schema), fold(ident))
            }
            _ => self.context.table_name(name)?,
        };
        let snapshot = self.transaction.snapshot();
        if snapshot.table(&new).is_some() || snapshot.view(&new).is_some() {
            return Err(engine::Error::already_exists(format!("{new} exists"))
                .of(engine::ObjectKind::Table)
                .into());
        }
        if !snapshot.schemas().contains(&new.schema) {
            return Err(engine::Error::not_found(format!("schema {} does not exist", new.schema))
                .of(engine::ObjectKind::Schema)
                .into());
        }
        self.alter(|meta| {
            meta.name = new;
            Ok(())
        })
    }

    fn rename_column(&mut self, old: &str, new: &str) -> Result<()> {
        self.check_free(new)?;
        self.alter(|meta| {
            let column = &mut { meta.column_index(old) }.map(|i| &mut meta.columns[i])?;
            column.field = Arc::new(column.field.as_ref().clone().with_name(new));
            Ok(())
        })
    }

    fn check_free(&self, column: &str) -> Result<()> {
        let table = self.table()?;
        match table.meta().columns.iter().any(|c| c.field.name() == column) {
            false => Ok(()),
            true => Err(engine::Error::already_exists(format!(
                "table {} has a column \"{column}\"",
                table.meta().name
            ))
            .of(engine::ObjectKind::Column)
            .into()),
        }
    }

    fn add_column(&mut self, if_not_exists: bool, definition: &ast::ColumnDef) -> Result<()> {
        let definition = ColumnDefinition::new(definition)?;
        if definition.primary_key {
            return Err(Error::unsupported(
                "ADD COLUMN ... PRIMARY KEY is not supported; use ADD PRIMARY KEY afterwards",
            ));
        }
        let table = self.table()?;
        if if_not_exists && table.meta().columns.iter().any(|c| *c.field.name() == definition.name)
        {
            return Ok(());
        }
        self.check_free(&definition.name)?;
        let field = Arc::new(definition.field()?);
        let column = Column {
            id: table.meta().next_field_id,
            field: Arc::clone(&field),
            default_sql: definition.default.as_ref().map(ToString::to_string),
            initial: None,
        };
        // The default is evaluated once, here, for the rows that exist.
        let mut meta = table.meta().as_ref().clone();
        meta.columns.push(column);
        let plan = self.context.plan_context(&self.transaction.snapshot());
        let initial = match defaults::column_default(&plan, &meta, meta.columns.len() - 1)? {
            ColumnDefault::Constant(value) => value,
            ColumnDefault::PerRow(_) if table.row_count() == 0 => {
                ScalarValue::try_from(field.data_type())?
            }
            ColumnDefault::PerRow(_) => {
                return Err(Error::unsupported(format!(
                    "ADD COLUMN \"{}\": a DEFAULT that differs from row to row is not supported for a table \
                     with rows; add the column without, then use ALTER COLUMN SET DEFAULT and UPDATE",
                    definition.name
                )));
            }
        };
        if initial.is_null() && !field.is_nullable() && table.row_count() > 0 {
            return Err(engine::Error::constraint(format!(
                "table {} has rows, so that a NOT NULL column \"{}\" needs a DEFAULT",
                table.meta().name,
                definition.name
            ))
            .into());
        }
        let initial = if initial.is_null() { None } else { Some(initial.to_array()?) };
        self.alter(|meta| {
            let id = meta.next_field_id;
            meta.next_field_id = id.next();
            meta.columns.push(Column {
                id,
                field,
                default_sql: definition.default.as_ref().map(ToString::to_string),
                initial,
            });
            Ok(())
        })
    }

    fn drop_column(&mut self, name: &str, if_exists: bool) -> Result<()> {
        let table = self.table()?;
        let meta = table.meta();
        let position = match meta.column_index(name) {
            Ok(position) => position,
            Err(e) if if_exists && e.kind() == EngineKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        if meta.key_indices().contains(&position) {
            return Err(engine::Error::invalid(format!(
                "column \"{name}\" is part of the key of table {} and cannot be dropped",
                meta.name
            ))
            .into());
        }
        if meta.columns.len() == 1 {
            return Err(engine::Error::invalid(format!(
                "column \"{name}\" is the only one of table {}; drop the table instead",
                meta.name
            ))
            .into());
        }
        self.alter(|meta| {
            meta.columns.remove(position);
            Ok(())
        })
    }

    fn alter_column(&mut self, name: &str, operation: &ast::AlterColumnOperation) -> Result<()> {
        use ast::AlterColumnOperation as Op;
        let table = self.table()?;
        let position = table.meta().column_index(name)?;
        match operation {
            Op::SetDefault { value } => {
                let text = value.to_string();
                self.alter(|meta| {
                    meta.columns[position].default_sql = Some(text);
                    Ok(())
                })?;
                check_defaults(self.context, self.transaction, self.id)
            }
            Op::DropDefault => self.alter(|meta| {
                meta.columns[position].default_sql = None;
                Ok(())
            }),
            Op::SetNotNull => {
                check_no_nulls(&table, position)?;
                self.set_nullable(position, false)
            }
            Op::DropNotNull if table.meta().key_indices().contains(&position) => {
                Err(engine::Error::invalid(format!(
                    "column \"{name}\" is part of the key of table {} and stays NOT NULL",
                    table.meta().name
                ))
                .into())
            }
            Op::DropNotNull => self.set_nullable(position, true),
            other => {
                Err(Error::unsupported(format!("ALTER COLUMN \"{name}\" {other} is not supported")))
            }
        }
    }

    fn set_nullable(&mut self, position: usize, nullable: bool) -> Result<()> {
        self.alter(|meta| {
            let column = &mut meta.columns[position];
            column.field = Arc::new(column.field.as_ref().clone().with_nullable(nullable));
            Ok(())
        })
    }

    /// Writes the table anew in the order of another key.
    fn set_key(&mut self, key: &KeySpec) -> Result<()> {
        let old = self.table()?;
        let meta = Arc::clone(old.meta());
        if meta.key_kind == KeyKind::Primary {
            return Err(engine::Error::invalid(format!(
                "table {} has a primary key, and a table has one key",
                meta.name
            ))
            .into());
        }
        let name =
            TableName::new(Arc::clone(&meta.name.schema), format!("__omendb_rewrite_{}", meta.id));
        let fields: Vec<_> = meta.columns.iter().map(|c| Arc::clone(&c.field)).collect();
        let id = self.transaction.create_table(&name, &Schema::new(fields), key)?;
        self.transaction.alter_table(id, |new| {
            for (column, old) in new.columns.iter_mut().zip(&meta.columns) {
                column.default_sql.clone_from(&old.default_sql);
            }
            Ok(())
        })?;
        let mut write = self.transaction.write(id, OnConflict::Error)?;
        let all: Vec<usize> = (0..meta.columns.len()).collect();
        // Names the row where a key column is NULL, and the table as users know it.
        let mut checked = write.table().meta().as_ref().clone();
        checked.name = meta.name.clone();
        let mut caster = BatchCaster::by_position(&checked, &all, CastPolicy::Lossless, |_| {
            Err(Error::internal("every column of a table that is rewritten is given"))
        })?;
        for batch in old.scan(&ScanRequest::new(KeyRange::all()))? {
            caster.cast_each(&batch?, |piece| Ok(write.insert(&piece)?))?;
        }
        self.transaction.apply(write).map_err(|e| {
            let message = e.message().replace(&name.to_string(), &meta.name.to_string());
            engine::Error::new(e.kind(), message)
        })?;
        self.transaction.drop_table(self.id)?;
        self.id = id;
        self.alter(|new| {
            new.name = meta.name.clone();
            Ok(())
        })
    }
}

/// Checks that a column of a table holds no NULL.
fn check_no_nulls(table: &TableSnapshot, position: usize) -> Result<()> {
    let request =
        ScanRequest { projection: Some(vec![position]), ..ScanRequest::new(KeyRange::all()) };
    let mut before = 0;
    for batch in table.scan(&request)? {
        let batch = batch?;
        let column = batch.column(0);
        if let Some(nulls) = column.logical_nulls().filter(|n| n.null_count() > 0) {
            let row = (0..nulls.len()).find(|row| nulls.is_null(*row)).unwrap_or(0);
            let meta = table.meta();
            return Err(engine::Error::constraint(format!(
                "table {}: column \"{}\" cannot become NOT NULL, because row {} in key order holds NULL",
                meta.name,
                meta.columns[position].field.name(),
                before + row + 1
            ))
            .into());
        }
        before += batch.num_rows();
    }
    Ok(())
}
