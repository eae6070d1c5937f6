//! The commands about licences of our own.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedCommand {
    Issue,
    List,
    Rotate,
    Extend,
    Expire,
    Import,
    Export,
    Forget,
}

impl IssuedCommand {
    pub const ALL: [IssuedCommand; 8] = [
        IssuedCommand::Issue,
        IssuedCommand::List,
        IssuedCommand::Rotate,
        IssuedCommand::Extend,
        IssuedCommand::Expire,
        IssuedCommand::Import,
        IssuedCommand::Export,
        IssuedCommand::Forget,
    ];

    pub fn name(self) -> &'static str {
        match self {
            IssuedCommand::Issue => "issue",
            IssuedCommand::List => "list",
            IssuedCommand::Rotate => "rotate",
            IssuedCommand::Extend => "extend",
            IssuedCommand::Expire => "expire",
            IssuedCommand::Import => "import",
            IssuedCommand::Export => "export",
            IssuedCommand::Forget => "forget",
        }
    }
}
