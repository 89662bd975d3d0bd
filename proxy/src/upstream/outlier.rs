//! Outlier detection.

/// envoy.config.cluster.v3.OutlierDetection, the supported part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierConfig {}
