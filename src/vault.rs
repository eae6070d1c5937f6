/// A key-encrypting key.
#[derive(Debug)]
pub struct Kek;
