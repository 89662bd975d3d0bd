//! The load: closed loop, totals printed as JSON lines.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};

use crate::Outcome;

/// A visit that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the visitor prints.
#[derive(Default, Serialize)]
struct Totals {
    visits: u64,
    failures: u64,
    last_failure: Option<String>,
    carts: BTreeMap<String, u64>,
    replicas: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Visit {
    replica: String,
    cart: String,
}

type Http = Client<HttpConnector, Empty<Bytes>>;

pub async fn run(url: String, concurrency: usize, pause: Duration) -> Outcome {
    let totals = Rc::new(RefCell::new(Totals::default()));
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let local = tokio::task::LocalSet::new();
    for n in 0..concurrency {
        let (totals, http, url) = (totals.clone(), http.clone(), url.clone());
        local.spawn_local(async move {
            for visit in n.. {
                let outcome = tokio::time::timeout(TIMEOUT, call(&http, &url, visit)).await;
                let outcome =
                    outcome.unwrap_or_else(|_| Err(format!("no answer in {TIMEOUT:?}").into()));
                note(&mut totals.borrow_mut(), outcome);
                tokio::time::sleep(pause).await;
            }
        });
    }
    local
        .run_until(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(500));
            loop {
                tick.tick().await;
                println!("{}", serde_json::to_string(&*totals.borrow())?);
            }
        })
        .await
}

fn note(totals: &mut Totals, outcome: Result<Visit, Box<dyn std::error::Error + Send + Sync>>) {
    totals.visits += 1;
    match outcome {
        Ok(visit) => {
            *totals.carts.entry(visit.cart).or_default() += 1;
            *totals.replicas.entry(visit.replica).or_default() += 1;
        }
        Err(failure) => {
            totals.failures += 1;
            totals.last_failure = Some(failure.to_string());
        }
    }
}

async fn call(
    http: &Http,
    url: &str,
    visit: usize,
) -> Result<Visit, Box<dyn std::error::Error + Send + Sync>> {
    let response = http.get(format!("{url}/{}", visit % 1000).parse()?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(serde_json::from_slice(&body)?)
}
