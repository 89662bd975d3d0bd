//! Which workloads a service selects.

use crate::model::manifest::service::Service;
use crate::model::manifest::workload::Workload;

/// Whether the service selects the workload. A service without a selector selects none.
pub fn selects(service: &Service, workload: &Workload) -> bool {
    let labels = &workload.meta.labels;
    service.meta.namespace == workload.meta.namespace
        && !service.selector.is_empty()
        && service
            .selector
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
}
