use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;

fn admin() -> Admin {
    Admin { engine: Arc::new(crate::metrics::tests::engine()), metrics: Arc::new(Metrics::new().unwrap()) }
}

async fn ask(method: &str, uri: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = router(admin()).oneshot(request).await.unwrap();
    let code = response.status();
    (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn what_is_there_is_listed() {
    assert_eq!(ask("GET", "/readyz", "").await.0, StatusCode::OK);
    let (code, pools) = ask("GET", "/v1/pools", "").await;
    assert_eq!(code, StatusCode::OK);
    assert!(pools.contains("\"fast\""), "{pools}");
    assert_eq!(ask("GET", "/v1/volumes", "").await.1, "[]");
}

#[tokio::test]
async fn a_wrong_order_names_the_object_and_the_way_out() {
    let by = r#"{"by":"ann"}"#;
    let (code, text) = ask("POST", "/v1/volumes/nosuch/retry", by).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(text.contains("nosuch") && text.contains("bedplate volumes"), "{text}");
    let (code, text) = ask("POST", "/v1/volumes/a%0Ab/retry", by).await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{text}");
    let (code, text) = ask("POST", "/v1/volumes/v/explode", by).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(text.contains("use retry"), "{text}");
    let (code, text) = ask("POST", "/v1/pools/fast/adopt", by).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(text.contains("`file`"), "{text}");
    let (code, text) = ask("POST", "/v1/pools/fast/adopt", r#"{"by":"ann","file":"../x.img"}"#).await;
    assert_eq!(code, StatusCode::NOT_FOUND, "{text}");
}
