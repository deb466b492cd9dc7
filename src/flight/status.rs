//! The only place that maps errors to gRPC codes.

use tonic::{Code, Status};

use crate::engine;
use crate::sql;

/// The status that a client gets for a SQL error.
pub(crate) fn from_sql(e: sql::Error) -> Status {
    use crate::sql::ErrorKind as Kind;
    let code = match e.kind() {
        Kind::Syntax | Kind::Data => Code::InvalidArgument,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Refused => Code::PermissionDenied,
        Kind::Cancelled => Code::Cancelled,
        Kind::TimedOut => Code::DeadlineExceeded,
        Kind::State => Code::FailedPrecondition,
        Kind::Engine(kind) => engine_code(kind),
    };
    report(code, e.to_string())
}

/// The status that a client gets for an engine error.
pub(crate) fn from_engine(e: engine::Error) -> Status {
    report(engine_code(e.kind()), e.message().to_owned())
}

/// The status for an Arrow error on data that this server made itself.
pub(crate) fn from_arrow(e: arrow::error::ArrowError) -> Status {
    report(Code::Internal, format!("arrow: {e}"))
}

fn engine_code(kind: engine::ErrorKind) -> Code {
    use crate::engine::ErrorKind as Kind;
    match kind {
        Kind::InvalidArgument | Kind::Constraint => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists | Kind::DuplicateKey => Code::AlreadyExists,
        Kind::Conflict => Code::Aborted,
        Kind::Unsupported => Code::Unimplemented,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::Corruption => Code::DataLoss,
        Kind::ReadOnly | Kind::Locked | Kind::Closed => Code::Unavailable,
        Kind::OutcomeUnknown => Code::Unknown,
        Kind::Io | Kind::Internal => Code::Internal,
    }
}

/// Logs what an operator must know of; messages carry names and offsets, never values of SQL literals.
fn report(code: Code, message: String) -> Status {
    match code {
        Code::DataLoss | Code::Internal | Code::Unknown => tracing::error!("{message}"),
        Code::Unavailable | Code::ResourceExhausted => tracing::warn!("{message}"),
        _ => {}
    }
    Status::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_a_client_can_do() {
        let conflict = from_engine(engine::Error::new(engine::ErrorKind::Conflict, "t: key 1"));
        assert_eq!((conflict.code(), conflict.message()), (Code::Aborted, "t: key 1"));
        let missing: sql::Error = engine::Error::not_found("no table \"t\"").into();
        assert_eq!(from_sql(missing).code(), Code::NotFound);
        let syntax = sql::Error::new(sql::ErrorKind::Syntax, "expected FROM");
        assert_eq!(from_sql(syntax).code(), Code::InvalidArgument);
    }
}
