//! What `doctor` wants to know of an environment: who we are, how far away it is, what is left of its
//! limits, and whether the tables of the project's flows can be used as the flows use them.
//!
//! Nothing is written. What the service does not tell is said to be unknown.

mod connection;
mod tables;

use flowgate_core::ConnectorError;
use flowgate_core::examination::{Finding, TableUse};

use crate::Dataverse;

/// See [`flowgate_core::Destination::examine`].
pub(crate) async fn examine(dataverse: &Dataverse, uses: &[TableUse]) -> Result<Vec<Finding>, ConnectorError> {
    let mut findings = connection::examine(dataverse).await?;
    findings.extend(tables::examine(dataverse, uses).await?);
    Ok(findings)
}
