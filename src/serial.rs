//! How values are written down: JSON, which people and programs read, has words; the compiled copy, which must be fast and
//! only this program reads, has numbers.
//!
//! Owns the two forms; leaves which values have which words to `model`. Used by the types that are written down.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// Numbers that have words: a text is the word, or else this name with the number.
macro_rules! words {
    ($($(#[$about:meta])* $name:ident($number:ty): $other:literal, [$($(#[$which:meta])* $word:literal $constant:ident $value:literal),*];)*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
        pub struct $name(#[cfg_attr(feature = "schema", schemars(with = "String"))] pub $number);

        impl $name {
            $($(#[$which])* pub const $constant: Self = Self($value);)*
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self($value))),*];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match Self::WORDS.iter().find(|(_, known)| known == self) {
                    Some((word, _)) => f.write_str(word),
                    None => write!(f, "{}-{}", $other, self.0),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if !from.is_human_readable() {
                    return <$number>::deserialize(from).map(Self);
                }
                let text = String::deserialize(from)?;
                let known = Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, known)| *known);
                let number = || text.strip_prefix(concat!($other, "-"))?.parse().ok().map(Self);
                known.or_else(number).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no {}", $other)))
            }
        }
    )*};
}

pub(crate) use words;

/// Maps as objects: each value has its key's text for a name.
pub fn objects<S: Serializer>(
    map: &BTreeMap<impl ToString, impl Serialize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(key, value)| (key.to_string(), value)))
}

/// Maps with keys that JSON cannot have as names, written as lists of pairs.
pub mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(
        map: &BTreeMap<impl Serialize, impl Serialize>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, K, V, M, D>(deserializer: D) -> Result<M, D::Error>
    where
        K: Ord,
        (K, V): Deserialize<'de>,
        M: From<BTreeMap<K, V>>,
        D: Deserializer<'de>,
    {
        Ok(BTreeMap::from_iter(Vec::deserialize(deserializer)?).into())
    }
}
