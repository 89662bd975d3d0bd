//! Which workloads a service, or a policy, selects.

use std::collections::BTreeMap;

use crate::model::manifest::service::Service;
use crate::model::manifest::workload::Workload;

/// Whether the service selects the workload. A service without a selector selects none.
pub fn selects(service: &Service, workload: &Workload) -> bool {
    service.meta.namespace == workload.meta.namespace
        && !service.selector.is_empty()
        && has_labels(workload, &service.selector)
}

/// Whether the workload has all of these labels.
pub fn has_labels(workload: &Workload, labels: &BTreeMap<String, String>) -> bool {
    let own = &workload.meta.labels;
    let mut labels = labels.iter();
    labels.all(|(name, value)| own.get(name) == Some(value))
}
