//! How the budget of a connection is set up, and why it lets nothing through, as an error.

use std::sync::Arc;

use flowgate_core::{Clock, Code, ConnectorError, ErrorKind};
use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::budget::{
    Budget, ConnectionSnapshot, NotAdmitted, Policy, PolicySettings, Shares, Sharing, SharingState, Snapshot,
};
use crate::call::CallError;
use crate::cost::Costs;
use crate::options::{Addresses, DataverseOptions};
use crate::users::Users;

/// The budget of a connection. `clock` is the service's.
pub(crate) fn budget(
    options: &DataverseOptions,
    addresses: &Addresses,
    users: &Arc<Users>,
    costs: &Arc<Costs>,
    clock: Arc<dyn Clock>,
) -> Result<Budget, ConnectorError> {
    let bad_setting = |message: String| ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, message);
    let zone = TimeZone::get(&options.time_zone)
        .map_err(|_| bad_setting(format!("`{}` is not a time zone", options.time_zone)))?;
    let shares = Shares::new(&options.budget.batch, zone).map_err(|text| {
        bad_setting(format!("`{text}` is not a time of the week")).hint("write `Mon-Fri 08:00-18:00` or `22:00-06:00`")
    })?;
    let seed = Uuid::new_v4().as_u64_pair().0;
    let settings = PolicySettings { users: users.count() as u16, daily: options.budget.daily, seed };
    let mut policy = Policy::new(&settings);
    policy.set_roles(&users.roles());
    let sharing = options.sharing.as_ref().map(|sharing| Sharing {
        leases: Arc::clone(&sharing.leases),
        connection: sharing.connection.clone(),
        identities: users.identities(),
        pool: addresses.service.to_string(),
        time_scale: options.time_scale,
        describe: describe(options.time_scale, users, costs),
        state: SharingState::default(),
    });
    Ok(Budget::new(clock, shares, policy, sharing))
}

/// Makes what `status` shows of a budget.
fn describe(time_scale: f64, users: &Arc<Users>, costs: &Arc<Costs>) -> Box<dyn Fn(Snapshot) -> String + Send + Sync> {
    let (users, costs) = (Arc::clone(users), Arc::clone(costs));
    Box::new(move |budget| {
        let (users, messages) = (users.snapshot(), costs.snapshot());
        let shown = ConnectionSnapshot { time_scale, users, budget, messages };
        // Numbers and names only: that they cannot be written as JSON is not possible.
        serde_json::to_string(&shown).unwrap_or_default()
    })
}

pub(crate) fn not_admitted(why: NotAdmitted) -> CallError {
    CallError::Fatal(match why {
        NotAdmitted::NotShared(error) => error,
        NotAdmitted::DailyBudgetUsed { daily } => {
            let message = format!("the daily budget of {daily} requests is used up");
            ConnectorError::new(ErrorKind::Throttled, Code::THROTTLED, message).hint(
                "raise `budget.daily` of the connection, or run again tomorrow: the run continues where it stopped",
            )
        }
    })
}
