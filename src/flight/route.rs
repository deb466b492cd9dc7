//! What lies between HTTP and the Flight service: request streams are watched for their end, and DoGet has a body of its own.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::server::NamedService;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::body::RowsBody;
use super::complete::{self, Watched};
use super::inflow::{self, Measured};
use super::service::Service;
use super::status;
use crate::sql::Code;

const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// The gRPC service to add to a server.
#[derive(Debug, Clone)]
pub struct FlightServer {
    service: Service,
    generated: FlightServiceServer<Service>,
}

impl FlightServer {
    pub(super) fn new(service: Service) -> Self {
        // A row may be of any size, so what goes out is not limited.
        let generated = FlightServiceServer::new(service.clone())
            .max_decoding_message_size(service.max_message_bytes())
            .max_encoding_message_size(usize::MAX);
        Self { service, generated }
    }
}

impl NamedService for FlightServer {
    const NAME: &'static str = <FlightServiceServer<Service> as NamedService>::NAME;
}

type Answer = Result<http::Response<tonic::body::Body>, Infallible>;

impl<B> tower::Service<http::Request<B>> for FlightServer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    Watched<Measured<B>>: Body<Data = Bytes, Error = <Measured<B> as Body>::Error>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let budget = &self.service.memory().incoming;
        let request = inflow::measure(request, budget, self.service.max_message_bytes());
        if request.uri().path() == DO_GET {
            let service = self.service.clone();
            return Box::pin(async move {
                Ok(do_get(&service, request).await.unwrap_or_else(Status::into_http))
            });
        }
        let answer = self.generated.call(complete::watch(request));
        Box::pin(async move { answer.await.map(status::mend) })
    }
}

/// Answers DoGet as the generated service would, but for the copies.
async fn do_get<B>(
    service: &Service,
    request: http::Request<B>,
) -> Result<http::Response<tonic::body::Body>, Status>
where
    B: Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let decoder = ProstCodec::<(), Ticket>::default().decoder();
    let limit = Some(service.max_message_bytes());
    let mut messages = Streaming::new_request(decoder, body, None, limit);
    let ticket = messages
        .message()
        .await
        .map_err(status::of_message)?
        .ok_or_else(|| status::new(Code::InternalError, "the call has no ticket"))?;
    let metadata = MetadataMap::from_headers(parts.headers);
    let rows = service.rows(Request::from_parts(metadata, parts.extensions, ticket)).await?;
    let (metadata, stream, extensions) = rows.into_parts();
    let mut response = http::Response::new(tonic::body::Body::new(RowsBody::new(stream)));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    *response.extensions_mut() = extensions;
    Ok(response)
}
