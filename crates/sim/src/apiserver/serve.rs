//! HTTP: connections, routing, and answers as bytes. What a request means stands in the other modules.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::call::{Call, encode, parse_body};
use super::faults::Fault;
use super::refusal::{Refusal, about};
use super::store::Object;
use super::{Shared, discovery, lifecycle, read, watching, write};

/// Accepts connections for ever. Dropping the future ends them all.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&shared), request));
            let server = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = server.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

/// Answers one request; an error breaks the connection.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let full = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let fault = shared.faults.next(&parts.method, full);
    let broken = || io::Error::new(io::ErrorKind::ConnectionReset, "broken by a test");
    match fault {
        Some(Fault::Drop) => return Err(broken()),
        Some(Fault::Refuse(code)) => return Ok(refused(&Refusal::injected(code))),
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::LoseAnswer) | None => {}
    }
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri).map(|query| query.0).unwrap_or_default();
    let answer = route(&shared, &parts.method, parts.uri.path(), query, &parts.headers, &body)
        .unwrap_or_else(|refusal| refused(&refusal));
    if fault == Some(Fault::LoseAnswer) { Err(broken()) } else { Ok(answer) }
}

fn route(
    shared: &Arc<Shared>,
    method: &Method,
    path: &str,
    query: HashMap<String, String>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response<Body>, Refusal> {
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let mut call = {
        let store = shared.store.read();
        if let Some(answer) = discovery::answer(&store, &segments, &shared.address) {
            return answer.map(|value| json_answer(200, value.to_string().into()));
        }
        match segments.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => return Ok(Response::new(Body::from("ok"))),
            ["api", version, rest @ ..] => Call::parse(&store, "", version, rest)?,
            ["apis", group, version, rest @ ..] => Call::parse(&store, group, version, rest)?,
            _ => return Err(Refusal::no_path()),
        }
    };
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().clone_into(&mut call.content_type);
    call.query = query;
    call.writer.manager = match call.param("fieldManager") {
        "" => header(USER_AGENT).split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown").to_owned(),
        manager => manager.to_owned(),
    };
    if method == Method::GET { get(shared, call) } else { act(shared, &call, method, parse_body(body)?) }
}

fn get(shared: &Arc<Shared>, call: Call) -> Result<Response<Body>, Refusal> {
    if call.flag("watch") {
        let stream = watching::start(shared, call)?;
        let mut response = Response::new(Body::from_stream(stream.boxed()));
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        return Ok(response);
    }
    let store = shared.store.read();
    if call.name.is_some() {
        if !["", "status"].contains(&call.sub.as_str()) {
            return Err(Refusal::method());
        }
        let object = call.find(&store)?;
        drop(store);
        return Ok(one(&call, 200, &object));
    }
    let page = read::list(&store, &call)?;
    drop(store);
    Ok(json_answer(200, page.encode(&call).into()))
}

fn act(shared: &Arc<Shared>, call: &Call, method: &Method, body: Value) -> Result<Response<Body>, Refusal> {
    let mut store = shared.store.write();
    let (code, object) = match (method.as_str(), call.name.is_some(), call.sub.as_str()) {
        ("POST", false, _) if call.namespace.is_some() == call.res.namespaced => {
            (201, write::create(&mut store, call, body)?)
        }
        ("POST", true, "binding") => {
            write::bind(&mut store, call, &body)?;
            return Ok(success(201, None));
        }
        ("POST", true, "eviction") => {
            // No controller counts disruptions here, so no budget forbids one.
            lifecycle::delete(&mut store, call, &body["deleteOptions"])?;
            return Ok(success(201, None));
        }
        ("PUT", true, "" | "status" | "finalize") => (200, write::replace(&mut store, call, body)?),
        ("PATCH", true, "" | "status") => {
            let (object, created) = write::patch(&mut store, call, &body)?;
            (if created { 201 } else { 200 }, object)
        }
        ("DELETE", true, "") => {
            let (object, gone) = lifecycle::delete(&mut store, call, &body)?;
            if gone && !call.res.returns_deleted {
                let mut details = about(&call.res, call.name(), &call.res.plural);
                details["uid"] = object.value["metadata"]["uid"].clone();
                return Ok(success(200, Some(details)));
            }
            (200, object)
        }
        ("DELETE", false, _) if !call.res.no_collection => {
            let page = read::list(&store, call)?;
            for key in page.keys() {
                let one = call.of(key);
                lifecycle::delete(&mut store, &one, &body)?;
            }
            return Ok(json_answer(200, page.encode(call).into()));
        }
        _ => return Err(Refusal::method()),
    };
    drop(store);
    Ok(one(call, code, &object))
}

const JSON: axum::http::HeaderValue = axum::http::HeaderValue::from_static("application/json");

fn one(call: &Call, code: u16, object: &Object) -> Response<Body> {
    let mut body = Vec::new();
    encode(&call.res, object, true, &mut body);
    json_answer(code, body.into())
}

fn success(code: u16, details: Option<Value>) -> Response<Body> {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    match details {
        Some(details) => status["details"] = details,
        None => status["code"] = json!(code),
    }
    json_answer(code, status.to_string().into())
}

fn refused(refusal: &Refusal) -> Response<Body> {
    if refusal.reason.is_empty() {
        let mut response = Response::new(Body::from(refusal.message.clone()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    json_answer(refusal.code, refusal.body().to_string().into())
}

fn json_answer(code: u16, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
