//! The language a peer says it is written in.

/// Language code of a header: one byte in the compact encoding, a name in JSON.
///
/// A name or number that is not listed here decodes as [`Language::Other`]; it is never an error,
/// because newer clients add names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Language {
    /// Java; also what every response of ours carries, since all clients know it.
    Java = 0,
    /// C++, and the Node.js and Python bindings over it.
    Cpp = 1,
    /// .NET.
    Dotnet = 2,
    /// Python.
    Python = 3,
    /// Delphi.
    Delphi = 4,
    /// Erlang.
    Erlang = 5,
    /// Ruby.
    Ruby = 6,
    /// Any language without a code of its own.
    Other = 7,
    /// HTTP gateways.
    Http = 8,
    /// Go.
    Go = 9,
    /// PHP.
    Php = 10,
    /// OpenMessaging.
    Oms = 11,
    /// Rust.
    Rust = 12,
    /// Node.js.
    NodeJs = 13,
}

const ALL: [(Language, &str); 14] = [
    (Language::Java, "JAVA"),
    (Language::Cpp, "CPP"),
    (Language::Dotnet, "DOTNET"),
    (Language::Python, "PYTHON"),
    (Language::Delphi, "DELPHI"),
    (Language::Erlang, "ERLANG"),
    (Language::Ruby, "RUBY"),
    (Language::Other, "OTHER"),
    (Language::Http, "HTTP"),
    (Language::Go, "GO"),
    (Language::Php, "PHP"),
    (Language::Oms, "OMS"),
    (Language::Rust, "RUST"),
    (Language::NodeJs, "NODE_JS"),
];

impl Language {
    /// Decodes the byte of the compact header.
    pub fn from_code(code: u8) -> Self {
        ALL.get(usize::from(code))
            .map_or(Language::Other, |(language, _)| *language)
    }

    /// Decodes the name of the JSON header.
    pub fn from_name(name: &str) -> Self {
        let found = ALL.iter().find(|(_, candidate)| *candidate == name);
        found.map_or(Language::Other, |(language, _)| *language)
    }

    /// The byte of the compact header.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name of the JSON header.
    pub fn name(self) -> &'static str {
        ALL[usize::from(self.code())].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_positions_in_the_table() {
        for (position, (language, name)) in ALL.iter().enumerate() {
            assert_eq!(usize::from(language.code()), position);
            assert_eq!(Language::from_code(language.code()), *language);
            assert_eq!(Language::from_name(name), *language);
            assert_eq!(language.name(), *name);
        }
    }

    #[test]
    fn unknown_languages_are_other() {
        assert_eq!(Language::from_code(200), Language::Other);
        assert_eq!(Language::from_name("COBOL"), Language::Other);
    }
}
