//! Typed headers: the fields of one request or response, by meaning instead of by wire name.
//!
//! Each has `parse(&Fields)` and `write(&self, &mut Fields)`. Texts are borrowed from the fields,
//! so parsing allocates nothing. Parsing checks presence and number format only; what a value may
//! be is the broker's to decide.
//!
//! Requests without header fields have no type here: heartbeat (34), lock and unlock (41, 42),
//! cluster info (106), group update (200), topic list (206), runtime info (28).

/// Room for a value: most are numbers.
const VALUE_BYTES_USUAL: usize = 16;

/// Defines a header from one list of fields and wire names, so that reading, writing and
/// documentation of sixty headers cannot drift apart.
macro_rules! header {
    (
        $(#[$meta:meta])*
        $name:ident $(<$life:lifetime>)? {
            $($(#[$field_meta:meta])* $field:ident: $type:ty = $wire:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $(
                #[doc = concat!("`", $wire, "`.")]
                $(#[$field_meta])*
                pub $field: $type,
            )*
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Reads the header.
            ///
            /// # Errors
            /// [`FieldError`](crate::FieldError) names the first field that is absent or wrong.
            pub fn parse(fields: &$($life)? crate::Fields) -> Result<Self, crate::FieldError> {
                Ok(Self { $($field: fields.read($wire)?,)* })
            }

            /// Appends the header's fields; absent optional ones are left out.
            pub fn write(&self, fields: &mut crate::Fields) {
                const NAMES: &[&str] = &[$($wire),*];
                let names_bytes = concat!($($wire),*).len();
                fields.reserve(NAMES.len(), names_bytes + NAMES.len() * super::VALUE_BYTES_USUAL);
                $(fields.write($wire, self.$field);)*
            }
        }
    };
}

mod client;
mod consumer_admin;
mod group;
mod kv;
mod offsets;
mod pop;
mod pull;
mod query;
mod route;
mod routing;
mod send;
mod send_back;
mod stats;
mod topic;
mod transaction;

pub use client::*;
pub use consumer_admin::*;
pub use group::*;
pub use kv::*;
pub use offsets::*;
pub use pop::*;
pub use pull::*;
pub use query::*;
pub use route::*;
pub use routing::*;
pub use send::*;
pub use send_back::*;
pub use stats::*;
pub use topic::*;
pub use transaction::*;

#[cfg(test)]
mod tests;
