//! Exit statuses (design section 5): part of the contract with scripts.

use std::process::ExitCode;

use flowgate_core::Code;
use flowgate_store::RunState;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Complete,
    /// Complete, but rows were quarantined.
    Quarantined,
    /// A load was stopped by a guard, before anything of it was sent.
    Guarded,
    Failed,
    /// The configuration or the command line is wrong; nothing was reached.
    Usage,
    /// Stopped on request; the next run goes on.
    Interrupted,
}

impl Exit {
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Quarantined => 3,
            Self::Guarded => 4,
            Self::Interrupted => 130,
        }
    }

    /// Of two ends the one that counts: 1 before 4 before 3 before 0. An interruption and a usage
    /// error end the command at once, so they count above all.
    pub(crate) fn and(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Complete => 0,
            Self::Quarantined => 1,
            Self::Guarded => 2,
            Self::Failed => 3,
            Self::Usage => 4,
            Self::Interrupted => 5,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    pub(crate) fn of_run(state: RunState) -> Self {
        match state {
            RunState::Complete => Self::Complete,
            RunState::CompleteWithLetters => Self::Quarantined,
            RunState::StoppedByGuard => Self::Guarded,
            RunState::Interrupted => Self::Interrupted,
            RunState::Failed | RunState::Running | RunState::Abandoned => Self::Failed,
        }
    }

    /// The status that an error of this code stands for.
    pub(crate) fn of_code(code: Code) -> Self {
        match code {
            Code::CANCELLED => Self::Interrupted,
            Code::GUARD | Code::WENT_BACK_IN_TIME | Code::STATE_OF_OTHER_ROWS | Code::STATE_WENT_BACK => Self::Guarded,
            Code::PROVISION_REFUSED => Self::Usage,
            // What `check` finds in a SELECT, and every other command before it begins.
            Code::SQL_SYNTAX
            | Code::SQL_UNKNOWN_TABLE
            | Code::SQL_NOT_A_SELECT
            | Code::SQL_DUPLICATE_COLUMN
            | Code::SQL_MISSING_KEY
            | Code::SQL_FORBIDDEN
            | Code::SQL_TOO_LARGE
            | Code::MISSING_DRIVER_ROW => Self::Usage,
            Code(number) if number < 100 => Self::Usage,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_serious_end_counts() {
        let all = |ends: &[Exit]| ends.iter().copied().fold(Exit::Complete, Exit::and).status();
        assert_eq!(all(&[]), 0);
        assert_eq!(all(&[Exit::Quarantined, Exit::Complete]), 3);
        assert_eq!(all(&[Exit::Guarded, Exit::Quarantined]), 4);
        assert_eq!(all(&[Exit::Failed, Exit::Guarded, Exit::Quarantined]), 1);
        assert_eq!(all(&[Exit::Failed, Exit::Interrupted]), 130);
    }

    #[test]
    fn configuration_is_told_from_failure() {
        assert_eq!(Exit::of_code(Code::UNKNOWN_KEY), Exit::Usage);
        assert_eq!(Exit::of_code(Code::CONNECTION_FAILED), Exit::Failed);
        assert_eq!(Exit::of_code(Code::WENT_BACK_IN_TIME), Exit::Guarded);
        assert_eq!(Exit::of_code(Code::STATE_OF_OTHER_ROWS), Exit::Guarded);
    }
}
