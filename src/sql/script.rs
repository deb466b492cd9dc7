//! Scripts: several statements in one text. They are one transaction, unless they say BEGIN.

use std::sync::Arc;

use super::context::StatementContext;
use super::parse::{self, Statement};
use super::queries::RunningQuery;
use super::session::execute_in;
use super::settings::Settings;
use super::transaction::{Control, Within};
use super::{Outcome, Result, Session};
use crate::engine::Transaction;

/// A part of a script.
enum Step {
    /// A statement about transactions.
    Control(Control),
    /// Statements between two of those.
    Statements(Arc<[Statement]>),
}

impl Session {
    /// Runs the statements of a script; the affected rows are their sum. A query among them runs and its rows are
    /// dropped.
    ///
    /// In a transaction, the script is part of it. Else it is one transaction, or, where it says BEGIN and COMMIT,
    /// several: what lies between two of those is one. A transaction that the script began and did not end stays
    /// open, unless the script fails.
    pub async fn execute_script(&self, within: Within, sql: &str) -> Result<Outcome> {
        let options = self.database().options().clone();
        let text = sql.to_owned();
        let place = self.database().admission().short.enter().await?;
        let parse = move || {
            let _place = place;
            parse::parse_script(&text, &options).map(steps)
        };
        let steps = self.database().workers().run(parse).await?;
        let running = self.begin_query(sql);
        let mut begun = Begun { session: self, within, open: false };
        let mut affected: Option<u64> = None;
        for step in steps {
            match step {
                Step::Control(control) => {
                    let outside = !self.in_sql_transaction();
                    self.control(within, &control).await?;
                    begun.open = match control {
                        Control::Begin(_) => begun.open || outside,
                        _ => begun.open && self.in_sql_transaction(),
                    };
                }
                Step::Statements(statements) => {
                    if let Some(count) = self.run_statements(&running, within, statements).await? {
                        affected = Some(affected.unwrap_or(0) + count);
                    }
                }
            }
        }
        begun.open = false;
        Ok(Outcome { affected_count: affected, returned: None, held: None })
    }

    async fn run_statements(
        &self,
        running: &RunningQuery,
        within: Within,
        statements: Arc<[Statement]>,
    ) -> Result<Option<u64>> {
        // What the part before has committed is no longer of concern.
        running.query().begin_again();
        let context = self.context().running(running.query());
        let before = context.settings.clone();
        // What stops others must not wait for them.
        let light = |s: &Statement| matches!(s, Statement::Cancel(_) | Statement::Set(_));
        if statements.iter().all(light) {
            running.admit_by(&self.database().admission().system).await?;
        }
        let work =
            move |transaction: &mut Transaction| run_all(context.clone(), transaction, &statements);
        let changed = self.change(running, within, work).await;
        running.leave();
        let (affected, settings) = changed?;
        if settings != before {
            self.set_settings(settings);
        }
        Ok(affected)
    }
}

fn run_all(
    mut context: StatementContext,
    transaction: &mut Transaction,
    statements: &[Statement],
) -> Result<(Option<u64>, Settings)> {
    let mut affected: Option<u64> = None;
    for statement in statements {
        if let Statement::Set(set) = statement {
            context.settings.apply(set, &transaction.snapshot())?;
            continue;
        }
        let outcome = execute_in(&context, transaction, statement, None)?;
        if let Some(count) = outcome.affected_count {
            affected = Some(affected.unwrap_or(0) + count);
        }
    }
    Ok((affected, context.settings))
}

fn steps(statements: Vec<Statement>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut between = Vec::new();
    for statement in statements {
        match statement {
            Statement::Control(control) => {
                if !between.is_empty() {
                    steps.push(Step::Statements(std::mem::take(&mut between).into()));
                }
                steps.push(Step::Control(control));
            }
            other => between.push(other),
        }
    }
    if !between.is_empty() {
        steps.push(Step::Statements(between.into()));
    }
    steps
}

/// Ends the transaction that a script began, where the script fails or its call is cancelled.
struct Begun<'a> {
    session: &'a Session,
    within: Within,
    open: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.open && self.within == Within::Session {
            self.session.abandon_sql_transaction();
        }
    }
}
