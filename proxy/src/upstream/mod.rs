//! Clusters at work: balancing, pools, limits, outliers.

pub mod host;
pub mod limits;
pub mod outlier;
pub mod pool;
