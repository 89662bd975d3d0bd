//! Whether a user may do something to workloads: by a SubjectAccessReview, whose answer is good for some
//! seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::Request;
use http::header::CONTENT_TYPE;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::call::{CallError, FailureLog, Right, call};
use super::from_now;
use super::front_proxy::ForwardedUser;
use crate::metrics::Metrics;

/// The API group of the resources that are asked about.
pub const GROUP: &str = "inspect.mesh.anyam.dev";
pub const RESOURCE: &str = "workloads";

const REVIEW: Right = Right::new("create", "subjectaccessreviews.authorization.k8s.io");

/// From a request's arrival to the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer is good: within it a right that was withdrawn still holds.
const ALLOWED: Duration = Duration::from_secs(10);
const DENIED: Duration = Duration::from_secs(5);
const MAX_ANSWERS: usize = 4096;
/// Reviews that are under way.
const AT_ONCE: usize = 16;

/// What is asked about; empty stands for all.
#[derive(Clone, Copy, Debug)]
pub struct AccessQuestion<'a> {
    pub verb: &'static str,
    pub namespace: &'a str,
    pub workload: &'a str,
}

/// Why it is not known whether a user may.
#[derive(Debug, thiserror::Error)]
pub enum AccessReviewError {
    #[error("too many rights are under examination")]
    Busy,
    #[error("{0}")]
    Call(CallError),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AccessAnswer {
    status: AccessStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AccessStatus {
    allowed: bool,
    denied: bool,
}

type Digest = [u8; 32];

/// Answers that are good for a while yet, by the digest of what was asked.
#[derive(Default)]
struct RecentAnswers(HashMap<Digest, (bool, Instant)>);

impl RecentAnswers {
    fn find(&self, question: &Digest, now: Instant) -> Option<bool> {
        let (allowed, until) = self.0.get(question)?;
        (*until > now).then_some(*allowed)
    }

    /// When there is no room, the answer is not kept.
    fn keep(&mut self, question: Digest, allowed: bool, now: Instant) {
        if self.0.len() >= MAX_ANSWERS {
            self.0.retain(|_, (_, until)| *until > now);
        }
        let until = now.checked_add(if allowed { ALLOWED } else { DENIED });
        if let Some(until) = until.filter(|_| self.0.len() < MAX_ANSWERS) {
            self.0.insert(question, (allowed, until));
        }
    }
}

/// Asks the API server about rights.
pub struct AccessReviews {
    client: Client,
    at_once: Semaphore,
    answers: Mutex<RecentAnswers>,
    failures: Mutex<FailureLog>,
    metrics: Arc<Metrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AccessReviews {
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        AccessReviews {
            client,
            at_once: Semaphore::new(AT_ONCE),
            answers: Mutex::default(),
            failures: Mutex::new(FailureLog::new("examining the rights of users")),
            metrics,
        }
    }

    /// # Errors
    /// When the API server does not say.
    pub async fn is_allowed(
        &self,
        user: &ForwardedUser,
        question: AccessQuestion<'_>,
    ) -> Result<bool, AccessReviewError> {
        let review = review(user, question).to_string();
        let key = key(&review);
        if let Some(known) = lock(&self.answers).find(&key, Instant::now()) {
            return Ok(known);
        }
        let outcome = self.ask(review).await;
        let label = match &outcome {
            Ok(true) => "allowed",
            Ok(false) => "denied",
            Err(_) => "unavailable",
        };
        self.metrics
            .access_reviews
            .with_label_values(&[label])
            .inc();
        if let Ok(allowed) = &outcome {
            lock(&self.answers).keep(key, *allowed, Instant::now());
        }
        outcome
    }

    async fn ask(&self, review: String) -> Result<bool, AccessReviewError> {
        let deadline = from_now(DEADLINE);
        let _permit = match timeout_at(deadline, self.at_once.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) | Err(_) => return Err(AccessReviewError::Busy),
        };
        let asked = async {
            let request = Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
                .header(CONTENT_TYPE, "application/json")
                .body(review.into_bytes())
                .map_err(kube::Error::HttpError)?;
            self.client.request::<AccessAnswer>(request).await
        };
        let within = deadline.saturating_duration_since(Instant::now());
        let outcome = call(REVIEW, within, asked).await;
        let mut failures = lock(&self.failures);
        match outcome {
            Ok(answer) => {
                failures.succeeded();
                Ok(answer.status.allowed && !answer.status.denied)
            }
            Err(error) => {
                failures.failed(&error);
                Err(AccessReviewError::Call(error))
            }
        }
    }
}

fn key(review: &str) -> Digest {
    let mut key = Digest::default();
    key.copy_from_slice(digest(&SHA256, review.as_bytes()).as_ref());
    key
}

fn review(user: &ForwardedUser, question: AccessQuestion<'_>) -> Value {
    let ForwardedUser {
        name,
        uid,
        groups,
        extra,
    } = user;
    let AccessQuestion {
        verb,
        namespace,
        workload,
    } = question;
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": name, "uid": uid, "groups": groups, "extra": extra,
            "resourceAttributes": {
                "group": GROUP, "resource": RESOURCE, "verb": verb,
                "namespace": namespace, "name": workload,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_good_for_seconds_and_bounded() {
        let mut recent = RecentAnswers::default();
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let (good, bad) = (key("good"), key("bad"));
        recent.keep(good, true, now);
        recent.keep(bad, false, now);
        assert_eq!(recent.find(&good, later(9)), Some(true));
        assert_eq!(recent.find(&bad, later(4)), Some(false));
        assert_eq!(recent.find(&good, later(10)), None);
        assert_eq!(recent.find(&bad, later(5)), None);
        for number in 0..2 * MAX_ANSWERS {
            recent.keep(key(&number.to_string()), true, now);
        }
        assert_eq!(recent.0.len(), MAX_ANSWERS);
        recent.keep(key("new"), false, later(10));
        assert_eq!(recent.find(&key("new"), later(11)), Some(false));
    }

    #[test]
    fn every_part_of_the_user_and_of_the_question_counts() {
        let user = ForwardedUser {
            name: "jane".to_owned(),
            uid: "1".to_owned(),
            groups: vec!["dev".to_owned()],
            extra: [("scope".to_owned(), vec!["a".to_owned()])].into(),
        };
        let question = AccessQuestion {
            verb: "tap",
            namespace: "shop",
            workload: "web-0",
        };
        let asked = review(&user, question);
        assert_eq!(asked["spec"]["extra"]["scope"][0], "a");
        assert_eq!(asked["spec"]["resourceAttributes"]["name"], "web-0");
        let other = |change: fn(&mut ForwardedUser, &mut AccessQuestion<'static>)| {
            let (mut user, mut question) = (user.clone(), question);
            change(&mut user, &mut question);
            key(&review(&user, question).to_string())
        };
        let keys = [
            other(|_, _| {}),
            other(|user, _| user.name.push('2')),
            other(|user, _| user.uid.push('2')),
            other(|user, _| user.groups.push("ops".to_owned())),
            other(|user, _| user.extra.clear()),
            other(|_, question| question.verb = "get"),
            other(|_, question| question.namespace = ""),
            other(|_, question| question.workload = ""),
        ];
        let different: std::collections::HashSet<_> = keys.into_iter().collect();
        assert_eq!(different.len(), 8);
    }
}
