//! The operator actions on licences, by name.

use super::issued::command::IssuedCommand;
use crate::ledger::OperatorActionKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LicenseCommand {
    Show,
    /// Licences move to other keys, many in one order.
    Move,
    Do(OperatorActionKind),
    /// About licences of our own.
    Issued(IssuedCommand),
}

impl LicenseCommand {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "show" => Some(LicenseCommand::Show),
            "move" => Some(LicenseCommand::Move),
            "grant" | "reset" | "revoke" | "restore" => {
                OperatorActionKind::parse(name).map(LicenseCommand::Do)
            }
            _ => {
                let mut commands = IssuedCommand::ALL.into_iter();
                commands.find(|command| command.name() == name).map(LicenseCommand::Issued)
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            LicenseCommand::Show => "show",
            LicenseCommand::Move => "move",
            LicenseCommand::Do(kind) => kind.name(),
            LicenseCommand::Issued(command) => command.name(),
        }
    }
}
