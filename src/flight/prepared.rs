//! Prepared statements. A handle carries its SQL and what is bound to it, so it works on any connection and after a
//! restart. Clients that do not take the new handle which binding returns find their parameters kept by the old one's id.

use arrow_flight::sql::DoPutPreparedStatementResult;
use prost::Message;
use tonic::Status;

use super::encode::schema_message;
use super::kept::Batches;
use super::parameters::{Parameters, Received};
use super::proto;
use super::service::{State, parameter_schema, wire_schema, within};
use super::session::Call;
use super::statement::Bound;
use super::{status, ticket};
use crate::sql::{Code, StatementKind, TransactionId, Within};

impl State {
    /// Prepares a statement: checks it, executes nothing.
    pub(super) async fn prepare(
        &self,
        call: &Call,
        request: arrow_flight::sql::ActionCreatePreparedStatementRequest,
    ) -> Result<proto::ActionCreatePreparedStatementResult, Status> {
        let transaction_id = request.transaction_id.unwrap_or_default();
        let within = within(Some(&transaction_id), Within::Session);
        let prepared = call
            .session
            .sql
            .prepare_within(within, &request.query)
            .await
            .map_err(status::from_sql)?;
        let schema = wire_schema(call, &prepared.schema());
        let returns_rows = prepared.kind() == StatementKind::Query || !schema.fields().is_empty();
        let handle = proto::PreparedHandle {
            id: ticket::new_id().to_vec(),
            statement: Some(proto::Statement { sql: request.query, parameters: Vec::new() }),
            parameters_kept: false,
            session_id: match transaction_id.is_empty() {
                true => Vec::new(),
                false => call.session.id.as_bytes().to_vec(),
            },
            transaction_id: transaction_id.to_vec(),
        };
        Ok(proto::ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.encode_to_vec(),
            // Clients that do not know `is_update` take a missing schema for an update.
            dataset_schema: if returns_rows { schema_message(&schema)?.into() } else { Vec::new() },
            parameter_schema: schema_message(&parameter_schema(call, &prepared.parameters()))?
                .into(),
            is_update: Some(!returns_rows),
        })
    }

    /// The statement that a handle names, with its parameters. One that was prepared in a transaction runs in that, and after
    /// its end in the next one of the session: clients go on using their statements.
    pub(super) fn resolve(&self, call: &Call, handle: &[u8]) -> Result<Bound, Status> {
        let handle = ticket::decode_prepared(handle)?;
        let id = ticket::parse_id(&handle.id)?;
        let statement = handle.statement.unwrap_or_default();
        let mut bound = Bound::new(statement.sql, Within::Session);
        if !handle.transaction_id.is_empty() {
            let session = &call.session.sql;
            let transaction = TransactionId::parse(&handle.transaction_id);
            bound.within = match session.is_open(transaction) {
                true => Within::Named(transaction),
                false => Within::Any,
            };
            bound.stray =
                handle.session_id != call.session.id.as_bytes() && !session.in_transaction();
        }
        if let Some(parameters) = Parameters::carried(statement.parameters) {
            bound.parameters = Some(parameters);
        } else if let Some(kept) = self.parameters.get(&id) {
            self.parameters.taken(&id);
            bound.parameters =
                kept.batches.first().map(|batch| Parameters::Batch(batch.clone(), Some(id)));
        } else if handle.parameters_kept {
            return Err(status::new(
                Code::InvalidCursorName,
                "the parameters of the prepared statement are not kept any more; bind them again",
            ));
        }
        Ok(bound)
    }

    /// Binds parameters to a prepared statement, or none, in place of those before.
    pub(super) fn bind(
        &self,
        handle: &[u8],
        parameters: Option<Received>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut handle = ticket::decode_prepared(handle)?;
        let id = ticket::parse_id(&handle.id)?;
        let inline = parameters.as_ref().map(Received::carried).transpose()?;
        handle.parameters_kept = matches!(inline, Some(None));
        if let Some(statement) = &mut handle.statement {
            statement.parameters = inline.flatten().unwrap_or_default();
        }
        match parameters {
            Some(Received { batch, .. }) => {
                let kept = Batches { schema: batch.schema(), batches: vec![batch] };
                self.parameters.put(id, kept, self.options.session_idle)?;
            }
            None => {
                self.parameters.remove(&id);
            }
        }
        Ok(DoPutPreparedStatementResult {
            prepared_statement_handle: Some(handle.encode_to_vec().into()),
        })
    }

    /// Forgets what is kept for a prepared statement.
    pub(super) fn close_prepared(&self, handle: &[u8]) -> Result<(), Status> {
        let handle = ticket::decode_prepared(handle)?;
        self.parameters.remove(&ticket::parse_id(&handle.id)?);
        Ok(())
    }
}
