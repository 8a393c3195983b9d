//! How the configuration describes itself: every block, its keys, and what each key takes.
//!
//! The tables made of these types are the only place where a key is spelled. [`crate::check`]
//! holds a file against them and [`crate::schema`] turns them into JSON Schema, so that the editor
//! and the reader cannot disagree.

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Kind {
    Text,
    /// A name of ours: lower case, digits and underscores.
    Name,
    /// Any scalar, taken as it is written.
    Scalar,
    Boolean,
    Whole {
        min: u64,
        max: u64,
    },
    Number,
    Written(&'static Written),
    Word(&'static [Word]),
    List(&'static Kind),
    /// Keys chosen by the user.
    Map(&'static Kind),
    /// Keys chosen by the user that are names of ours.
    Named(&'static Kind),
    Block(&'static Block),
    /// The first whose form (scalar, list, block) is that of the value.
    Either(&'static [Kind]),
}

/// A scalar with a notation of its own.
#[derive(Debug)]
pub(crate) struct Written {
    /// "a percentage such as `40%`"
    pub(crate) expected: &'static str,
    /// The same notation as a regular expression, for editors.
    pub(crate) pattern: &'static str,
    pub(crate) accepts: fn(&str) -> bool,
    /// A plain number is one way to write it.
    pub(crate) may_be_number: bool,
}

/// One word of a closed set.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
}

#[derive(Debug)]
pub(crate) struct Block {
    /// What it is, with its article: "a load".
    pub(crate) title: &'static str,
    pub(crate) keys: &'static [Key],
    pub(crate) others: Others,
    /// Keys this version does not have, each with what to use.
    pub(crate) refused: &'static [Word],
}

/// Keys of a block beside the listed ones.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Others {
    None,
    /// Keys chosen by the user.
    Free(&'static Kind),
    /// The name of a connector, with its block.
    Connector,
    /// The keys of the connector that the stream reads from.
    ConnectorKeys,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) doc: &'static str,
    pub(crate) is_required: bool,
}

impl Key {
    pub(crate) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, doc, is_required: true }
    }

    pub(crate) const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, doc, is_required: false }
    }
}

impl Block {
    pub(crate) const fn of(title: &'static str, keys: &'static [Key]) -> Self {
        Self { title, keys, others: Others::None, refused: &[] }
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub(crate) fn key_names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

/// The written form of a value, by which [`Kind::Either`] chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Scalar,
    List,
    Block,
}

impl Kind {
    pub(crate) fn form(&self) -> Form {
        match self {
            Self::List(_) => Form::List,
            Self::Map(_) | Self::Named(_) | Self::Block(_) => Form::Block,
            _ => Form::Scalar,
        }
    }

    /// "a list of text", for "expected …, found …".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Name => "a name".to_owned(),
            Self::Scalar => "a single value".to_owned(),
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Whole { min, max } if *max == COUNT_MAX => format!("a whole number, {min} or more"),
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number => "a number".to_owned(),
            Self::Written(written) => written.expected.to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{}`", word.name)).collect();
                match words.split_last() {
                    Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
                    _ => words.concat(),
                }
            }
            Self::List(kind) => format!("a list ({})", kind.describe()),
            Self::Map(_) | Self::Named(_) => "a block of keys".to_owned(),
            Self::Block(block) => format!("{} as a block of keys", block.title),
            Self::Either(kinds) => kinds.iter().map(Kind::describe).collect::<Vec<_>>().join(", or "),
        }
    }
}

/// The greatest count that is not a limit in itself: what JSON readers can still hold.
pub(crate) const COUNT_MAX: u64 = 1 << 53;

/// One text or a list of them.
pub(crate) const TEXTS: Kind = Kind::Either(&[Kind::Text, Kind::List(&Kind::Text)]);
